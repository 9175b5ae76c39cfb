//! The TFTP server on the wire: requests, options, transfers, strangers.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use bbot_agent::tftp::{Map, Rate, Served, ServerSettings, TftpServer};

use crate::support::tftp::{
    Client, Said, Scratch, Server, brief, is_before, options, pattern, request,
};

fn setup(files: &[(&str, usize)]) -> (Scratch, Server) {
    let scratch = Scratch::new();
    for (name, size) in files {
        scratch.file(name, &pattern(*size));
    }
    let server = Server::start(&scratch);
    (scratch, server)
}

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
            Served::Uploaded { path, size, .. } => Some((path.clone(), *size)),
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
    let mut sent = 0_u64;
    for payload in pattern(size).chunks(8) {
        sent += 1;
        client.data((sent & 0xffff) as u16, payload);
        if sent.is_multiple_of(64) {
            client.hear_ack((sent & 0xffff) as u16);
        }
    }
    client.hear_ack((sent & 0xffff) as u16);
    assert!(scratch.uploaded("f") == Some(pattern(size)));
}

#[test]
fn options_are_granted_in_any_case_and_order_and_only_when_asked_for() {
    let (_scratch, server) = setup(&[("f", 5000)]);
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Pairs<'_>, Pairs<'_>)] = &[
        (&[("blksize", "1428")], &[("blksize", "1428")]),
        (&[("BLKSIZE", "1428")], &[("blksize", "1428")]),
        (&[("tsize", "0")], &[("tsize", "5000")]),
        (&[("timeout", "5")], &[("timeout", "5")]),
        (&[("windowsize", "4")], &[("windowsize", "4")]),
        (&[("windowsize", "65535")], &[("windowsize", "64")]),
        (
            &[
                ("TimeOut", "5"),
                ("tSize", "0"),
                ("blkSize", "65464"),
                ("windowSIZE", "2"),
            ],
            &[
                ("timeout", "5"),
                ("tsize", "5000"),
                ("blksize", "65464"),
                ("windowsize", "2"),
            ],
        ),
        // What is wrong, unknown or repeated does not kill what is right.
        (
            &[
                ("blksize", "abc"),
                ("tsize", "0"),
                ("rollover", "0"),
                ("utimeout", "5"),
            ],
            &[("tsize", "5000")],
        ),
        (&[("blksize", "7"), ("tsize", "0")], &[("tsize", "5000")]),
        (
            &[("blksize", "65465"), ("tsize", "0")],
            &[("tsize", "5000")],
        ),
        (&[("timeout", "0"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("timeout", "256"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("timeout", "3000"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("windowsize", "0"), ("tsize", "0")], &[("tsize", "5000")]),
        (
            &[("windowsize", "65536"), ("tsize", "0")],
            &[("tsize", "5000")],
        ),
        (&[("blksize", "+512"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("blksize", "-1"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("blksize", ""), ("tsize", "0")], &[("tsize", "5000")]),
        (
            &[("blksize", "99999999999999999999999"), ("tsize", "0")],
            &[("tsize", "5000")],
        ),
        (
            &[("blksize", "1024"), ("blksize", "512"), ("BLKSIZE", "8")],
            &[("blksize", "1024")],
        ),
    ];
    for (asked, granted) in cases {
        let client = server.client();
        client.rrq("f", asked);
        assert_eq!(client.hear_oack(), options(granted), "{asked:?}");
        client.error(0, "enough");
    }
    // Nothing acceptable: no OACK, not even an empty one.
    for asked in [("blksize", "0"), ("foo", "1"), ("timeout", "x")] {
        let client = server.client();
        client.rrq("f", &[asked]);
        assert_eq!(client.hear_data(1).len(), 512, "{asked:?}");
        client.error(0, "enough");
    }
}

#[test]
fn every_block_size_is_granted_in_full() {
    let (scratch, server) = setup(&[("f", 200_000)]);
    for blksize in [8, 9, 511, 1428, 1468, 8192, 32768, 65463, 65464] {
        let client = server.client();
        let text = blksize.to_string();
        client.rrq("f", &[("blksize", &text)]);
        assert_eq!(client.hear_oack(), options(&[("blksize", &text)]));
        client.ack(0);
        assert!(client.rest(blksize) == pattern(200_000), "{blksize}");
        let client = server.client();
        client.wrq("f", &[("blksize", &text)]);
        assert_eq!(client.hear_oack(), options(&[("blksize", &text)]));
        client.store(blksize, &pattern(200_000));
        assert!(scratch.uploaded("f") == Some(pattern(200_000)), "{blksize}");
    }
}

#[test]
fn curl_gets_an_empty_file_without_a_tsize_that_it_takes_for_an_error() {
    let (_scratch, server) = setup(&[("empty", 0)]);
    let client = server.client();
    client.rrq(
        "empty",
        &[("tsize", "0"), ("blksize", "512"), ("timeout", "6")],
    );
    assert_eq!(
        client.hear_oack(),
        options(&[("blksize", "512"), ("timeout", "6")])
    );
    client.error(0, "enough");
    let client = server.client();
    client.rrq("empty", &[("blksize", "512"), ("tsize", "0")]);
    assert_eq!(
        client.hear_oack(),
        options(&[("blksize", "512"), ("tsize", "0")])
    );
}

#[test]
fn an_announced_size_of_zero_means_unknown() {
    let (scratch, server) = setup(&[]);
    let client = server.client();
    client.wrq("f", &[("tsize", "0")]);
    assert_eq!(client.hear_oack(), options(&[("tsize", "0")]));
    client.store(512, &pattern(3000));
    assert!(scratch.uploaded("f") == Some(pattern(3000)));
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
fn malformed_requests_are_refused_or_ignored_and_never_crash() {
    let (_scratch, server) = setup(&[("f", 10)]);
    let cases: &[(&[u8], Option<u16>)] = &[
        (b"\0\x01", Some(4)),
        (b"\0\x01f", Some(4)),
        (b"\0\x01f\0", Some(4)),
        (b"\0\x01\0octet\0", Some(2)),
        (b"\0\x01f\0mail\0", Some(4)),
        (b"\0\x02f\0MAIL\0", Some(4)),
        (b"\0\x01f\0\0", Some(4)),
        (b"\0\x01f\0octe\0", Some(4)),
        (b"\0\x01\xff\xfe\0octet\0", Some(2)),
        (b"\0\x00f\0octet\0", Some(4)),
        (b"\0\x07f\0octet\0", Some(4)),
        (b"\xff\xfff\0octet\0", Some(4)),
        (b"\x01\x00f\0octet\0", Some(4)),
        (b"", None),
        (b"\0", None),
        (b"\0\x03", None),
        (b"\0\x03\0", None),
        (b"\0\x04\0", None),
        (b"\0\x05", None),
        (b"\0\x05\0\0", None),
        (b"\0\x05\0\x63what\0", None),
    ];
    for (octets, code) in cases {
        let client = server.client();
        client.send(octets);
        match code {
            Some(code) => assert_eq!(client.hear_error().0, *code, "{octets:?}"),
            None => client.hear_nothing(),
        }
    }
    let client = server.client();
    client.send(&request(1, &"x".repeat(600), "octet", &[]));
    assert_eq!(client.hear_error().0, 4);
    // Only one meaning is possible: no NUL after the mode, padding, half an option.
    for octets in [
        &b"\0\x01f\0octet"[..],
        b"\0\x01f\0OCTET\0\0\0\0\0",
        b"\0\x01f\0octet\0blksize",
        b"\0\x01f\0octet\0blksize\0",
        b"\0\x01f\0octet\0blksize\x00102",
    ] {
        let client = server.client();
        client.send(octets);
        assert_eq!(client.hear_data(1), pattern(10));
        client.ack(1);
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
fn a_request_that_comes_twice_is_one_transfer() {
    let (scratch, server) = setup(&[("f", 1000)]);
    let client = server.client();
    client.rrq("f", &[]);
    client.rrq("f", &[]);
    client.hear_data(1);
    client.hear_nothing();
    client.ack(1);
    client.hear_data(2);
    client.ack(2);

    client.wrq("f", &[]);
    client.hear_ack(0);
    client.wrq("f", &[]);
    client.hear_ack(0);
    client.data(1, &pattern(512));
    client.hear_ack(1);
    // Even in the midst of it, if the upload goes on.
    client.wrq("f", &[]);
    client.hear_nothing();
    client.data(2, b"end");
    client.hear_ack(2);
    assert!(scratch.uploaded("f") == Some([&pattern(512)[..], b"end"].concat()));
}

#[test]
fn a_port_can_be_used_again_at_once() {
    let (scratch, server) = setup(&[("f", 5000), ("g", 100)]);
    let client = server.client();
    client.rrq("f", &[]);
    client.hear_data(1);
    client.ack(1);
    client.hear_data(2);
    // Another file.
    client.rrq("g", &[]);
    assert_eq!(client.hear_data(1), pattern(100));
    client.ack(1);
    client.hear_nothing();
    // The same file from the start, twice in the midst of it.
    for _ in 0..2 {
        client.rrq("f", &[]);
        client.hear_data(1);
        client.ack(1);
        client.hear_data(2);
    }
    client.rrq("f", &[]);
    assert!(client.rest(512) == pattern(5000));
    for text in [&b"one"[..], b"two"] {
        client.wrq("u", &[]);
        client.hear_ack(0);
        client.store(512, text);
        assert_eq!(scratch.uploaded("u").as_deref(), Some(text));
    }
}

#[test]
fn a_request_that_comes_late_once_more_does_not_end_its_transfer() {
    let (scratch, server) = setup(&[("f", 5000)]);
    for mode in ["octet", "netascii"] {
        for options in [&[][..], &[("windowsize", "1")]] {
            let client = server.client();
            let read = request(1, "f", mode, options);
            client.send(&read);
            if !options.is_empty() {
                client.hear_oack();
                client.ack(0);
            }
            let first = client.hear_data(1);
            for number in 1..=3 {
                client.ack(number);
                client.hear_data(number + 1);
            }
            client.send(&read);
            // After a while the peer is asked whether it has begun anew.
            match client.hear() {
                Said::Data(1, payload) => assert!(options.is_empty() && payload == first),
                Said::Oack(_) => assert!(!options.is_empty()),
                other => panic!("{}", brief(&other)),
            }
            // It has not, and answers what it has waited for.
            client.ack(4);
            client.hear_data(5);
            client.ack(0);
            client.ack(1);
            client.hear_nothing();
            client.ack(5);
            client.hear_data(6);
        }
    }
    let client = server.client();
    client.wrq("u", &[]);
    client.hear_ack(0);
    for number in 1..=3 {
        client.data(number, &pattern(512));
        client.hear_ack(number);
    }
    client.wrq("u", &[]);
    client.hear_ack(0);
    client.data(4, b"end");
    client.hear_ack(4);
    assert_eq!(scratch.uploaded("u").map(|file| file.len()), Some(1539));
}

#[test]
fn a_peer_that_begins_anew_is_believed_once_it_answers() {
    let (scratch, server) = setup(&[("f", 5000)]);
    let begun_anew = |client: &Client, again: &dyn Fn(&Client)| {
        let start = Instant::now();
        again(client);
        let said = client.hear();
        assert!(start.elapsed() < Duration::from_secs(2));
        said
    };
    let client = server.client();
    let again = |client: &Client| client.rrq("f", &[("windowsize", "2")]);
    again(&client);
    client.hear_oack();
    client.ack(0);
    client.hear_data(1);
    client.hear_data(2);
    client.ack(2);
    client.hear_data(3);
    client.hear_data(4);
    // What it gets then is the file as it is then.
    fs::remove_file(scratch.get().join("f")).unwrap();
    scratch.file("f", &[7; 600]);
    assert!(matches!(begun_anew(&client, &again), Said::Oack(_)));
    client.ack(0);
    assert_eq!(client.hear_data(1), [7; 512]);
    assert_eq!(client.hear_data(2), [7; 88]);
    client.ack(2);

    let again = |client: &Client| client.wrq("u", &[]);
    let config = ServerSettings {
        uploads_most: 1,
        ..ServerSettings::default()
    };
    let server = Server::with(&scratch, config);
    let client = server.client();
    again(&client);
    client.hear_ack(0);
    for number in 1..=3 {
        client.data(number, &[1; 512]);
        client.hear_ack(number);
    }
    assert_eq!(begun_anew(&client, &again), Said::Ack(0));
    client.store(512, b"anew");
    assert_eq!(scratch.uploaded("u").as_deref(), Some(&b"anew"[..]));
}

#[test]
fn the_opening_is_repeated_until_it_is_answered() {
    let (_scratch, server) = setup(&[("f", 5000)]);
    let get = server.client();
    get.rrq("f", &[("blksize", "1024"), ("timeout", "1")]);
    let put = server.client();
    put.wrq("u", &[("blksize", "1024"), ("timeout", "1")]);
    let start = Instant::now();
    for client in [&get, &put] {
        let first = client.hear_oack();
        // The OACK and never ACK 0, which would mean blocks of 512 octets.
        assert_eq!(client.hear_oack(), first);
    }
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_millis(800), "{elapsed:?}");
    get.ack(0);
    assert_eq!(get.hear_data(1).len(), 1024);
    put.data(1, b"end");
    put.hear_ack(1);
}

#[test]
fn a_peer_that_falls_silent_is_given_up() {
    let (scratch, server) = setup(&[("f", 5000)]);
    let client = server.client();
    client.wrq("u", &[("timeout", "1")]);
    client.hear_oack();
    let mut repeated = 0;
    loop {
        match client.hear() {
            Said::Oack(_) => repeated += 1,
            Said::Error(0, _) => break,
            other => panic!("{}", brief(&other)),
        }
    }
    assert_eq!(repeated, 6);
    let reason = server.wait(|event| match event {
        Served::Failed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("silent"), "{reason}");
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

#[test]
fn transfers_of_a_peer_are_bounded_and_the_stalled_make_room() {
    let scratch = Scratch::new();
    scratch.file("f", &pattern(3000));
    let config = ServerSettings {
        transfers_of_peer_most: 4,
        ..ServerSettings::default()
    };
    let server = Server::with(&scratch, config);
    // Four that are moving: no room for a fifth.
    let moving: Vec<_> = (0..4)
        .map(|_| {
            let client = server.client();
            client.rrq("f", &[]);
            client.hear_data(1);
            client.ack(1);
            client.hear_data(2);
            client
        })
        .collect();
    let fifth = server.client();
    fifth.rrq("f", &[]);
    assert_eq!(fifth.hear_error().0, 0);
    moving[0].error(0, "enough");
    // One that has not answered yet does not make room for the next at once.
    let silent = server.client();
    silent.rrq("f", &[]);
    silent.hear_data(1);
    let start = Instant::now();
    for _ in 0..20 {
        let flood = server.client();
        flood.rrq("f", &[]);
        let refused = matches!(flood.hear(), Said::Error(0, _));
        assert!(refused || start.elapsed() > Duration::from_millis(900));
    }
    // Another one's place is none of theirs.
    let other = Client {
        socket: UdpSocket::bind("127.0.0.7:0").unwrap(),
        server: server.address,
    };
    other.rrq("f", &[]);
    assert!(other.rest(512) == pattern(3000));
    // But when its answer is overdue.
    let start = Instant::now();
    loop {
        fifth.rrq("f", &[]);
        match fifth.hear() {
            Said::Error(0, _) => assert!(start.elapsed() < Duration::from_secs(10)),
            said => break assert!(matches!(said, Said::Data(1, _))),
        }
    }
    fifth.ack(1);
    fifth.hear_data(2);
    for client in &moving[1..] {
        client.ack(2);
        client.hear_data(3);
    }
}

#[test]
fn a_flood_from_one_address_is_served_in_part_and_refused_in_part() {
    let (_scratch, server) = setup(&[("f", 3000)]);
    let flood: Vec<Client> = (0..300).map(|_| server.client()).collect();
    let mut served = 0;
    let start = Instant::now();
    for client in &flood {
        client.rrq("f", &[]);
        match client.hear() {
            Said::Data(1, _) => served += 1,
            Said::Error(0, _) => {}
            other => panic!("{}", brief(&other)),
        }
    }
    if start.elapsed() < Duration::from_secs(1) {
        assert_eq!(served, 128);
    } else {
        assert!(served >= 128, "{served}");
    }
}

#[test]
fn a_late_duplicate_of_a_request_leaves_the_last_ack_to_be_had() {
    let (scratch, server) = setup(&[]);
    let client = server.client();
    client.wrq("f", &[]);
    client.hear_ack(0);
    client.store(512, &pattern(1000));
    client.wrq("f", &[]);
    client.hear_ack(0);
    for _ in 0..3 {
        client.data(2, &pattern(1000)[512..]);
        client.hear_ack(2);
    }
    assert!(scratch.uploaded("f") == Some(pattern(1000)));
    // It may have been another upload after all.
    client.store(512, &pattern(1200));
    assert!(scratch.uploaded("f") == Some(pattern(1200)));
}

#[test]
fn requests_beyond_the_rate_get_no_answer_until_there_is_room() {
    let scratch = Scratch::new();
    scratch.file("f", b"x");
    let config = ServerSettings {
        requests: Some(Rate {
            burst: 3,
            per_second: 1,
        }),
        ..ServerSettings::default()
    };
    let server = Server::with(&scratch, config);
    let begun = Instant::now();
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &clients[..3] {
        // Coming again is no request of its own.
        for _ in 0..5 {
            client.rrq("f", &[]);
        }
        client.hear_data(1);
    }
    // Neither an answer nor a file; asking again helps.
    let late = &clients[3];
    let patience = Some(Duration::from_millis(50));
    late.socket.set_read_timeout(patience).unwrap();
    loop {
        late.wrq("up", &[]);
        if late.socket.recv_from(&mut [0; 64]).is_ok() {
            break;
        }
    }
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn contents_in_memory_hide_files_and_other_names_are_not_found() {
    let scratch = Scratch::new();
    scratch.file("a", b"file");
    scratch.file("b", b"file");
    let second = Scratch::new();
    second.file("b", b"second");
    second.file("c", b"second");
    let map = Map::new()
        .contents("a", pattern(2000))
        .get(scratch.get())
        .get(second.get());
    let server = Server::mapped(map, ServerSettings::default());
    for (name, octets) in [
        ("a", pattern(2000)),
        ("b", b"file".to_vec()),
        ("c", b"second".to_vec()),
    ] {
        let client = server.client();
        client.rrq(name, &[]);
        assert!(client.rest(512) == octets, "{name}");
    }
    let client = server.client();
    client.rrq("d", &[]);
    assert_eq!(client.hear_error().0, 1);
    client.wrq("d", &[]);
    assert_eq!(client.hear_error().0, 2);
    let empty = Server::mapped(Map::new(), ServerSettings::default());
    let client = empty.client();
    client.rrq("d", &[]);
    assert_eq!(client.hear_error().0, 2);
}

#[test]
fn a_peer_that_is_not_accepted_hears_nothing() {
    let scratch = Scratch::new();
    scratch.file("f", b"x");
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let mut server = TftpServer::bind(address, ServerSettings::default()).unwrap();
    server.set_map(Map::new().get(scratch.get()));
    server.set_accept(Box::new(|peer| *peer.ip() == Ipv4Addr::new(127, 0, 0, 7)));
    let server = Server::run(server);
    let stranger = server.client();
    stranger.rrq("f", &[]);
    stranger.ack(1);
    stranger.hear_nothing();
    let guest = Client {
        socket: UdpSocket::bind("127.0.0.7:0").unwrap(),
        server: server.address,
    };
    guest.rrq("f", &[]);
    assert_eq!(guest.hear_data(1), b"x");
}

#[test]
fn it_answers_from_the_address_that_was_asked_and_ignores_broadcast() {
    let scratch = Scratch::new();
    scratch.file("f", b"x");
    let map = Map::new().get(scratch.get());
    let server = Server::at(Ipv4Addr::UNSPECIFIED, map, ServerSettings::default());
    let port = server.address.port();
    for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 1, 2, 3)] {
        let client = Client::new(SocketAddrV4::new(ip, port));
        client.rrq("f", &[]);
        assert_eq!(client.hear_data(1), b"x");
        client.ack(1);
    }
    let client = Client::new(SocketAddrV4::new(Ipv4Addr::new(127, 255, 255, 255), port));
    client.socket.set_broadcast(true).unwrap();
    client.rrq("f", &[]);
    client.hear_nothing();
}

#[test]
fn the_tail_of_an_error_does_not_start_another_one() {
    let (_scratch, server) = setup(&[]);
    let client = server.client();
    client.rrq("nothing", &[]);
    let (code, text) = client.hear_error();
    assert_eq!((code, text.as_str()), (1, "file not found"));
    // tftp-hpa's client acknowledges the ERROR.
    client.ack(0);
    client.hear_nothing();
    // But the request may be repeated.
    client.rrq("nothing", &[]);
    assert_eq!(client.hear_error().0, 1);
}

#[test]
fn the_deadline_and_other_descriptors_end_a_wait() {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let mut server = TftpServer::bind(address, ServerSettings::default()).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (idle, _idle) = std::io::pipe().unwrap();
    let others = [idle.as_fd(), reader.as_fd()];
    let now = Instant::now();
    assert_eq!(server.serve(Some(now), &others).unwrap(), Served::Deadline);
    let soon = Instant::now() + Duration::from_millis(30);
    assert_eq!(server.serve(Some(soon), &others).unwrap(), Served::Deadline);
    assert!(Instant::now() >= soon);
    writer.write_all(b"x").unwrap();
    assert_eq!(server.serve(None, &others).unwrap(), Served::Ready(1));
}
