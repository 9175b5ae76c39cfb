//! The file of a task, locked and read.

use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use nix::libc;

use crate::error::reason;
use crate::manifest::TaskManifest;
use crate::sys::flock;
use crate::trace;

/// The largest task in bytes. Tasks have a few kB.
const MAX_TASK_BYTES: u64 = 1 << 20;

/// A task file that this agent has locked.
pub(super) struct TaskFile {
    pub(super) lock: flock::Locked,
    pub(super) path: PathBuf,
}

impl TaskFile {
    /// Locks a task file, unless another agent has it or it has just gone.
    pub(super) fn lock(path: PathBuf) -> Option<TaskFile> {
        // Not through links, and without waiting for the writer of a fifo.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                trace!(3, "lock", "{}: {}", path.display(), reason(&error));
                return None;
            }
        };
        let lock = flock::Locked::take(file, flock::How::TryExclusive).ok()?;
        // Another agent may have moved it between the open and the lock.
        let locked = lock.metadata().ok()?;
        let there = fs::symlink_metadata(&path).ok()?;
        let same = (locked.dev(), locked.ino()) == (there.dev(), there.ino());
        same.then_some(TaskFile { lock, path })
    }

    /// Reads the task, or says why it is none.
    pub(super) fn read(&self) -> Result<TaskManifest, String> {
        let metadata = self.lock.metadata().map_err(|e| reason(&e))?;
        if !metadata.is_file() {
            return Err("not a file".to_owned());
        }
        if metadata.len() > MAX_TASK_BYTES {
            return Err(format!("longer than {MAX_TASK_BYTES} bytes"));
        }
        let mut text = Vec::new();
        (&*self.lock)
            .take(MAX_TASK_BYTES)
            .read_to_end(&mut text)
            .map_err(|e| reason(&e))?;
        let name = self.path.file_name().unwrap_or_default();
        TaskManifest::parse(&text, &name.to_string_lossy()).map_err(|e| e.to_string())
    }
}
