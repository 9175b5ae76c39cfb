//! Transfers on the wire: blocks, windows, garbage, strangers.

use bbot_agent::tftp::Served;

use super::setup;
use crate::support::tftp::{Client, Said, Scratch, Server, is_before, options, pattern, request};

#[test]
fn a_file_is_read_in_blocks_and_an_exact_multiple_ends_with_an_empty_one() {
    for size in [0, 1, 511, 512, 513, 1024, 5000] {
        let (_scratch, server) = setup(&[("f", size)]);
        let client = server.client();
        client.rrq("f", &[]);
        assert!(client.rest(512) == pattern(size), "{size}");
        let sent = server.wait(|event| match event {
            Served::Sent { size, .. } => Some(*size),
            _ => None,
        });
        assert_eq!(sent, size as u64);
    }
}

#[test]
fn a_file_is_written_in_blocks() {
    for size in [0, 1, 511, 512, 513, 1024, 50_000] {
        let (scratch, server) = setup(&[]);
        let client = server.client();
        client.wrq("f", &[]);
        client.hear_ack(0);
        client.store(512, &pattern(size));
        // Who has the last ACK finds the file.
        assert!(scratch.uploaded("f") == Some(pattern(size)), "{size}");
        let (path, stored) = server.wait(|event| match event {
            Served::Uploaded { upload, size, .. } => Some((upload.path.clone(), *size)),
            _ => None,
        });
        assert_eq!((path, stored), (scratch.put().join("f"), size as u64));
    }
}

#[test]
fn block_numbers_wrap_to_zero_both_ways() {
    let size = 8 * 65_600 + 3;
    let (scratch, server) = setup(&[("f", size)]);
    let client = server.client();
    client.rrq("f", &[("blksize", "8"), ("windowsize", "64")]);
    client.hear_oack();
    client.ack(0);
    let mut file = Vec::new();
    let mut number = 0_u16;
    loop {
        let Said::Data(n, payload) = client.hear() else {
            panic!("no DATA");
        };
        if is_before(n, number.wrapping_add(1)) {
            // Sent again, as we were not scheduled for a while.
            continue;
        }
        number = number.wrapping_add(1);
        assert_eq!(n, number);
        file.extend_from_slice(&payload);
        let last = payload.len() < 8;
        if last || file.len() / 8 % 64 == 0 {
            client.ack(number);
        }
        if last {
            break;
        }
    }
    assert!(file == pattern(size));

    client.wrq("f", &[("blksize", "8"), ("windowsize", "64")]);
    client.hear_oack();
    let hear_ack = |number: u16| loop {
        match client.hear() {
            Said::Ack(n) if n == number => break,
            // Sent again, as above.
            Said::Ack(n) if is_before(n, number) => {}
            other => panic!("no ACK {number}: {other:?}"),
        }
    };
    let mut sent = 0_u64;
    for payload in pattern(size).chunks(8) {
        sent += 1;
        client.data((sent & 0xffff) as u16, payload);
        if sent.is_multiple_of(64) {
            hear_ack((sent & 0xffff) as u16);
        }
    }
    hear_ack((sent & 0xffff) as u16);
    assert!(scratch.uploaded("f") == Some(pattern(size)));
}

