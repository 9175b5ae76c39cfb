//! Operations on subvolumes by path, with explained failures.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use crate::error::{Class, Context as _, Error, Result, word};
use crate::sys::btrfs::{self, FreeSpace};
use crate::sys::file::open_directory;
use crate::trace;

/// Deletes the subvolume `path`, read-only or not; one that is gone already is
/// fine. The space comes back later ([`cleaner_backlog`]).
pub fn delete(path: &Path) -> Result<()> {
    let what = || format!("unable to delete subvolume {}", path.display());
    trace!(3, "delete", "btrfs subvolume delete {}", path.display());
    let (parent, name) = match split(path) {
        Ok(split) => split,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(error, path, &what())),
    };
    let mut result = btrfs::subvolume_delete(parent.as_fd(), &name);
    // Users other than root cannot delete read-only subvolumes.
    if result
        .as_ref()
        .is_err_and(|e| e.raw_os_error() == Some(libc::EROFS))
        && set_read_only(path, false).is_ok()
    {
        result = btrfs::subvolume_delete(parent.as_fd(), &name);
    }
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(explain(error, path, &what())),
        Ok(()) => Ok(()),
    }
}

/// Sets or clears the read-only flag of the subvolume `path`.
pub fn set_read_only(path: &Path, read_only: bool) -> Result<()> {
    trace!(
        3,
        "set_read_only",
        "btrfs property set -ts {} ro {read_only}",
        path.display()
    );
    open_directory(path)
        .and_then(|root| btrfs::set_read_only(root.as_fd(), read_only))
        .map_err(|error| {
            let how = if read_only { "read-only" } else { "writable" };
            explain(
                error,
                path,
                &format!("unable to make {} {how}", path.display()),
            )
        })
}

/// Whether there is a subvolume at `path` itself, not through a symbolic link.
pub fn is_subvolume(path: &Path) -> Result<bool> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path);
    match opened.and_then(|dir| btrfs::is_subvolume(dir.as_fd())) {
        Ok(answer) => Ok(answer),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(false),
            _ => Err(error).context(|| format!("unable to examine {}", path.display())),
        },
    }
}

/// Makes sure that the directory `path` is one of a btrfs file system.
pub fn require_btrfs(path: &Path) -> Result<()> {
    let what = || format!("unable to keep machines in {}", path.display());
    let dir = open_directory(path).map_err(|error| explain(error, path, &what()))?;
    match btrfs::is_btrfs(dir.as_fd()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(explain(Errno::ENOTTY.into(), path, &what())),
        Err(error) => Err(explain(error, path, &what())),
    }
}

/// The space of the file system that `path` is on.
pub fn space(path: &Path) -> Result<FreeSpace> {
    open_directory(path)
        .and_then(|dir| btrfs::space(dir.as_fd()))
        .context(|| format!("unable to determine the free space of {}", path.display()))
}

/// The time for the kernel to free the space of deleted subvolumes, and the interval of
/// looks at it.
const CLEANER_TIMEOUT: Duration = Duration::from_secs(30);
const CLEANER_POLL: Duration = Duration::from_millis(100);

/// Waits until the kernel has freed the space of deleted subvolumes of the file system of
/// `path`, which it does after the deletion has returned. `rest` is called for each pause,
/// and says whether to go on.
pub fn await_cleaner(path: &Path, rest: &mut dyn FnMut(Duration) -> bool) {
    if let Err(error) = sync(path) {
        trace!(3, "await_cleaner", "{error}");
    }
    let mut waited = Duration::ZERO;
    // An older kernel has no figure for it; `sync` has begun the work.
    while let Ok(Some(1..)) = cleaner_backlog(path) {
        if waited >= CLEANER_TIMEOUT || !rest(CLEANER_POLL) {
            return;
        }
        waited += CLEANER_POLL;
    }
}

/// How many deleted subvolumes of the file system of `path` still take up
/// space; `None` if the kernel cannot say.
pub fn cleaner_backlog(path: &Path) -> Result<Option<u32>> {
    open_directory(path)
        .and_then(|dir| btrfs::cleaner_backlog(dir.as_fd()))
        .context(|| format!("unable to ask for deleted subvolumes of {}", path.display()))
}

/// Makes deletions durable and has the kernel start to give their space back.
pub fn sync(path: &Path) -> Result<()> {
    trace!(3, "sync", "btrfs filesystem sync {}", path.display());
    open_directory(path)
        .and_then(|dir| btrfs::sync(dir.as_fd()))
        .map_err(|error| explain(error, path, &format!("unable to sync {}", path.display())))
}

/// The directory of `path`, open, and its last component.
pub(super) fn split(path: &Path) -> io::Result<(File, CString)> {
    let name = path.file_name().ok_or(Errno::EINVAL)?;
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((open_directory(parent)?, name))
}

/// The remedy for a directory in place of a subvolume.
pub fn conversion(path: &Path) -> String {
    let path = word(path);
    format!(
        "make it a subvolume: mv {path} {path}.old && btrfs subvolume create {path} && \
         cp -a --reflink=auto {path}.old/. {path}/ && rm -r {path}.old"
    )
}

/// The error of doing `what` to `path`, with a remedy where one is known.
pub(super) fn explain(error: io::Error, path: &Path, what: &str) -> Error {
    let errno = error.raw_os_error();
    let operand = word(path);
    let with = |reason: &str| Error::new(format!("{what}: {reason}"));
    // Keeps the errno, for callers that branch on it.
    let plain = Err::<(), _>(error).context(|| what).err();
    let plain = plain.unwrap_or_else(|| Error::new(what));
    match errno {
        Some(libc::ENOTTY) => with("not on a btrfs file system")
            .with_class(Class::Config)
            .hint(format!(
                "mount a btrfs file system at {operand} or above (mkfs.btrfs, mount)"
            )),
        Some(libc::EINVAL) => with("not a btrfs subvolume").hint(conversion(path)),
        Some(libc::ENOTEMPTY) => plain.hint(format!(
            "see what is inside: btrfs subvolume list -o {operand}"
        )),
        Some(libc::EXDEV) => plain.hint(format!(
            "{operand} must be on the same file system as the snapshot"
        )),
        Some(libc::ENOSPC | libc::EDQUOT) => plain.hint(format!(
            "see what is full: btrfs filesystem usage {operand}"
        )),
        Some(libc::EPERM | libc::EACCES) => plain.hint(
            "run as root, or as the owner of the machines on a file system that is \
             mounted with user_subvol_rm_allowed",
        ),
        Some(libc::EROFS) => plain.hint(format!(
            "see how it is mounted: findmnt -T {operand}; btrfs turns read-only after a write error"
        )),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_what_is_gone_is_fine() {
        delete(Path::new("/nonexistent/a/b")).unwrap();
    }

    #[test]
    fn an_error_names_the_path_and_the_remedy() {
        let error = require_btrfs(Path::new("/proc")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to keep machines in /proc: not on a btrfs file system"
        );
        assert_eq!(error.class(), Class::Config);
        assert!(error.hints().any(|hint| hint.contains("mkfs.btrfs")));
    }
}
