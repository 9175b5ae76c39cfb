//! The two-level tree of machines, `<machines>/<volume>/<name>/`, as it is on
//! disk: which machine directories there are, and which revision is current.
//!
//! Somebody else switches revisions by pointing the link elsewhere and deleting
//! the old subvolume, at any time; so everything read here may be gone a moment
//! later, and callers retry.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::{Context as _, Error, Result};

/// The bootstrap protocol that we speak, and so the link that we follow.
pub const PROTOCOL: &str = "1";

/// Manifests of machines are small; what is larger is none.
const MANIFEST_LIMIT: u64 = 1024 * 1024;

/// More than they usually have.
const MANIFEST_USUAL: usize = 2048;

/// A machine directory and the paths in it that concern one toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `<machines>/<volume>/<name>`.
    pub dir: PathBuf,
    /// `<name>`.
    pub name: String,
}

impl Place {
    /// The link to the current revision, `<name>-1`.
    #[must_use]
    pub fn link(&self) -> PathBuf {
        self.dir.join(format!("{}-{PROTOCOL}", self.name))
    }

    /// The bootstrapped copy for a toolchain, `<name>-<toolchain>`.
    #[must_use]
    pub fn bootstrapped(&self, toolchain: &str) -> PathBuf {
        self.dir.join(format!("{}-{toolchain}", self.name))
    }

    /// The subvolume of the current revision; `None` if there is no link.
    ///
    /// # Errors
    ///
    /// When the link is something else, or cannot be read.
    pub fn current(&self) -> Result<Option<PathBuf>> {
        let link = self.link();
        match fs::read_link(&link) {
            Ok(target) => Ok(Some(self.dir.join(target))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let not_a_link = error.kind() == io::ErrorKind::InvalidInput;
                let wrapped = Err(error)
                    .context(|| format!("unable to read subvolume link {}", link.display()));
                if not_a_link {
                    return wrapped.map_err(|e: Error| {
                        e.hint(format!(
                            "it has to be a symbolic link to the current revision: \
                             ln -s {0}-{PROTOCOL}.0 {0}-{PROTOCOL}",
                            self.name
                        ))
                    });
                }
                wrapped
            }
        }
    }
}

/// What a walk over the tree found.
#[derive(Debug)]
pub struct Places {
    /// The machine directories of every volume, sorted by path.
    pub found: Vec<Place>,
    /// The volumes that could not be read: they do not hide the others.
    pub broken: Vec<(PathBuf, Error)>,
}

/// Walks over volumes and machine directories.
///
/// # Errors
///
/// When the machines directory itself cannot be read.
pub fn places(machines: &Path) -> Result<Places> {
    let mut found = Vec::new();
    let mut broken = Vec::new();
    for volume in volumes(machines)? {
        match directories(&volume) {
            Ok(dirs) => found.extend(dirs.into_iter().map(|(dir, name)| Place { dir, name })),
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
    Ok(directories(machines)?
        .into_iter()
        .map(|(path, _)| path)
        .collect())
}

/// The directories in `dir` (or links to such) with a name that is text and
/// does not start with a dot, sorted.
fn directories(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let what = || format!("unable to iterate over {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context(what)? {
        let entry = entry.context(what)?;
        let name = entry.file_name();
        let Some(name) = visible(&name) else { continue };
        let kind = entry.file_type().context(what)?;
        let path = entry.path();
        // A link counts as what it points to; a dangling one as nothing.
        if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
            found.push((path, name.to_owned()));
        }
    }
    // All are in one directory, and names are quicker to compare than paths.
    found.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
    Ok(found)
}

/// Reads the manifest of a subvolume.
///
/// There are two for every machine in every turn, so no call more than it takes:
/// one read, if that did not fill the buffer.
///
/// # Errors
///
/// Those of open(2) and read(2); more than a megabyte.
pub fn manifest(subvolume: &Path) -> Result<Vec<u8>> {
    let path = subvolume.join("manifest");
    let mut text = Vec::new();
    read(AT_FDCWD, &path, &mut text)?;
    Ok(text)
}

/// The same of the file `path`, as seen from `directory`, in place of what is in
/// `text`: a buffer that has served before is large enough.
///
/// # Errors
///
/// As [`manifest`].
pub fn read(directory: BorrowedFd<'_>, path: &Path, text: &mut Vec<u8>) -> Result<()> {
    let what = || format!("unable to read manifest {}", path.display());
    // A FIFO must not hold us up. Not by open(): the C library follows that up
    // with a second call.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut file: File = openat(directory, path, flags, Mode::empty())
        .map_err(io::Error::from)
        .context(what)?
        .into();
    text.resize(text.capacity().max(MANIFEST_USUAL), 0);
    let mut length = 0;
    loop {
        let count = file.read(&mut text[length..]).context(what)?;
        length += count;
        if length as u64 > MANIFEST_LIMIT {
            return Err(Error::new(format!(
                "{}: it is larger than {MANIFEST_LIMIT} bytes",
                what()
            )));
        }
        if length < text.len() {
            // A file gives less than it is asked for at its end only.
            text.truncate(length);
            return Ok(());
        }
        text.resize(length * 4, 0);
    }
}

/// Names that are not UTF-8 cannot be machine names, since a manifest could not
/// carry them.
fn visible(name: &OsStr) -> Option<&str> {
    if name.as_bytes().starts_with(b".") {
        return None;
    }
    name.to_str()
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
        let place = Place {
            dir: root.clone(),
            name: "m".to_owned(),
        };
        assert_eq!(place.current().unwrap(), None);
        symlink("m-1.3", place.link()).unwrap();
        assert_eq!(place.current().unwrap(), Some(root.join("m-1.3")));
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
        let place = Place {
            dir: root.clone(),
            name: "m".to_owned(),
        };
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
