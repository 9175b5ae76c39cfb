//! The two-level tree of machines, `<machines>/<volume>/<name>/`, as it is on
//! disk: which machine directories there are, and which revision is current.
//!
//! The operator can switch revisions at any time, by a new target of the link and
//! the deletion of the old subvolume. So callers retry when a subvolume is gone.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::ops::Deref;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::{Context as _, Error, Result};
use crate::sys::entries::{Entries, Entry};
use crate::sys::file::{FileKind, open_directory};

/// The bootstrap protocol that we speak, and so the link that we follow.
pub const PROTOCOL: &str = "1";

/// Manifests of machines are small; what is larger is none.
const MANIFEST_LIMIT: u64 = 1024 * 1024;

/// More than they usually have.
const MANIFEST_USUAL: usize = 2048;

/// A machine directory and the paths in it that concern one toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineDir {
    /// `<machines>/<volume>`.
    pub volume: Rc<Path>,
    /// `<name>`.
    pub name: String,
}

impl MachineDir {
    /// Whether it comes before `other` in a walk over all of them.
    #[must_use]
    pub fn order(&self, other: &MachineDir) -> Ordering {
        let volumes = self.volume.as_os_str().cmp(other.volume.as_os_str());
        volumes.then_with(|| self.name.cmp(&other.name))
    }

    /// `<machines>/<volume>/<name>`.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.volume.join(&self.name)
    }

    /// The link to the current revision, `<name>-1`.
    #[must_use]
    pub fn link(&self) -> PathBuf {
        self.in_it(PROTOCOL)
    }

    /// The bootstrapped copy for a toolchain, `<name>-<toolchain>`.
    #[must_use]
    pub fn bootstrapped(&self, toolchain: &str) -> PathBuf {
        self.in_it(toolchain)
    }

    fn in_it(&self, tail: &str) -> PathBuf {
        let (volume, name) = (self.volume.as_os_str(), self.name.as_str());
        let parts = [
            OsStr::new("/"),
            name.as_ref(),
            OsStr::new("/"),
            name.as_ref(),
        ];
        let parts = parts.into_iter().chain([OsStr::new("-"), tail.as_ref()]);
        // In one piece of memory: it is made for every machine in every turn.
        let mut path = OsString::with_capacity(volume.len() + 2 * name.len() + tail.len() + 3);
        path.push(volume);
        parts.for_each(|part| path.push(part));
        path.into()
    }

    /// The subvolume of the current revision; `None` if there is no link.
    ///
    /// # Errors
    ///
    /// When the link is something else, or cannot be read.
    pub fn current(&self) -> Result<Option<PathBuf>> {
        let link = self.link();
        match fs::read_link(&link) {
            Ok(target) => Ok(Some(self.dir().join(target))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let not_a_link = error.kind() == io::ErrorKind::InvalidInput;
                let wrapped = Err(error)
                    .context(|| format!("unable to read subvolume link {}", link.display()));
                if not_a_link {
                    return wrapped.map_err(|e: Error| {
                        e.hint(format!(
                            "make it a link to the current revision: mv {0} {0}.old && \
                             ln -s {1}-{PROTOCOL}.0 {0}",
                            link.display(),
                            self.name
                        ))
                    });
                }
                wrapped
            }
        }
    }
}

/// The result of a walk over the tree.
#[derive(Debug)]
pub struct Places {
    /// The machine directories of every volume, sorted by path.
    pub found: Vec<MachineDir>,
    /// The volumes that could not be read: they do not hide the others.
    pub broken: Vec<(PathBuf, Error)>,
}

/// Walks over volumes and machine directories.
///
/// # Errors
///
/// When the machines directory itself cannot be read.
pub fn places(machines: &Path) -> Result<Places> {
    let mut entries = Entries::default();
    let mut found = Vec::new();
    let mut broken = Vec::new();
    for volume in directories(machines, &mut entries)? {
        let volume = machines.join(volume);
        match directories(&volume, &mut entries) {
            Ok(names) => {
                let volume = Rc::from(volume);
                found.extend(names.into_iter().map(|name| MachineDir {
                    volume: Rc::clone(&volume),
                    name,
                }));
            }
            Err(error) => broken.push((volume, error)),
        }
    }
    Ok(Places { found, broken })
}

/// The volumes of `machines`, sorted.
///
/// # Errors
///
/// When the machines directory cannot be read.
pub fn volumes(machines: &Path) -> Result<Vec<PathBuf>> {
    let names = directories(machines, &mut Entries::default())?;
    Ok(names.into_iter().map(|name| machines.join(name)).collect())
}

