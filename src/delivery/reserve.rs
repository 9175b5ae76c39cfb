//! Disk space that is kept free for results.
//!
//! A host whose disk fills up during a build must still be able to store the
//! result. So the agent keeps a preallocated file of zeros, and removes it when a
//! write fails with `ENOSPC`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::syncfs;

/// The file, which is there unless the disk had no space for it.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
}

impl Reserve {
    /// Allocates `size` bytes under the name `path`, if the disk has the space.
    /// Costs one stat(2) when they are there already.
    pub(super) fn keep(path: &Path, size: u64) -> Reserve {
        let reserve = Reserve {
            path: path.to_owned(),
            size,
        };
        reserve.restore();
        reserve
    }

    /// Allocates the space again, if it is not there. A failure is ignored: the
    /// next call tries again.
    pub(super) fn restore(&self) {
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

    /// Frees the space, and waits until it can be used: btrfs frees it with the
    /// next commit only. Returns whether there was any.
    pub(super) fn release(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        syncfs(File::open(directory)?)?;
        Ok(true)
    }
}
