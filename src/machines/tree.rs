//! The two-level tree of machines, `<machines>/<volume>/<name>/`: the machine
//! directories, and the current revision of each.
//!
//! The operator can switch revisions at any time, by a new target of the link and
//! the deletion of the old subvolume. So callers retry when a subvolume is gone.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::remedies;
use crate::error::{Class, Context as _, Error, Result, word};
use crate::snapshot;

/// The version of the bootstrap protocol, which names the link that is followed.
pub const PROTOCOL: &str = "1";

/// A machine directory and the paths in it that concern one toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineDir {
    /// `<machines>/<volume>`.
    pub volume: Rc<Path>,
    /// `<name>`.
    pub name: String,
}

impl MachineDir {
    /// `<machines>/<volume>/<name>`.
    pub fn dir(&self) -> PathBuf {
        self.volume.join(&self.name)
    }

    /// The link to the current revision, `<name>-1`.
    pub fn link(&self) -> PathBuf {
        self.in_it(PROTOCOL)
    }

    /// The bootstrapped copy for a toolchain, `<name>-<toolchain>`.
    pub fn copy(&self, toolchain: &str) -> PathBuf {
        self.in_it(toolchain)
    }

    fn in_it(&self, tail: &str) -> PathBuf {
        self.dir().join(format!("{}-{tail}", self.name))
    }

    /// The subvolume of the current revision; `None` if there is no link.
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
                            word(&link),
                            self.name
                        ))
                    });
                }
                wrapped
            }
        }
    }
}

/// The machine directories of a host.
#[derive(Debug)]
pub struct MachineDirs {
    /// Those of every volume, sorted by path.
    pub found: Vec<MachineDir>,
    /// Volumes that could not be read, and machines with the name of another one.
    pub broken: Vec<(PathBuf, Error)>,
}

/// Lists the machine directories of all volumes.
pub fn machine_dirs(machines: &Path) -> Result<MachineDirs> {
    let mut found: Vec<MachineDir> = Vec::new();
    let mut broken = Vec::new();
    let mut known: HashMap<String, Rc<Path>> = HashMap::new();
    for volume in volumes(machines)? {
        let names = match directories(&volume) {
            Ok(names) => names,
            Err(error) => {
                broken.push((volume, error));
                continue;
            }
        };
        // Its file system may not be mounted.
        if names.is_empty() && snapshot::require_btrfs(&volume).is_err() {
            let error = Error::new(format!(
                "unable to use volume {}: it has no machines and is not on btrfs",
                volume.display()
            ));
            let error = error.hint(remedies::mount(machines, &volume));
            broken.push((volume, error));
            continue;
        }
        let volume: Rc<Path> = volume.into();
        for name in names {
            // A task names its machine without the volume.
            if let Some(first) = known.get(&name) {
                let error = Error::new(format!(
                    "unable to use machine {}: {} has one of the same name",
                    volume.join(&name).display(),
                    first.display()
                ))
                .hint(format!(
                    "hide one of the two: mv {} {}",
                    word(&volume.join(&name)),
                    word(&volume.join(format!(".{name}")))
                ));
                broken.push((volume.join(&name), error));
                continue;
            }
            known.insert(name.clone(), Rc::clone(&volume));
            let volume = Rc::clone(&volume);
            found.push(MachineDir { volume, name });
        }
    }
    Ok(MachineDirs { found, broken })
}

/// The volumes of `machines`, sorted.
pub fn volumes(machines: &Path) -> Result<Vec<PathBuf>> {
    let names = directories(machines).map_err(|error| match machines.exists() {
        true => error,
        false => error
            .with_class(Class::Config)
            .hint(format!("make it: mkdir -p {}", word(machines)))
            .hint("name another: --machines <dir>"),
    })?;
    Ok(names.into_iter().map(|name| machines.join(name)).collect())
}

/// The directories in `dir`, and links to such, sorted. Names that begin with a dot are
/// left out, and names that are not UTF-8, since a manifest cannot have them.
pub fn directories(dir: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with('.')
                && (kind.is_dir() || kind.is_symlink() && dir.join(&name).is_dir())
            {
                found.push(name);
            }
        }
        found.sort_unstable();
        Ok(found)
    };
    read().context(|| format!("unable to iterate over {}", dir.display()))
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
        let MachineDirs { found, broken } = machine_dirs(&root).unwrap();
        let names: Vec<_> = found.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "link", "z"]);
        // A volume without machines has to be on btrfs.
        let broken: Vec<_> = broken.into_iter().map(|(path, _)| path).collect();
        assert_eq!(broken, [root.join("a")]);
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
