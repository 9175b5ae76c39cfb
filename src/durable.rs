//! Small files that survive a power cut: written beside, synced, renamed, and
//! the directory synced, so that a name holds all of the old or all of the new.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::sys::file::read_at_most;

/// How the names of files end that are not complete.
const PARTIAL: &str = ".partial";

/// Makes `path` hold `contents`, for others to read as the umask allows.
///
/// # Errors
///
/// Those of the file system; `path` is as it was then, except after a failed
/// sync of its directory, when it may be either.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace_mode(path, contents, 0o666)
}

/// The same, for the owner only.
///
/// # Errors
///
/// As [`replace`].
pub fn replace_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace_mode(path, contents, 0o600)
}

/// The same of a new file, with its contents in pieces.
///
/// # Errors
///
/// Those of the file system; `path` is not there then.
pub fn appear(path: &Path, contents: &[&[u8]]) -> io::Result<()> {
    place(path, contents, 0o600)?;
    sync_parent(path).inspect_err(|_| {
        // Who is told of a failure may try again under another name.
        let _ = fs::remove_file(path);
    })
}

/// Makes `path` hold `contents`, for the owner only, in a directory that is not
/// synced yet; the file is open for appending.
///
/// # Errors
///
/// Those of the file system; `path` is as it was then.
pub fn begin(path: &Path, contents: &[u8]) -> io::Result<File> {
    place(path, &[contents], 0o600)
}

fn replace_mode(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    place(path, &[contents], mode)?;
    sync_parent(path)
}

fn place(path: &Path, contents: &[&[u8]], mode: u32) -> io::Result<File> {
    let partial = partial(path)?;
    let written = create(&partial, mode).and_then(|mut file| {
        for piece in contents {
            file.write_all(piece)?;
        }
        file.sync_all()?;
        fs::rename(&partial, path)?;
        Ok(file)
    });
    written.inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&partial);
    })
}

/// A new file with synced contents, in a directory that is not synced yet.
///
/// # Errors
///
/// Those of the file system, and those of `contents`.
pub fn write_new(path: &Path, contents: &mut dyn Read) -> io::Result<u64> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let size = io::copy(contents, &mut file)?;
    file.sync_all()?;
    Ok(size)
}

/// Removes what a crash in the middle of replacing `path` left.
pub fn tidy(path: &Path) {
    // The next one goes over it, so this is for the space alone.
    if let Ok(partial) = partial(path) {
        let _ = fs::remove_file(partial);
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    // What a predecessor with our name left is of no use to anybody.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(mode).open(path)
}

fn partial(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(PARTIAL);
    Ok(path.with_file_name(hidden))
}

/// Renames within one file system and syncs both directories.
///
/// # Errors
///
/// Those of rename(2) and fsync(2).
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)?;
    if from.parent() != to.parent() {
        sync_parent(from)?;
    }
    Ok(())
}

/// Removes a file for good. One that is gone already is a success.
///
/// # Errors
///
/// Those of unlink(2) and fsync(2).
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_parent(path),
    }
}

/// Syncs the directory that `path` is in.
///
/// # Errors
///
/// Those of open(2) and fsync(2).
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
///
/// Those of open(2) and fsync(2).
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
///
/// Those of the file system; `FileTooLarge` beyond `most`.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_at_most(&mut File::open(path)?, most)
}

/// Whether an error says that the disk, or our share of it, is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(nix::libc::ENOSPC | nix::libc::EDQUOT)
    )
}

/// Whether an error says that what is there is of no use and never will be.
/// Others (no descriptor or no memory left, a signal) may be gone the next time.
#[must_use]
pub fn is_damaged(error: &io::Error) -> bool {
    use nix::libc::{EBADMSG, EIO, EISDIR, ELOOP, ENOTDIR, ENXIO, EUCLEAN};
    match error.raw_os_error() {
        Some(errno) => [EBADMSG, EIO, EISDIR, ELOOP, ENOTDIR, ENXIO, EUCLEAN].contains(&errno),
        // Not from the system: not text, or too large.
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_stays() {
        let dir = std::env::temp_dir().join(format!("bbot-agent-file-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("f");
        replace(&path, b"one").unwrap();
        // What a crash leaves behind.
        fs::write(dir.join(".f.partial"), b"rubbish").unwrap();
        replace_private(&path, b"two").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"two");
        assert_eq!(
            read(&path, 2).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        fs::remove_dir(&dir).unwrap();
    }
}
