//! Files and directories beyond what std offers: names confined to a directory,
//! files without a name, renames.
//!
//! Names are resolved by the kernel below a directory (openat2(2), Linux 5.6):
//! checking a path first and opening it later would leave a gap between the two.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlink, renameat,
};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, stat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat};

use super::btrfs;

/// The identity and attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Regular, directory or something else.
    pub kind: FileKind,
    /// Octets.
    pub size: u64,
    /// When the content last changed: seconds and nanoseconds.
    pub changed: (i64, i64),
    /// Permission bits.
    pub mode: u32,
    /// Its number in the file system, or in the subvolume of btrfs.
    pub inode: u64,
    /// The number of that file system or subvolume.
    pub device: u64,
}

/// The kind of file behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device.
    Other,
}

impl From<nix::sys::stat::FileStat> for Facts {
    fn from(stat: nix::sys::stat::FileStat) -> Facts {
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => FileKind::Regular,
            SFlag::S_IFDIR => FileKind::Directory,
            SFlag::S_IFLNK => FileKind::Symlink,
            _ => FileKind::Other,
        };
        Facts {
            kind,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: (stat.st_mtime, stat.st_mtime_nsec),
            mode: stat.st_mode & 0o7777,
            inode: stat.st_ino,
            device: stat.st_dev,
        }
    }
}

/// The attributes of an open file.
pub fn facts(file: BorrowedFd<'_>) -> io::Result<Facts> {
    Ok(fstat(file)?.into())
}

/// The attributes of the file at `path`, behind symlinks.
pub fn facts_of(path: &Path) -> io::Result<Facts> {
    Ok(stat(path)?.into())
}

/// The attributes of `name`, one component, in `directory`; follows no symlink.
pub fn facts_at(directory: BorrowedFd<'_>, name: &str) -> io::Result<Facts> {
    Ok(fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.into())
}

/// Opens a directory as a root for the functions below.
///
/// # Errors
///
/// Those of open(2); `ENOTDIR` if it is none.
pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // Not by open(): the C library follows that up with a second call.
    Ok(File::from(openat(AT_FDCWD, path, flags, Mode::empty())?))
}

/// How [`open_beneath`] and [`open_plain`] open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading, without waiting for the other end of a FIFO.
    Read,
    /// A directory.
    Directory,
    /// Only to know what it is.
    Look,
}

/// Opens `path`, relative, as seen from `root`. Symlinks are followed as long as
/// they do not lead out of it.
///
/// # Errors
///
/// Those of openat2(2); `EXDEV` if the path leads out, `ENOENT` also for an empty
/// one.
pub fn open_beneath(root: BorrowedFd<'_>, path: &str, access: Access) -> io::Result<File> {
    open_resolved(root, path, access, ResolveFlag::RESOLVE_BENEATH)
}

/// Opens `path`, relative, as seen from `root`. There must be no symlink in it.
///
/// # Errors
///
/// Those of [`open_beneath`]; `ELOOP` for a symlink.
pub fn open_plain(root: BorrowedFd<'_>, path: &str, access: Access) -> io::Result<File> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open_resolved(root, path, access, resolve)
}

/// Finds what `path`, relative, leads to as seen from `root`, be it outside. It
/// is not opened: nothing can be done with it but ask what and where it is.
pub fn look_anywhere(root: BorrowedFd<'_>, path: &str) -> io::Result<File> {
    open_resolved(root, path, Access::Look, ResolveFlag::empty())
}

fn open_resolved(
    root: BorrowedFd<'_>,
    path: &str,
    access: Access,
    resolve: ResolveFlag,
) -> io::Result<File> {
    let flags = match access {
        Access::Read => OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        Access::Directory => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Access::Look => OFlag::O_PATH,
    };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // A rename elsewhere while ".." of a symlink is resolved gives EAGAIN.
    for _ in 0..16 {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => {}
            result => return Ok(File::from(result?)),
        }
    }
    Err(Errno::EXDEV.into())
}

/// The path by which the system knows an open file or directory.
pub fn path_of(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(PathBuf::from(readlink(link.as_str())?))
}

/// Creates a file in `directory` that has no name, and that vanishes unless
/// [`link_unnamed`] gives it one. `mode` is subject to the umask.
///
/// # Errors
///
/// Those of open(2) with `O_TMPFILE`; `EOPNOTSUPP`, or on old systems `EISDIR`,
/// `EINVAL` or `ENOENT`, where there is no such thing.
pub fn create_unnamed(directory: BorrowedFd<'_>, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(mode);
    Ok(File::from(openat(directory, ".", flags, mode)?))
}

/// Creates the file `name`, one component, in `directory`, where it must not
/// exist yet.
pub fn create_new(directory: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<File> {
    let flags =
        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(mode);
    Ok(File::from(openat(directory, name, flags, mode)?))
}

/// Gives a file of [`create_unnamed`] its name, one component.
///
/// # Errors
///
/// Those of linkat(2); `EEXIST` if the name is taken.
pub fn link_unnamed(file: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // Without CAP_DAC_READ_SEARCH this was ENOENT up to Linux 6.9.
    match linkat(file, "", directory, name, LinkatFlags::AT_EMPTY_PATH) {
        Err(Errno::ENOENT | Errno::EPERM) => {}
        result => return Ok(result?),
    }
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = LinkatFlags::AT_SYMLINK_FOLLOW;
    Ok(linkat(AT_FDCWD, link.as_str(), directory, name, flags)?)
}

/// Renames within `directory`, over what is there.
pub fn rename_within(directory: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    Ok(renameat(directory, from, directory, to)?)
}

/// Has two files in `directory` swap their names, with no instant in which either
/// is missing.
///
/// # Errors
///
/// Those of renameat2(2) with `RENAME_EXCHANGE`: `ENOENT` if one does not exist,
/// `EINVAL` if the file system cannot.
pub fn exchange_within(directory: BorrowedFd<'_>, one: &str, other: &str) -> io::Result<()> {
    let (one, other) = (CString::new(one)?, CString::new(other)?);
    btrfs::rename(directory, &one, &other, btrfs::Rename::Exchange)
}

/// Reads `source` to its end: at most `most` octets, so that no source makes the agent
/// hold more.
///
/// # Errors
///
/// Those of read(2); `FileTooLarge` beyond `most`.
pub fn read_at_most(source: &mut dyn Read, most: u64) -> io::Result<Vec<u8>> {
    // A small file takes one read, and one that finds its end.
    let mut contents = Vec::with_capacity(2048);
    source
        .take(most.saturating_add(1))
        .read_to_end(&mut contents)?;
    if contents.len() as u64 > most {
        let text = format!("larger than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(contents)
}

/// Removes a file, one component, from `directory`.
pub fn remove(directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?)
}

/// Has the file system report errors that it would keep for close(2), as NFS
/// does with quotas: every close of a descriptor flushes.
pub fn flush(file: BorrowedFd<'_>) -> io::Result<()> {
    let copy = file.try_clone_to_owned()?;
    Ok(nix::unistd::close(copy)?)
}

/// Octets that may still be written to the file system of an open file, `None`
/// where it does not say.
pub fn room(file: BorrowedFd<'_>) -> Option<u64> {
    let stat = nix::sys::statvfs::fstatvfs(file).ok()?;
    (stat.blocks() > 0).then(|| stat.blocks_available().saturating_mul(stat.fragment_size()))
}
