//! Directory entries, for callers that read many directories.
//!
//! readdir(3) takes memory for each directory that it reads, and gives it back;
//! here one buffer serves all. A directory of a machine costs two calls.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::libc;

use super::file::FileKind;

/// As much as the C library gives a directory at most; names have up to 255
/// bytes.
const BUFFER: usize = 32 * 1024;

/// Of `struct linux_dirent64`: inode, position, length of the entry, kind, and
/// then the name with its NUL.
const LENGTH_AT: usize = 16;
const KIND_AT: usize = 18;
const NAME_AT: usize = 19;

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a OsStr,
    /// The kind of file, if the file system reports it.
    pub kind: Option<FileKind>,
    /// Its inode number; that of a btrfs subvolume is the subvolume's.
    pub inode: u64,
}

/// Reads directories, one after the other.
#[derive(Debug)]
pub struct Entries(Vec<u8>);

impl Default for Entries {
    fn default() -> Entries {
        Entries(vec![0; BUFFER])
    }
}

impl Entries {
    /// Calls `each` with all that is in `directory`, `.` and `..` excepted, from
    /// where it was read to last on.
    ///
    /// # Errors
    ///
    /// Those of getdents64(2).
    pub fn read(
        &mut self,
        directory: BorrowedFd<'_>,
        mut each: impl FnMut(Entry<'_>),
    ) -> io::Result<()> {
        loop {
            // SAFETY: the kernel writes to the buffer only, which is borrowed
            // for so long, and no more than the length that it is told.
            let length = unsafe {
                libc::syscall(
                    libc::SYS_getdents64,
                    directory.as_raw_fd(),
                    self.0.as_mut_ptr(),
                    self.0.len(),
                )
            };
            let length = usize::try_from(Errno::result(length)?).unwrap_or(0);
            if length == 0 {
                return Ok(());
            }
            names(&self.0[..length], &mut each);
        }
    }
}

/// Ends at the first entry that is cut short, which the kernel does not do.
fn names(mut bytes: &[u8], each: &mut impl FnMut(Entry<'_>)) {
    while let Some(length) = bytes.get(LENGTH_AT..LENGTH_AT + 2) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let Some(name) = bytes.get(NAME_AT..length) else {
            return;
        };
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        if name != b"."
            && name != b".."
            && let Some(inode) = bytes.first_chunk()
        {
            each(Entry {
                name: OsStr::from_bytes(name),
                kind: kind(bytes[KIND_AT]),
                inode: u64::from_ne_bytes(*inode),
            });
        }
        bytes = &bytes[length..];
    }
}

fn kind(number: u8) -> Option<FileKind> {
    match number {
        libc::DT_UNKNOWN => None,
        libc::DT_REG => Some(FileKind::Regular),
        libc::DT_DIR => Some(FileKind::Directory),
        libc::DT_LNK => Some(FileKind::Symlink),
        _ => Some(FileKind::Other),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn every_name_is_seen_once_however_many_there_are() {
        let dir = std::env::temp_dir().join(format!("bbot-agent-entries-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut entries = Entries::default();
        let mut read = || {
            let mut found = Vec::new();
            let open = File::open(&dir).unwrap();
            let each = |entry: Entry<'_>| {
                let facts = fs::symlink_metadata(dir.join(entry.name)).unwrap();
                assert_eq!(entry.inode, facts.ino());
                assert!(matches!(entry.kind, None | Some(FileKind::Regular)));
                found.push(entry.name.to_str().unwrap().to_owned());
            };
            entries.read(open.as_fd(), each).unwrap();
            found
        };
        assert!(read().is_empty());
        // More than the buffer holds.
        let name = |n: usize| format!("{n:0200}");
        for n in 0..400 {
            File::create(dir.join(name(n))).unwrap();
        }
        let found = read();
        assert_eq!(found.len(), 400);
        let all: BTreeSet<String> = (0..400).map(name).collect();
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn entries_that_are_cut_short_end_the_list() {
        let mut bytes = vec![0; 24];
        bytes[LENGTH_AT] = 24;
        bytes[NAME_AT] = b'a';
        let whole = [bytes.clone(), bytes].concat();
        for length in 0..whole.len() {
            let mut count = 0;
            names(&whole[..length], &mut |_| count += 1);
            assert_eq!(count, length / 24, "{length}");
        }
        // A length of zero must not make us go in circles.
        names(&[0; 64], &mut |_| {});
    }
}
