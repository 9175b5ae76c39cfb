//! Where all benches leave what they measured, for the table of `make bench`.

use std::fs;
use std::io::Write as _;
use std::path::Path;

/// Adds `lines` of JSON to `bench.jsonl` in the target directory.
pub fn append(lines: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench.jsonl");
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(lines.as_bytes()))
        .unwrap();
}
