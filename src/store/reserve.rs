//! Space kept for the day when the disk is full.
//!
//! A host whose disk fills up while a task runs must still be able to store the
//! result. So a file of zeros is kept, preallocated, and given up when a write
//! says that nothing is left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::syncfs;

/// The space, or the place where it was.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    size: u64,
}

impl Reserve {
    /// Makes sure of `size` bytes under the name `path`, as far as there is
    /// room. Costs one stat(2) when they are there already.
    #[must_use]
    pub fn keep(path: &Path, size: u64) -> Reserve {
        let reserve = Reserve {
            path: path.to_owned(),
            size,
        };
        reserve.restore();
        reserve
    }

    /// Allocates the space again, if it is not there. A disk without room has
    /// none to keep, which is no error: the next time may be better.
    pub fn restore(&self) {
        let there = fs::metadata(&self.path).is_ok_and(|m| m.len() >= self.size);
        if !there && self.allocate().is_err() {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        let size = i64::try_from(self.size).unwrap_or(i64::MAX);
        fallocate(&file, FallocateFlags::empty(), 0, size)?;
        Ok(())
    }

    /// Gives the space up, and waits until it can be used: btrfs frees it with
    /// the next commit only. Says whether there was any.
    ///
    /// # Errors
    ///
    /// Those of unlink(2) and syncfs(2).
    pub fn release(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        syncfs(File::open(directory)?)?;
        Ok(true)
    }
}
