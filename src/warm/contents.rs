//! The files of a template, and whether they are as they were.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ring::digest::{Context, SHA256};

use super::MANIFEST;
use crate::error::{Context as _, Result};
use crate::machine::memory::{RAM, STATE};
use crate::manifest::hex;

/// The part of the memory that is read: all of it would take as long as a boot. The rest
/// is known by size and time, and the file system has checksums of it.
const RAM_HEAD: u64 = 64 * 1024;

/// The largest device state that is read, in bytes.
const MAX_STATE_BYTES: u64 = 256 << 20;

/// A checksum of the files in `directory`: names, sizes and times of all of them, the
/// whole device state, and the beginning of the memory.
pub(super) fn checksum(directory: &Path) -> Result<String> {
    let sum = || -> io::Result<String> {
        let mut sum = Context::new(&SHA256);
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            if name != MANIFEST {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let metadata = fs::symlink_metadata(directory.join(&name))?;
            let (size, time) = (metadata.size(), (metadata.mtime(), metadata.mtime_nsec()));
            if metadata.is_file() {
                sum.update(format!("{}\0{size} {time:?}\n", name.display()).as_bytes());
            }
        }
        for (name, limit) in [(STATE, MAX_STATE_BYTES), (RAM, RAM_HEAD)] {
            let mut octets = Vec::new();
            File::open(directory.join(name))?
                .take(limit)
                .read_to_end(&mut octets)?;
            sum.update(&octets);
        }
        Ok(hex(sum.finish().as_ref()))
    };
    sum().context(|| format!("unable to examine {}", directory.display()))
}

/// The disk space of memory and device state, in bytes.
pub(super) fn allocated(directory: &Path) -> u64 {
    let of = |name: &str| fs::metadata(directory.join(name)).map_or(0, |file| file.blocks() * 512);
    of(RAM) + of(STATE)
}

/// The octets of hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    let octet = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).ok();
    digits.chunks(2).map(octet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_template_matters() {
        let dir = std::env::temp_dir().join(format!("bbot-warm-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        for name in [RAM, STATE, "disk.img"] {
            write(name, "abc");
        }
        let whole = checksum(&dir).unwrap();
        write(MANIFEST, "not a part");
        assert_eq!(checksum(&dir).unwrap(), whole);
        for name in [RAM, STATE] {
            let time = fs::metadata(dir.join(name)).unwrap().modified().unwrap();
            write(name, "abd");
            // A bit that flips on the disk leaves the time.
            let file = File::options().write(true).open(dir.join(name)).unwrap();
            file.set_modified(time).unwrap();
            assert_ne!(checksum(&dir).unwrap(), whole, "{name}");
            write(name, "abc");
            File::options()
                .write(true)
                .open(dir.join(name))
                .unwrap()
                .set_modified(time)
                .unwrap();
            assert_eq!(checksum(&dir).unwrap(), whole, "{name}");
        }
        write("disk.img", "ab");
        assert_ne!(checksum(&dir).unwrap(), whole);
        fs::remove_file(dir.join(RAM)).unwrap();
        assert!(checksum(&dir).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn hexadecimal_digits_are_read_back() {
        for octets in [&b""[..], b"\0\x01\xff", b"manifest"] {
            assert_eq!(from_hex(&hex(octets)).unwrap(), octets);
        }
        for text in ["0", "0g", "é0"] {
            assert_eq!(from_hex(text), None);
        }
    }
}
