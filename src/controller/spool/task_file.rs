//! The file of a task, locked and read.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::error::reason;
use crate::manifest::TaskManifest;
use crate::sys::flock;

/// The largest task in bytes. Tasks have a few kB.
const MAX_TASK_BYTES: u64 = 1 << 20;
/// The reason for what is neither a file nor a link.
const NOT_FILE: &str = "not a file";

/// A task file that this agent has locked.
pub(super) struct TaskFile {
    pub(super) lock: flock::Locked,
    pub(super) path: PathBuf,
}

/// The outcome of [`TaskFile::lock`].
pub(super) enum Opened {
    /// It is locked.
    Locked(TaskFile),
    /// Another agent has it, or it has just gone.
    Busy,
    /// It cannot hold a task, for this reason.
    NotFile(&'static str),
    /// It is a file that this agent may not open.
    Failed(io::Error),
}

impl TaskFile {
    /// Locks a task file.
    pub(super) fn lock(path: &Path) -> Opened {
        // Not through links, and without waiting for the writer of a fifo.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        let Ok(there) = fs::symlink_metadata(path) else {
            return Opened::Busy;
        };
        let file = match file {
            Ok(file) => file,
            Err(_) if there.is_symlink() => return Opened::NotFile("it is a symbolic link"),
            Err(_) if !there.is_file() => return Opened::NotFile(NOT_FILE),
            Err(error) => return Opened::Failed(error),
        };
        let locked = flock::Locked::take(file, flock::How::TryExclusive);
        // Another agent may have moved it between the open and the lock.
        let inode = |there: &fs::Metadata| (there.dev(), there.ino());
        let same = |lock: &flock::Locked| {
            let there = fs::symlink_metadata(path).map(|there| inode(&there));
            there.is_ok_and(|there| lock.metadata().is_ok_and(|ours| inode(&ours) == there))
        };
        locked.ok().filter(same).map_or(Opened::Busy, |lock| {
            let path = path.to_owned();
            Opened::Locked(TaskFile { lock, path })
        })
    }

    /// Reads the task, or says why it is none.
    pub(super) fn read(&self) -> Result<TaskManifest, String> {
        let metadata = self.lock.metadata().map_err(|e| reason(&e))?;
        if !metadata.is_file() {
            return Err(NOT_FILE.to_owned());
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
