//! Files that survive a power cut: each is written beside its place, synced, renamed,
//! and its directory synced, so that a name has all of the old contents or all of the
//! new ones.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::sys::file::read_at_most;

/// The end of the names of incomplete files.
const PARTIAL: &str = ".partial";

/// Makes `path` hold `contents`, readable for others as the umask allows. After an
/// error `path` is as it was, except after a failed sync of its directory, when it may
/// be either.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    place(path, &[contents], 0o666)?;
    sync_parent(path)
}

/// The same of a new file, for the owner only, with its contents in pieces. After an
/// error the file is not there.
pub fn appear(path: &Path, contents: &[&[u8]]) -> io::Result<()> {
    place(path, contents, 0o600)?;
    sync_parent(path).inspect_err(|_| {
        // The caller may try again under another name.
        let _ = fs::remove_file(path);
    })
}

/// Makes `path` hold `contents` in one step, so that a reader sees the old file or the
/// new one. Not synced: the contents are of no use after a crash of the host. A device
/// or a link by that name is left alone.
pub fn publish(path: &Path, contents: &[u8]) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            let text = "not a regular file";
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
        _ => write_and_rename(path, &[contents], 0o666, false).map(drop),
    }
}

/// Makes `path` hold `contents`, for the owner only, in a directory that is not
/// synced yet; the file is open for appending.
pub fn begin(path: &Path, contents: &[u8]) -> io::Result<File> {
    place(path, &[contents], 0o600)
}

fn place(path: &Path, contents: &[&[u8]], mode: u32) -> io::Result<File> {
    write_and_rename(path, contents, mode, true)
}

fn write_and_rename(path: &Path, contents: &[&[u8]], mode: u32, sync: bool) -> io::Result<File> {
    let partial = partial(path)?;
    let written = create(&partial, mode).and_then(|mut file| {
        for piece in contents {
            file.write_all(piece)?;
        }
        if sync {
            file.sync_all()?;
        }
        fs::rename(&partial, path)?;
        Ok(file)
    });
    written.inspect_err(|_| {
        // The first error is the one that is reported.
        let _ = fs::remove_file(&partial);
    })
}

/// A new file with synced contents, in a directory that is not synced yet.
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

/// Removes the file that a crash left in the middle of a replacement of `path`.
pub fn tidy(path: &Path) {
    // The next replacement would remove it, too; this frees the space.
    if let Ok(partial) = partial(path) {
        let _ = fs::remove_file(partial);
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(mode);
    match options.open(path) {
        // A file of this name is what a crash left.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        opened => opened,
    }
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
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)?;
    if from.parent() != to.parent() {
        sync_parent(from)?;
    }
    Ok(())
}

/// Removes a file durably. It is no error if there is none.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_parent(path),
    }
}

/// Syncs the directory that `path` is in.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Reads a file of at most `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_at_most(&mut open(path)?, most)
}

/// Opens a file for reading, without waiting for the writer of a FIFO.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = options.read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a FIFO"));
    }
    Ok(file)
}

/// Whether an error says that the disk, or the quota on it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(nix::libc::ENOSPC | nix::libc::EDQUOT)
    )
}

/// Whether an error says that a file is unreadable and will stay so. Other errors (no
/// descriptor or no memory left, a signal) may be gone the next time.
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
        replace(&path, b"two").unwrap();
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

    #[test]
    fn a_published_file_is_old_or_new_and_other_files_are_left_alone() {
        let dir = std::env::temp_dir().join(format!("bbot-agent-publish-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (path, other) = (dir.join("a.prom"), dir.join("other"));
        publish(&path, b"old").unwrap();
        let reader = File::open(&path).unwrap();
        fs::write(&other, "o").unwrap();
        // A killed writer may have left anything under this name.
        std::os::unix::fs::symlink(&other, dir.join(".a.prom.partial")).unwrap();
        publish(&path, b"new").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_to_string(&other).unwrap(), "o");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        let link = dir.join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for special in [Path::new("/dev/null"), &link, &dir] {
            let error = publish(special, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{special:?}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("bbot-agent-fifo-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read(&path, 10).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(error.to_string(), "it is a FIFO");
    }
}