#[test]
fn netascii_is_converted_both_ways_wherever_a_block_ends() {
    let text = b"one\ntwo\r\nthree\rfour\n\r\n\n\n\r\r\0x\n".repeat(40);
    let mut wire = Vec::new();
    for &octet in &text {
        match octet {
            b'\n' => wire.extend(b"\r\n"),
            b'\r' => wire.extend(b"\r\0"),
            other => wire.push(other),
        }
    }
    let block = |number: usize| u16::try_from(number).unwrap();
    let scratch = Scratch::new();
    scratch.file("t", &text);
    let server = Server::start(&scratch);
    for blksize in (8..40).chain([512, wire.len(), wire.len() + 1]) {
        for window in [1, 5] {
            let (size, windows) = (blksize.to_string(), window.to_string());
            let asked = [
                ("blksize", size.as_str()),
                ("windowsize", windows.as_str()),
                ("tsize", "0"),
            ];
            let client = server.client();
            client.send(&request(1, "t", "NetASCII", &asked));
            assert_eq!(client.hear_oack(), options(&asked[..2]), "no tsize");
            client.ack(0);
            // Of each window only the first two blocks are taken, so that the
            // next one starts in its middle.
            let total = wire.len() / blksize + 1;
            let (mut got, mut taken) = (Vec::new(), 0);
            while taken < total {
                for number in 1..=window.min(total - taken) {
                    let payload = client.hear_data(block(taken + number));
                    if number <= 2 {
                        got.extend_from_slice(&payload);
                    }
                }
                taken = (taken + window.min(2)).min(total);
                client.ack(block(taken));
            }
            assert!(got == wire, "{blksize} {window}");
        }
        let client = server.client();
        client.send(&request(
            2,
            "t",
            "netascii",
            &[("blksize", &blksize.to_string())],
        ));
        client.hear_oack();
        client.store(blksize, &wire);
        assert!(
            scratch.uploaded("t").as_deref() == Some(&text[..]),
            "{blksize}"
        );
    }
}

#[test]
fn strangers_are_told_so_and_the_transfer_goes_on() {
    let (_scratch, server) = setup(&[("f", 1000)]);
    let client = server.client();
    client.rrq("f", &[]);
    client.hear_data(1);
    let stranger = server.client();
    stranger.ack(1);
    assert_eq!(stranger.hear_error().0, 5);
    stranger.data(1, b"x");
    assert_eq!(stranger.hear_error().0, 5);
    stranger.error(0, "no");
    stranger.hear_nothing();
    client.hear_nothing();
    client.ack(1);
    client.hear_data(2);
    client.ack(2);
}

#[test]
fn a_duplicate_ack_sends_nothing_and_stale_and_future_ones_neither() {
    let (_scratch, server) = setup(&[("f", 5000)]);
    let client = server.client();
    client.rrq("f", &[]);
    client.hear_data(1);
    client.ack(1);
    client.ack(1);
    client.ack(1);
    client.ack(0);
    client.ack(7);
    client.ack(65535);
    client.hear_data(2);
    client.hear_nothing();
    client.ack(2);
    client.hear_data(3);
}

#[test]
fn garbage_within_a_transfer_does_not_disturb_it() {
    let (scratch, server) = setup(&[]);
    let client = server.client();
    client.wrq("f", &[]);
    client.hear_ack(0);
    client.data(1, &pattern(512));
    client.hear_ack(1);
    client.send(b"");
    client.send(b"\0\x03\0");
    client.send(b"\0\x09\0\x01");
    client.send(b"\0\x06blksize\x00512\0");
    client.send(b"\0\x02");
    client.send(b"\0\x01garbage");
    client.send(&request(1, &"x".repeat(600), "octet", &[]));
    client.send(b"\0\x02f\0mail\0");
    client.ack(1);
    client.data(3, b"not yet");
    client.data(0, b"long ago");
    client.data(40000, b"what");
    client.hear_nothing();
    client.data(2, b"end");
    client.hear_ack(2);
    assert!(scratch.uploaded("f") == Some([&pattern(512)[..], b"end"].concat()));
}

#[test]
fn padded_acks_count() {
    let (_scratch, server) = setup(&[("f", 600)]);
    let client = server.client();
    client.rrq("f", &[]);
    client.hear_data(1);
    client.send(b"\0\x04\0\x01\0\0\0\0\0\0");
    client.hear_data(2);
}

#[test]
fn an_error_of_any_code_ends_a_transfer_without_an_answer() {
    let (scratch, server) = setup(&[("f", 5000)]);
    for code in [0, 8, 99, 65535] {
        let client = server.client();
        client.rrq("f", &[("tsize", "0")]);
        client.hear_oack();
        client.error(code, "TFTP Aborted");
        client.ack(0);
        client.hear_nothing();
    }
    let client = server.client();
    client.wrq("f", &[]);
    client.hear_ack(0);
    client.data(1, &pattern(512));
    client.hear_ack(1);
    client.error(0, "no more");
    client.data(2, b"x");
    client.hear_nothing();
    assert!(scratch.names().is_empty());
}

