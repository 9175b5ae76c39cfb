//! Directories that requests lead to: names to open files, confined to a root.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::map::Name;
use super::packet::{ErrorCode, Refusal};
use crate::sys::file::{self, Access, Facts, FileKind};

const BUSY: &str = "server is busy";
const BROKEN: &str = "input/output error";
const FULL: &str = "disk full";
const READ_ONLY: &str = "read-only file system";

/// There is no room for what a peer wants to write.
pub const NO_ROOM: Refusal = Refusal::new(ErrorCode::DiskFull, FULL);

/// Whether a request was refused for something that failed here.
pub fn is_our_failure(refusal: &Refusal) -> bool {
    refusal.text == BUSY || is_our_disks(refusal)
}

/// Whether a disk of the host is the reason. A limit that the peer exceeded is not, nor
/// is a lack of descriptors or memory, which a peer can cause.
pub fn is_our_disks(refusal: &Refusal) -> bool {
    [BROKEN, FULL, READ_ONLY].contains(&&*refusal.text)
}

/// The refusal for a failed system call; it names nothing of the host.
pub fn refusal(error: &io::Error) -> Refusal {
    let errno = error.raw_os_error().map(Errno::from_raw);
    let (code, text) = match errno {
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => {
            (ErrorCode::FileNotFound, "file not found")
        }
        Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) => (ErrorCode::DiskFull, FULL),
        Some(
            Errno::EACCES
            | Errno::EPERM
            | Errno::ELOOP
            | Errno::EXDEV
            | Errno::EISDIR
            | Errno::ENXIO
            | Errno::ETXTBSY,
        ) => (ErrorCode::AccessViolation, "access violation"),
        Some(Errno::EROFS) => (ErrorCode::AccessViolation, READ_ONLY),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => (ErrorCode::NotDefined, BUSY),
        _ => (ErrorCode::NotDefined, BROKEN),
    };
    Refusal::new(code, text)
}

const NOT_A_FILE: Refusal = Refusal::new(ErrorCode::AccessViolation, "not a regular file");
const DENIED: Refusal = Refusal::new(ErrorCode::AccessViolation, "access violation");

/// A directory and what is below it.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    root: Option<Root>,
}

/// A directory that is held open, and which one it is.
#[derive(Debug)]
struct Root {
    directory: File,
    device: u64,
    inode: u64,
}

impl Tree {
    /// The directory at `path`, which is opened when it is first needed.
    pub fn new(path: PathBuf) -> Tree {
        Tree { path, root: None }
    }

    /// The directory that is at the path now. A build directory may be removed or
    /// renamed, and made anew, so that the open one is no longer at the path. Its inode
    /// number is not reused while it is open.
    fn root(&mut self) -> io::Result<&File> {
        let now = file::facts_of(&self.path).inspect_err(|_| self.root = None)?;
        let root = match self.root.take() {
            Some(root) if (root.device, root.inode) == (now.device, now.inode) => root,
            _ => {
                let directory = file::open_directory(&self.path)?;
                // Not `now`, for the path may lead elsewhere since then.
                let Facts { device, inode, .. } = file::facts(directory.as_fd())?;
                Root {
                    directory,
                    device,
                    inode,
                }
            }
        };
        Ok(&self.root.insert(root).directory)
    }

    /// Opens a regular file for reading. `Ok(None)` if there is no such name.
    pub fn open(&mut self, name: &Name) -> Result<Option<(File, Facts)>, Refusal> {
        let opened = self
            .root()
            .and_then(|root| open_inside(root, name.as_str(), Access::Read));
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let refusal = refusal(&error);
                return match refusal.code {
                    ErrorCode::FileNotFound => Ok(None),
                    _ => Err(refusal),
                };
            }
        };
        let facts = file::facts(opened.as_fd()).map_err(|error| refusal(&error))?;
        if facts.kind != FileKind::Regular {
            return Err(NOT_A_FILE);
        }
        // Root could read it, but a file without read permission is not to be served.
        if facts.mode & 0o444 == 0 {
            return Err(DENIED);
        }
        Ok(Some((opened, facts)))
    }

    /// Finds the directory that `name` is to be written in, and its name there.
    /// A symlink that stays below the root is followed, so that it is the file
    /// behind it that is written.
    pub fn place(&mut self, name: &Name) -> Result<Place, Refusal> {
        self.root()
            .and_then(|root| Place::find(root, name.as_str()))
            .map_err(|error| refusal(&error))?
            .ok_or(NOT_A_FILE)
    }
}

/// Where a file is to appear.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub directory: File,
    /// The name in it, one component.
    pub name: String,
}

impl Place {
    /// `Ok(None)`: something other than a regular file is in the way.
    fn find(root: &File, name: &str) -> io::Result<Option<Place>> {
        let (parent, base) = name.rsplit_once('/').unwrap_or((".", name));
        let directory = open_inside(root, parent, Access::Directory)?;
        let writable = file::facts(directory.as_fd())?.mode & 0o222 != 0;
        if !writable {
            return Err(Errno::EACCES.into());
        }
        let place = Place {
            directory,
            name: base.to_owned(),
        };
        match file::facts_at(place.directory.as_fd(), base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(place)),
            Err(error) => Err(error),
            Ok(facts) => match facts.kind {
                FileKind::Regular if facts.mode & 0o222 == 0 => Err(Errno::EACCES.into()),
                FileKind::Regular => Ok(Some(place)),
                FileKind::Symlink => Place::behind(root, name),
                FileKind::Directory | FileKind::Other => Ok(None),
            },
        }
    }

    /// The place of the file that the symlink `name` leads to.
    fn behind(root: &File, name: &str) -> io::Result<Option<Place>> {
        let target = match open_inside(root, name, Access::Look) {
            // The file behind a dangling symlink is not created.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Errno::EACCES.into());
            }
            target => target?,
        };
        // The real path has no symlink in it, unless the tree changes meanwhile; then
        // this ends in a refusal.
        match real_name(root, &target)? {
            real if real != name => Place::find(root, &real),
            _ => Err(Errno::EXDEV.into()),
        }
    }
}

/// Opens `name` as seen from `root`. Symlinks are followed as long as what they
/// lead to is below the root.
fn open_inside(root: &File, name: &str, access: Access) -> io::Result<File> {
    match file::open_beneath(root.as_fd(), name, access) {
        Err(error) if error.raw_os_error() == Some(Errno::EXDEV as i32) => {
            // The path leaves the root, as every absolute symlink does, but may end
            // inside. Files outside and missing ones get the same refusal.
            open_around(root, name, access).map_err(|_| error)
        }
        result => result,
    }
}

/// Opens the target of `name` by its real path, which is opened from the root without
/// following symlinks. A concurrent change of the tree therefore leads to nothing
/// outside.
fn open_around(root: &File, name: &str, access: Access) -> io::Result<File> {
    let target = file::look_anywhere(root.as_fd(), name)?;
    let real = real_name(root, &target)?;
    file::open_plain(root.as_fd(), &real, access)
}

/// The path of `target` from `root` on; `.` for the root itself.
fn real_name(root: &File, target: &File) -> io::Result<String> {
    let below = file::path_of(root.as_fd())?;
    let path = file::path_of(target.as_fd())?;
    match path.strip_prefix(&below).ok().and_then(Path::to_str) {
        Some("") => Ok(".".to_owned()),
        Some(real) => Ok(real.to_owned()),
        None => Err(Errno::EXDEV.into()),
    }
}