/// The directories in `dir` (or links to such) with a name that is text and
/// does not start with a dot, sorted.
fn directories(dir: &Path, entries: &mut Entries) -> Result<Vec<String>> {
    let what = || format!("unable to iterate over {}", dir.display());
    let mut found = Vec::new();
    let open = open_directory(dir).context(what)?;
    let each = |entry: Entry<'_>| {
        if let Some(text) = visible(&entry)
            // A link counts as what it points to; a dangling one as nothing.
            && (entry.kind == Some(FileKind::Directory) || dir.join(text).is_dir())
        {
            found.push(text.to_owned());
        }
    };
    entries.read(open.as_fd(), each).context(what)?;
    found.sort_unstable();
    Ok(found)
}

/// Reads the manifest of a subvolume.
///
/// # Errors
///
/// Those of open(2) and read(2); more than a megabyte.
pub fn manifest(subvolume: &Path) -> Result<Vec<u8>> {
    let mut text = Text::default();
    text.read(AT_FDCWD, &subvolume.join("manifest"))?;
    text.buffer.truncate(text.length);
    Ok(text.buffer)
}

/// A text that was read, in memory that serves for the next one too.
///
/// There are two for every machine in every turn, so no call more than it takes
/// (one read, if that does not fill the buffer) and nothing cleared in between.
#[derive(Debug, Default)]
pub struct Text {
    buffer: Vec<u8>,
    length: usize,
}

impl Text {
    /// Reads the file `path`, as seen from `directory`.
    ///
    /// # Errors
    ///
    /// As [`manifest`].
    pub fn read(&mut self, directory: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let what = || format!("unable to read manifest {}", path.display());
        self.length = 0;
        // A FIFO must not hold us up. Not by open(): the C library follows that
        // up with a second call.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let mut file: File = openat(directory, path, flags, Mode::empty())
            .map_err(io::Error::from)
            .context(what)?
            .into();
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                self.buffer.resize(MANIFEST_USUAL.max(length * 4), 0);
            }
            let count = file.read(&mut self.buffer[length..]).context(what)?;
            length += count;
            if length as u64 > MANIFEST_LIMIT {
                return Err(Error::new(format!(
                    "{}: it is larger than {MANIFEST_LIMIT} bytes",
                    what()
                )));
            }
            if length < self.buffer.len() {
                // A file gives less than it is asked for at its end only.
                self.length = length;
                return Ok(());
            }
        }
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// The name of what may be a volume or a machine directory: is one, or leads to
/// one, or the file system does not say what it is.
///
/// Names that are not UTF-8 cannot be machine names, since a manifest could not
/// carry them.
#[must_use]
pub fn visible<'a>(entry: &Entry<'a>) -> Option<&'a str> {
    match entry.kind {
        None | Some(FileKind::Directory | FileKind::Symlink) => {}
        Some(FileKind::Regular | FileKind::Other) => return None,
    }
    entry.name.to_str().filter(|name| !name.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("bbot-tree-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn place(root: &Path) -> MachineDir {
        fs::create_dir(root.join("m")).unwrap();
        MachineDir {
            volume: root.into(),
            name: "m".to_owned(),
        }
    }

    #[test]
    fn two_levels_hidden_names_and_files_left_out() {
        let root = scratch("levels");
        for dir in ["b/z", "b/a", "b/.hidden", ".snapshots/x", "a"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("b/file"), "").unwrap();
        symlink("a", root.join("b/link")).unwrap();
        symlink("nowhere", root.join("b/dangling")).unwrap();
        let Places { found, broken } = places(&root).unwrap();
        let names: Vec<_> = found.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "link", "z"]);
        assert!(broken.is_empty());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_relative_link_is_relative_to_the_machine_directory() {
        let root = scratch("link");
        let place = place(&root);
        assert_eq!(place.current().unwrap(), None);
        symlink("m-1.3", place.link()).unwrap();
        assert_eq!(place.current().unwrap(), Some(place.dir().join("m-1.3")));
        fs::remove_file(place.link()).unwrap();
        symlink("/elsewhere/m", place.link()).unwrap();
        assert_eq!(
            place.current().unwrap(),
            Some(PathBuf::from("/elsewhere/m"))
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_directory_in_place_of_the_link_is_an_explained_error() {
        let root = scratch("nolink");
        let place = place(&root);
        fs::create_dir(place.link()).unwrap();
        let error = place.current().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unable to read subvolume link ")
        );
        assert_eq!(error.hints().count(), 1);
        fs::remove_dir_all(root).unwrap();
    }
}
