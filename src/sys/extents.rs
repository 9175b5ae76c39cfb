//! The space of a file that no other file shares, by ioctl (`<linux/fiemap.h>`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// `FIEMAP_FLAG_SYNC`: data that is not on the disk yet has no extent.
const SYNC: u32 = 1;

/// `FIEMAP_EXTENT_LAST` and `FIEMAP_EXTENT_SHARED`.
const LAST: u32 = 1;
const SHARED: u32 = 1 << 13;

/// The number of extents that one call returns.
const BATCH: usize = 256;

/// `struct fiemap_extent`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}
const _: () = assert!(size_of::<Extent>() == 56);

/// `struct fiemap` with its extents.
#[repr(C)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; BATCH],
}

/// The size of `struct fiemap` without extents.
const HEAD: usize = 32;
const _: () = assert!(size_of::<Map>() == HEAD + BATCH * 56);

mod ioctl {
    use super::{HEAD, Map};

    nix::ioctl_readwrite_bad!(fiemap, nix::request_code_readwrite!(b'f', 11, HEAD), Map);
}

/// The bytes of `file` on the disk that it does not share with another file. Data that is
/// not on the disk yet is written first.
pub fn exclusive_bytes(file: &File) -> io::Result<u64> {
    let none = Extent {
        logical: 0,
        physical: 0,
        length: 0,
        reserved: [0; 2],
        flags: 0,
        reserved_too: [0; 3],
    };
    let mut map = Map {
        start: 0,
        length: u64::MAX,
        flags: SYNC,
        mapped: 0,
        count: u32::try_from(BATCH).unwrap_or(0),
        reserved: 0,
        extents: [none; BATCH],
    };
    let mut total = 0;
    loop {
        map.length = u64::MAX - map.start;
        // SAFETY: `map` is a live, initialised fiemap, and `count` is the number of extents
        // that it has room for; the kernel keeps no pointer.
        unsafe { ioctl::fiemap(file.as_raw_fd(), &raw mut map) }?;
        let mapped = usize::try_from(map.mapped).unwrap_or(BATCH).min(BATCH);
        for extent in &map.extents[..mapped] {
            if extent.flags & SHARED == 0 {
                total += extent.length;
            }
        }
        match map.extents[..mapped].last() {
            Some(last) if last.flags & LAST == 0 => map.start = last.logical + last.length,
            _ => return Ok(total),
        }
    }
}
