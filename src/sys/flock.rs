//! Locks on open files that the kernel frees when their owner is gone
//! (flock(2)): how it is known whether an agent lives.
//!
//! nix has such a guard too, but it panics when unlocking fails; for us the
//! descriptor is closed next, and that frees the lock.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::libc;

/// Which lock is wanted, and whether to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// With others who share it; waits for one who does not.
    Shared,
    /// Alone, or not at all: `EWOULDBLOCK`.
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
            How::Shared => libc::LOCK_SH,
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

fn flock(file: &File, operation: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes two integers, of which the descriptor is open; touches no
    // memory of ours.
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
        std::fs::create_dir_all(&dir).unwrap();
        let open = || File::open(&dir).unwrap();
        let shared = Locked::take(open(), How::Shared).unwrap();
        let another = Locked::take(open(), How::Shared).unwrap();
        drop(shared);
        let (_, error) = Locked::take(open(), How::TryExclusive).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EWOULDBLOCK));
        drop(another);
        // Not even a duplicate keeps it.
        let alone = Locked::take(open(), How::TryExclusive).unwrap();
        let duplicate = alone.try_clone().unwrap();
        drop(alone);
        drop(Locked::take(open(), How::TryExclusive).unwrap());
        drop(duplicate);
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn the_file_is_still_a_file() {
        let locked = Locked::take(open(), How::Shared).unwrap();
        assert!(locked.metadata().unwrap().is_dir());
    }
}
