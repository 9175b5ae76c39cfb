//! The directory that a guest's uploads go to: made for a run, and gone with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::diag;
use crate::error::{Context as _, Result};

/// A directory that is removed with its contents when this value is dropped.
#[derive(Debug)]
#[must_use = "the directory is removed when this is dropped"]
pub struct Directory(Option<PathBuf>);

impl Directory {
    /// Makes `path` and its parents. Removes what is there already.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2), and of removing what is there.
    pub fn create(path: &Path) -> Result<Directory> {
        remove(path)?;
        fs::create_dir_all(path)
            .context(|| format!("unable to create directory {}", path.display()))?;
        Ok(Directory(Some(path.to_owned())))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// Those of removing what is in it.
    pub fn close(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), |path| remove(&path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = remove(&path)
        {
            diag::warning(error).emit();
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(|| format!("unable to remove directory {}", path.display()))
        }
        _ => Ok(()),
    }
}
