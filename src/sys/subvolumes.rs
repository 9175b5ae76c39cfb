//! The subvolumes below a subvolume, from btrfs's own index of them: one call
//! for thousands, where their directories would have to be read one by one.
//!
//! The tree of roots has an item for each subvolume, in order of the subvolume
//! that it is in: `(parent, BTRFS_ROOT_REF_KEY, child)`, with directory and name.
//! It is changed in the same step as the name is, so it is never behind.
//! Structures and numbers are those of `<linux/btrfs.h>` and
//! `<linux/btrfs_tree.h>`, which are kernel ABI and format on disk.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

use super::btrfs::{MAGIC, ROOT_INODE};

/// `BTRFS_ROOT_TREE_OBJECTID`: the tree of roots.
const ROOT_TREE: u64 = 1;

/// `BTRFS_ROOT_REF_KEY`.
const ROOT_REF: u32 = 156;

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookup {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}
const _: () = assert!(size_of::<InoLookup>() == 4096);

/// `struct btrfs_ioctl_search_key`.
#[repr(C)]
struct SearchKey {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    more_unused: [u64; 4],
}

/// `struct btrfs_ioctl_search_args_v2`, which is followed by the buffer.
#[repr(C)]
struct SearchHead {
    key: SearchKey,
    buf_size: u64,
}
const _: () = assert!(size_of::<SearchHead>() == 112);

/// For some 900 subvolumes with names of the usual length.
const BUFFER: usize = 64 * 1024;

#[repr(C)]
struct Search {
    head: SearchHead,
    buffer: [u8; BUFFER],
}

/// Of `struct btrfs_ioctl_search_header`: transid, objectid, offset, type and
/// length of the item that follows it.
const HEADER: usize = 32;
const OFFSET_AT: usize = 16;
const LENGTH_AT: usize = 28;

/// Of `struct btrfs_root_ref`, little-endian: directory, sequence, length of the
/// name that follows it.
const ROOT_REF_HEAD: usize = 18;

mod ioctl {
    use super::{InoLookup, MAGIC, SearchHead};

    nix::ioctl_readwrite!(ino_lookup, MAGIC, 18, InoLookup);
    nix::ioctl_readwrite!(tree_search_v2, MAGIC, 17, SearchHead);
}

/// Calls `each` for every subvolume in any directory of the subvolume that
/// `directory` is in, with the inode number of that directory and the name; not
/// for subvolumes of subvolumes.
///
/// # Errors
///
/// `ENOTTY`: not btrfs, or before Linux 3.16. `EPERM`: not root
/// (`CAP_SYS_ADMIN`). `EIO`.
pub fn children(directory: BorrowedFd<'_>, mut each: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let parent = tree(directory)?;
    let mut search = Box::new(Search {
        head: SearchHead {
            key: SearchKey {
                tree_id: ROOT_TREE,
                min_objectid: parent,
                max_objectid: parent,
                min_offset: 0,
                max_offset: u64::MAX,
                min_transid: 0,
                max_transid: u64::MAX,
                min_type: ROOT_REF,
                max_type: ROOT_REF,
                nr_items: u32::MAX,
                unused: 0,
                more_unused: [0; 4],
            },
            buf_size: BUFFER as u64,
        },
        buffer: [0; BUFFER],
    });
    loop {
        search.head.key.nr_items = u32::MAX;
        // SAFETY: the head is live and initialised, and the buffer, of the size
        // that it states, is behind it in the same structure; the kernel writes
        // to both and keeps no pointer.
        unsafe {
            let search: *mut Search = &raw mut *search;
            ioctl::tree_search_v2(directory.as_raw_fd(), search.cast())
        }?;
        let count = search.head.key.nr_items;
        let last = items(&search.buffer, count, &mut each).ok_or(Errno::EIO)?;
        match last.and_then(|last| last.checked_add(1)) {
            Some(next) => search.head.key.min_offset = next,
            None => return Ok(()),
        }
    }
}

/// The number of the subvolume that `directory` is in.
fn tree(directory: BorrowedFd<'_>) -> io::Result<u64> {
    let mut args = InoLookup {
        treeid: 0,
        objectid: ROOT_INODE,
        name: [0; 4080],
    };
    // SAFETY: `args` is a live, initialised ino_lookup_args, to which the kernel
    // may write.
    unsafe { ioctl::ino_lookup(directory.as_raw_fd(), &raw mut args) }?;
    if args.treeid == 0 {
        return Err(Errno::ENOTTY.into());
    }
    Ok(args.treeid)
}

/// Passes on `count` items and says the number of the last subvolume, if there
/// is one; `None` if an item is cut short, which the kernel does not do.
fn items(mut bytes: &[u8], count: u32, each: &mut impl FnMut(u64, &[u8])) -> Option<Option<u64>> {
    let mut last = None;
    for _ in 0..count {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let length = u32::from_ne_bytes(*header[LENGTH_AT..].first_chunk()?);
        let (item, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let (head, name) = item.split_at_checked(ROOT_REF_HEAD)?;
        each(u64::from_le_bytes(*head.first_chunk()?), name);
        last = Some(u64::from_ne_bytes(*header[OFFSET_AT..].first_chunk()?));
        bytes = rest;
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_header() {
        // As printed by a C program that includes <linux/btrfs.h>.
        let code = |number, size| nix::request_code_readwrite!(MAGIC, number, size);
        let lookup = code(18, size_of::<InoLookup>());
        let search = code(17, size_of::<SearchHead>());
        assert_eq!(lookup.to_ne_bytes()[..4], 0xd000_9412_u32.to_ne_bytes());
        assert_eq!(search.to_ne_bytes()[..4], 0xc070_9411_u32.to_ne_bytes());
    }

    fn item(child: u64, directory: u64, name: &[u8]) -> Vec<u8> {
        let length = u32::try_from(ROOT_REF_HEAD + name.len()).unwrap();
        let name_length = u16::try_from(name.len()).unwrap();
        [
            &[0; OFFSET_AT][..],
            &child.to_ne_bytes(),
            &ROOT_REF.to_ne_bytes(),
            &length.to_ne_bytes(),
            &directory.to_le_bytes(),
            &[0; 8],
            &name_length.to_le_bytes(),
            name,
        ]
        .concat()
    }

    #[test]
    fn an_item_that_is_cut_short_is_an_error() {
        let whole = [item(300, 257, b"a-1.0"), item(301, 258, b"b")].concat();
        let read = |bytes: &[u8], count| {
            let mut found = Vec::new();
            let last = items(bytes, count, &mut |dir, name: &[u8]| {
                found.push((dir, name.to_vec()));
            });
            (last, found)
        };
        let (last, found) = read(&whole, 2);
        assert_eq!(last, Some(Some(301)));
        assert_eq!(found, [(257, b"a-1.0".to_vec()), (258, b"b".to_vec())]);
        assert_eq!(read(&whole, 0), (Some(None), Vec::new()));
        for length in 0..whole.len() {
            let (last, found) = read(&whole[..length], 2);
            assert_eq!(last, None, "{length}");
            assert!(found.len() < 2, "{length}");
        }
    }

    #[test]
    fn proc_has_none() {
        use std::os::fd::AsFd as _;
        let proc = std::fs::File::open("/proc").unwrap();
        let error = children(proc.as_fd(), |_, _| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
    }
}
