//! Removal of a directory with all that is below it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file::open_directory;

/// The maximum depth of a tree that is removed: the number of passes.
const MAX_DEPTH: u32 = 1 << 20;

/// Removes a directory and all below it, however deep: directories move up before they
/// are removed, so that no path is long and few descriptors are open. Follows no
/// symlink, also if another process writes to the tree.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = open_directory(path)?;
    let mut moved = 0;
    for _ in 0..MAX_DEPTH {
        let names = names(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            remove_entry(top.as_fd(), &name, &mut moved)?;
        }
    }
    fs::remove_dir(path)
}

/// Removes a file, or a directory whose directories move to `top` under new names.
fn remove_entry(top: BorrowedFd<'_>, name: &OsString, moved: &mut u64) -> io::Result<()> {
    if remove_file(top, name)? {
        return Ok(());
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let directory = File::from(openat(top, name.as_os_str(), flags, Mode::empty())?);
    for child in names(&directory)? {
        if remove_file(directory.as_fd(), &child)? {
            continue;
        }
        loop {
            *moved += 1;
            let place = format!("removed-{moved}");
            match renameat(&directory, child.as_os_str(), top, place.as_str()) {
                // The name is taken, unless by an empty directory, which is replaced.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                result => break result?,
            }
        }
    }
    Ok(unlinkat(top, name.as_os_str(), UnlinkatFlags::RemoveDir)?)
}

/// Returns false for a directory, which stays.
fn remove_file(directory: BorrowedFd<'_>, name: &OsString) -> io::Result<bool> {
    match unlinkat(directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => Ok(false),
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The names in a directory.
fn names(directory: &File) -> io::Result<Vec<OsString>> {
    // By another open file, so that it is read from its start.
    let entries = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_is_removed_however_deep_and_links_are_not_followed() {
        let root = std::env::temp_dir().join(format!("bbot-agent-tree-{}", std::process::id()));
        let (tree, other) = (root.join("tree"), root.join("other"));
        fs::create_dir_all(tree.join("removed-1/removed-2")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        symlink(&other, tree.join("removed-1/link")).unwrap();
        // Deeper than a path can say, than descriptors or the stack suffice for.
        let mut directory = open_directory(&tree).unwrap();
        for _ in 0..5000 {
            nix::sys::stat::mkdirat(&directory, "d", Mode::S_IRWXU).unwrap();
            let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            directory = openat(&directory, "d", flags, Mode::empty())
                .unwrap()
                .into();
            let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            drop(openat(&directory, "file", flags, Mode::S_IRWXU).unwrap());
        }
        remove_tree(&tree).unwrap();
        assert!(other.join("kept").exists());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        assert_eq!(
            remove_tree(&tree).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        fs::remove_dir_all(&root).unwrap();
    }
}
