//! Locks on open files that the kernel frees when their owner is gone
//! (flock(2)): how it is known whether an agent lives.
//!
//! nix has such a guard too, but it panics when unlocking fails; for us the
//! descriptor is closed next, and that frees the lock.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// The kind of a lock. A lock is never waited for: its holder may be stopped, and flock(2)
/// would wait without signals and without pings of the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Shared with others; `EWOULDBLOCK` if that is not possible.
    TryShared,
    /// Exclusive; `EWOULDBLOCK` if that is not possible.
    TryExclusive,
}

/// A file, locked until this goes. A child that inherits the descriptor, which
/// is closed on exec, does not keep the lock.
#[derive(Debug)]
pub struct Locked(File);

impl Locked {
    /// Locks the file, or gives it back.
    ///
    /// # Errors
    ///
    /// `EWOULDBLOCK`: another open file has it. `ENOLCK`: no memory.
    pub fn take(file: File, how: How) -> Result<Locked, (File, io::Error)> {
        let operation = match how {
            How::TryShared => libc::LOCK_SH | libc::LOCK_NB,
            How::TryExclusive => libc::LOCK_EX | libc::LOCK_NB,
        };
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Locked(file)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err((file, errno.into())),
            }
        }
    }
}

/// The process that holds the exclusive lock on the file or directory at `path`, from
/// the kernel's list: for a message, as it may have changed already.
pub fn holder(path: &Path) -> Option<u32> {
    let path = fs::canonicalize(path).ok()?;
    let inode = fs::metadata(&path).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks
        .lines()
        .filter_map(|line| exclusive(line, inode))
        // Another file system may have a file of this number.
        .find(|pid| {
            let fds = fs::read_dir(format!("/proc/{pid}/fd"));
            fds.into_iter()
                .flatten()
                .flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == path))
        })
}

/// The process in a line of /proc/locks (proc(5)), if it has such a lock on a
/// file with this inode number.
fn exclusive(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let kind = (words.next(), words.next(), words.next());
    if kind != (Some("FLOCK"), Some("ADVISORY"), Some("WRITE")) {
        return None;
    }
    let pid = words.next()?.parse().ok()?;
    let (_, number) = words.next()?.rsplit_once(':')?;
    (number.parse() == Ok(inode)).then_some(pid)
}

fn flock(file: &File, operation: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes two integers, of which the descriptor is open; touches no
    // memory of this process.
    let result = unsafe { libc::flock(file.as_raw_fd(), operation) };
    Errno::result(result).map(drop)
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // For a child between fork and exec, which has a duplicate still.
        let _ = flock(&self.0, libc::LOCK_UN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> File {
        File::open(std::env::temp_dir()).unwrap()
    }

    #[test]
    fn a_lock_is_free_again_when_its_guard_is_gone() {
        let dir = std::env::temp_dir().join(format!("bbot-flock-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let open = || File::open(&dir).unwrap();
        let shared = Locked::take(open(), How::TryShared).unwrap();
        let another = Locked::take(open(), How::TryShared).unwrap();
        drop(shared);
        let (_, error) = Locked::take(open(), How::TryExclusive).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EWOULDBLOCK));
        assert_eq!(holder(&dir), None);
        drop(another);
        // Not even a duplicate keeps it.
        let alone = Locked::take(open(), How::TryExclusive).unwrap();
        let duplicate = alone.try_clone().unwrap();
        let (_, error) = Locked::take(open(), How::TryShared).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EWOULDBLOCK));
        assert_eq!(holder(&dir), Some(std::process::id()));
        drop(alone);
        drop(Locked::take(open(), How::TryExclusive).unwrap());
        drop(duplicate);
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn only_an_exclusive_lock_on_the_very_inode_has_a_holder() {
        let of = |line| exclusive(line, 257);
        assert_eq!(
            of("5: FLOCK  ADVISORY  WRITE 714 00:1a:257 0 EOF"),
            Some(714)
        );
        for other in [
            "5: FLOCK  ADVISORY  WRITE 714 00:1a:2570 0 EOF",
            "5: FLOCK  ADVISORY  READ 714 00:1a:257 0 EOF",
            "5: POSIX  ADVISORY  WRITE 714 00:1a:257 0 EOF",
            "5: -> FLOCK  ADVISORY  WRITE 714 00:1a:257 0 EOF",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn the_file_is_still_a_file() {
        let locked = Locked::take(open(), How::TryShared).unwrap();
        assert!(locked.metadata().unwrap().is_dir());
    }
}
