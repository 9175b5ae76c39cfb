//! The directory that a guest's uploads go to: made for a run, and removed after it.
//!
//! It is locked meanwhile, because another agent of the same toolchain and instance,
//! with a run directory of its own, has the same name for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::sys::file::open_directory;
use crate::sys::flock::{How, Locked, holder};
use crate::sys::tree::remove_tree;

/// A locked directory that is removed with its contents when this value is dropped.
#[derive(Debug)]
#[must_use = "the directory is removed when this is dropped"]
pub struct Directory {
    path: PathBuf,
    /// `None` when it was removed.
    lock: Option<Locked>,
}

impl Directory {
    /// Makes `path` and its parents. Removes what is there already, unless another
    /// agent uses it.
    pub fn create(path: &Path) -> Result<Directory> {
        let unable = || format!("unable to create directory {}", path.display());
        if let Some(_lock) = lock(path).context(unable)? {
            remove(path)?;
        }
        fs::create_dir_all(path).context(unable)?;
        match lock(path).context(unable)? {
            Some(lock) => Ok(Directory {
                path: path.to_owned(),
                lock: Some(lock),
            }),
            None => Err(Error::new(unable()).hint("another process removed it at once")),
        }
    }

    /// Whether there is a directory that no agent uses.
    pub fn is_left(path: &Path) -> bool {
        matches!(lock(path), Ok(Some(_)))
    }

    /// Removes a directory, unless an agent uses it.
    pub fn remove_left(path: &Path) -> Result<()> {
        match lock(path) {
            Ok(Some(_lock)) => remove(path),
            _ => Ok(()),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    pub fn close(mut self) -> Result<()> {
        self.lock.take().map_or(Ok(()), |_lock| remove(&self.path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(_lock) = self.lock.take()
            && let Err(error) = remove(&self.path)
        {
            diag::warning(error).emit();
        }
    }
}

/// Locks a directory; `None` if there is none.
fn lock(path: &Path) -> Result<Option<Locked>> {
    let file = match open_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.context(|| "unable to open it")?,
    };
    match Locked::take(file, How::TryExclusive) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, error)) if error.kind() == io::ErrorKind::WouldBlock => {
            let pid = holder(path).map_or(String::new(), |pid| format!(" (pid {pid})"));
            let text = "another agent of this toolchain and instance uses it";
            Err(Error::new(format!("{text}{pid}"))
                .hint("give each agent on this host another --instance"))
        }
        Err((_, error)) => Err(error).context(|| "unable to lock it"),
    }
}

fn remove(path: &Path) -> Result<()> {
    match remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(|| format!("unable to remove directory {}", path.display()))
        }
        _ => Ok(()),
    }
}
