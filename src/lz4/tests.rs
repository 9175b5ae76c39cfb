use super::xxhash::xxh32;
use super::*;

/// A frame with these flags, of these blocks, content size and checksum left to
/// the caller.
fn frame(flags: u8, blocks: &[&[u8]]) -> Vec<u8> {
    let mut frame = MAGIC.to_le_bytes().to_vec();
    let descriptor = [0x40 | flags, 0x40];
    frame.extend(descriptor);
    frame.push(xxh32(&descriptor).to_le_bytes()[1]);
    for block in blocks {
        frame.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        frame.extend(*block);
    }
    frame.extend([0; 4]);
    frame
}

const LINKED: u8 = 0;
const INDEPENDENT: u8 = 0b10_0000;

fn error(input: &[u8], limit: usize) -> String {
    let error = decode(input, limit).unwrap_err().to_string();
    error
        .strip_prefix("invalid LZ4 frame: ")
        .unwrap()
        .to_owned()
}

#[test]
fn a_block_is_literals_and_matches() {
    // "ab", then 6 from 2 before: an overlapping match; then "c".
    let block = [0x22, b'a', b'b', 2, 0, 0x10, b'c'];
    assert_eq!(decode(&frame(LINKED, &[&block]), 9).unwrap(), b"ababababc");
    // A linked block reaches into the one before; an independent one does not.
    let reach = [0x00, 9, 0, 0x00];
    let blocks: [&[u8]; 2] = [&block, &reach];
    assert_eq!(
        decode(&frame(LINKED, &blocks), 99).unwrap(),
        b"ababababcabab"
    );
    assert!(error(&frame(INDEPENDENT, &blocks), 99).starts_with("match before the start"));
}

#[test]
fn frames_follow_each_other_and_skippable_ones_are_skipped() {
    let mut input = frame(LINKED, &[&[0x10, b'a']]);
    input.extend(0x184D_2A5Au32.to_le_bytes());
    input.extend(3u32.to_le_bytes());
    input.extend(b"xyz");
    input.extend(frame(LINKED, &[&[0x10, b'b']]));
    assert_eq!(decode(&input, 2).unwrap(), b"ab");
    // No frame reaches into the one before.
    let mut input = frame(LINKED, &[&[0x10, b'a']]);
    input.extend(frame(LINKED, &[&[0x00, 1, 0, 0x00]]));
    assert!(error(&input, 99).starts_with("match before the start"));
}

#[test]
fn every_truncation_is_an_error() {
    let mut input = frame(LINKED, &[&[0x22, b'a', b'b', 2, 0, 0x10, b'c']]);
    input.extend(frame(0b100, &[&[0x10, b'b']]));
    input.extend(xxh32(b"b").to_le_bytes());
    let first = 7 + 4 + 7 + 4;
    for length in 0..input.len() {
        let result = decode(&input[..length], 99);
        assert_eq!(result.is_ok(), length == first, "{length}");
    }
    decode(&input, 99).unwrap();
}

#[test]
fn a_bomb_stops_at_the_limit() {
    // 255 times its size: one literal, then a match of millions.
    let mut block = vec![0x1F, 0, 1, 0];
    block.extend([255; 16_000]);
    block.extend([0, 0x00]);
    let mut bomb = frame(LINKED, &[&block[..]; 4]);
    assert_eq!(
        error(&bomb, 1000),
        "more than 1000 bytes of content at offset 16016"
    );
    // Within the limit, but over the size of its block.
    assert!(error(&bomb, 1 << 30).starts_with("block decodes to more than its size"));
    // Announced honestly.
    bomb.splice(4..7, {
        let descriptor = [0x48, 0x40, 0, 0, 0, 0, 1, 0, 0, 0];
        let mut announced = descriptor.to_vec();
        announced.push(xxh32(&descriptor).to_le_bytes()[1]);
        announced
    });
    assert_eq!(
        error(&bomb, 1000),
        "more than 1000 bytes of content at offset 15"
    );
}

#[test]
fn errors_say_what_and_where() {
    let good = frame(LINKED, &[&[0x10, b'a']]);
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        if at < 6 {
            bad[6] = xxh32(&bad[4..6]).to_le_bytes()[1];
        }
        error(&bad, 99)
    };
    assert_eq!(error(b"", 9), "no frame at offset 0");
    assert_eq!(
        error(b": 1\nname: x\n", 9),
        "unknown magic number 0x0A31203A at offset 0"
    );
    assert_eq!(with(4, 0x00), "unsupported version 0 at offset 6");
    assert_eq!(with(4, 0x42), "reserved bits set at offset 6");
    assert_eq!(with(4, 0x41), "a dictionary is needed at offset 6");
    assert_eq!(with(5, 0x30), "unknown block size 3 at offset 7");
    assert_eq!(with(6, 0), "wrong header checksum at offset 7");
    assert_eq!(
        with(9, 2),
        "block of 131074 bytes, of at most 65536 at offset 11"
    );
    assert_eq!(
        with(11, 0x20),
        "literals beyond the end of the block at offset 12"
    );
    for (block, what) in [
        (
            &[0xF0, 255][..],
            "length beyond the end of the block at offset 13",
        ),
        (
            &[0x11, b'a', 1],
            "match offset beyond the end of the block at offset 13",
        ),
        (
            &[0x11, b'a', 0, 0],
            "match before the start of the content at offset 13",
        ),
        (
            &[0x11, b'a', 2, 0],
            "match before the start of the content at offset 13",
        ),
        (
            &[0x11, b'a', 1, 0],
            "block ends without literals at offset 15",
        ),
        (
            &[0x1F, b'a', 1, 0, 255],
            "length beyond the end of the block at offset 16",
        ),
    ] {
        assert_eq!(error(&frame(LINKED, &[block]), 99), what);
    }
}

#[test]
fn any_bytes_decode_or_do_not() {
    let good = frame(
        LINKED,
        &[&[0x22, b'a', b'b', 2, 0, 0x10, b'c'], &[0x00, 9, 0, 0x00]],
    );
    let mut state = 5u64;
    let mut next = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % n
    };
    for _ in 0..100_000 {
        let mut input = good.clone();
        for _ in 0..=next(3) {
            let at = 7 + next(good.len() - 7);
            input[at] = u8::try_from(next(256)).unwrap();
        }
        if let Ok(output) = decode(&input, 1000) {
            assert!(output.len() <= 1000);
        }
    }
}
