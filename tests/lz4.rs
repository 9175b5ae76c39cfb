//! LZ4 frames as the `lz4` program makes them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use bbot_agent::error::Result;
use bbot_agent::lz4;

use crate::support::require_programs;

fn decode(mut input: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    lz4::decode(&mut input, limit as u64, &mut |piece| output.extend(piece)).map(|()| output)
}

/// `data`, packed with these options.
fn compress(options: &[&str], data: &[u8]) -> Vec<u8> {
    let mut child = Command::new("lz4")
        .args(options)
        .args(["-c", "-z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let data = data.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&data));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Text that compresses, then noise that does not.
fn sample(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut data = Vec::new();
    while data.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        state = state.wrapping_add(1);
        if data.len() % (1 << 17) < 1 << 16 {
            data.extend_from_slice(format!("c++ obj{{foo{}}}\n", state >> 56).as_bytes());
        } else {
            data.extend(state.to_be_bytes());
        }
    }
    data.truncate(size);
    data
}

#[test]
fn what_lz4_packs_is_unpacked() {
    if !require_programs(&["lz4"]) {
        return;
    }
    let samples = [
        &b""[..],
        b"x",
        &b"a".repeat(100_000),
        &sample(65_536),
        &sample(3 << 20),
    ];
    for data in samples {
        for options in [
            &["-1"][..],
            &["-9", "-B4"],
            &["-BD", "-B5"],
            &["-BD", "-B4", "-BX"],
            &["-BX", "--content-size", "-B7"],
            &["--no-frame-crc", "-12"],
        ] {
            let packed = compress(options, data);
            let unpacked = decode(&packed, data.len()).unwrap();
            assert!(unpacked == data, "{options:?}, {} bytes", data.len());
            if !data.is_empty() {
                let error = decode(&packed, data.len() - 1).unwrap_err().to_string();
                let limit = format!("more than {} bytes of content", data.len() - 1);
                assert!(error.contains(&limit), "{options:?}: {error}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    if !require_programs(&["lz4"]) {
        return;
    }
    let data = sample(2000);
    let packed = compress(&["-BX", "--content-size", "-B4"], &data);
    for bit in 0..packed.len() * 8 {
        let mut input = packed.clone();
        input[bit / 8] ^= 1 << (bit % 8);
        // What is decoded in spite of it is what was meant.
        if let Ok(output) = decode(&input, 4000) {
            assert!(output == data, "bit {bit}");
        }
    }
}

#[test]
fn frames_are_whole_and_nothing_else_follows_them() {
    if !require_programs(&["lz4"]) {
        return;
    }
    let data = sample(200_000);
    let packed = compress(&["-B4", "-BD"], &data);
    // Two blocks and a bit: their bounds are among the ends of the first.
    let blocks = compress(&["-B4", "-BD"], &b"ab".repeat(70_000));
    for end in 1..blocks.len() {
        decode(&blocks[..end], 140_000).unwrap_err();
    }
    for end in (1..packed.len()).step_by(997) {
        decode(&packed[..end], data.len()).unwrap_err();
    }
    let two = [packed.as_slice(), &packed].concat();
    assert!(decode(&two, 2 * data.len()).unwrap() == data.repeat(2));
    for garbage in [&b"x"[..], b"garbage", &[0; 64]] {
        decode(&[&packed, garbage].concat(), data.len()).unwrap_err();
    }
}