#[test]
fn a_window_goes_on_after_the_block_that_was_acknowledged() {
    let (_scratch, server) = setup(&[("f", 512 * 20 + 1)]);
    let client = server.client();
    client.rrq("f", &[("windowsize", "4")]);
    client.hear_oack();
    client.ack(0);
    for number in 1..=4 {
        client.hear_data(number);
    }
    // Block 3 was lost.
    client.ack(2);
    for number in 3..=6 {
        client.hear_data(number);
    }
    client.hear_nothing();
    client.ack(6);
    for number in 7..=10 {
        client.hear_data(number);
    }
    // Block 7 was lost: the ACK is that of the window before. It is answered
    // once, however often it comes.
    for _ in 0..5 {
        client.ack(6);
    }
    for number in 7..=10 {
        client.hear_data(number);
    }
    client.hear_nothing();
}

#[test]
fn a_gap_is_acknowledged_once() {
    let (scratch, server) = setup(&[]);
    let client = server.client();
    let file = pattern(512 * 10 + 5);
    let block = |number: u16| {
        let blocks: Vec<_> = file.chunks(512).collect();
        client.data(number, blocks[usize::from(number) - 1]);
    };
    client.wrq("f", &[("windowsize", "8")]);
    client.hear_oack();
    for number in [1, 2, 4, 5, 6, 7, 8] {
        block(number);
    }
    client.hear_ack(2);
    client.hear_nothing();
    for number in 3..=10 {
        block(number);
    }
    client.hear_ack(10);
    // The last ACK was lost, and so was that.
    block(10);
    client.hear_ack(10);
    block(11);
    client.hear_ack(11);
    for _ in 0..3 {
        block(11);
        client.hear_ack(11);
    }
    assert!(scratch.uploaded("f") == Some(file.clone()));
}

#[test]
fn a_lost_first_block_of_a_window_is_reported() {
    let (scratch, server) = setup(&[]);
    let client = server.client();
    client.wrq("f", &[("windowsize", "4"), ("blksize", "8")]);
    client.hear_oack();
    client.data(2, b"22222222");
    client.hear_ack(0);
    client.data(1, b"11111111");
    client.data(2, b"22222222");
    client.data(3, b"3");
    client.hear_ack(3);
    assert!(scratch.uploaded("f").as_deref() == Some(b"11111111222222223"));
}

#[test]
fn data_longer_than_the_block_size_ends_the_upload() {
    let (scratch, server) = setup(&[]);
    let client = server.client();
    client.wrq("f", &[]);
    client.hear_ack(0);
    client.data(1, &pattern(513));
    assert_eq!(client.hear_error().0, 4);
    assert!(scratch.names().is_empty());
}

#[test]
fn many_transfers_run_at_once_and_a_stalled_one_holds_up_none() {
    let (scratch, server) = setup(&[("f", 3000)]);
    let stalled = server.client();
    stalled.rrq("f", &[]);
    stalled.hear_data(1);
    let readers: Vec<Client> = (0..63).map(|_| server.client()).collect();
    let writers: Vec<Client> = (0..64).map(|_| server.client()).collect();
    for (index, writer) in writers.iter().enumerate() {
        writer.wrq(&format!("w{index}"), &[]);
    }
    for reader in &readers {
        reader.rrq("f", &[]);
    }
    for writer in &writers {
        writer.hear_ack(0);
    }
    let file = pattern(3000);
    for (number, block) in (1..).zip(file.chunks(512)) {
        for reader in &readers {
            assert!(reader.hear_data(number) == block);
        }
        for client in &readers {
            client.ack(number);
        }
        for writer in &writers {
            writer.data(number, block);
        }
        for writer in &writers {
            writer.hear_ack(number);
        }
    }
    for index in 0..writers.len() {
        assert!(scratch.uploaded(&format!("w{index}")).as_ref() == Some(&file));
    }
}
