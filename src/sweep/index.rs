//! Which machine directories have no scratch snapshot in them, as btrfs's index
//! of subvolumes has it: with a thousand of them, reading each is most of the
//! cost of a sweep, and nearly always for nothing.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::snapshot;
use crate::sys::entries::Entry;
use crate::sys::file::{self, FileKind};
use crate::sys::subvolumes;

/// The state of the directories in a volume.
pub(super) struct Index {
    /// The inode numbers of those with what may be a scratch snapshot in them,
    /// of those in the subvolume that the volume is in.
    suspect: Vec<u64>,
    /// The names of those that are subvolumes themselves.
    nested: Vec<Box<[u8]>>,
}

impl Index {
    /// The index for the directory `volume`; `None` if it does not tell: we are
    /// not root, it is not btrfs, or something is mounted further down.
    pub(super) fn of(volume: &File) -> Option<Index> {
        let here = file::facts(volume.as_fd()).ok()?.inode;
        let mut index = Index {
            suspect: Vec::new(),
            nested: Vec::new(),
        };
        subvolumes::children(volume.as_fd(), |directory, name| {
            if directory == here {
                index.nested.push(name.into());
            } else if snapshot::may_be_scratch(name) {
                index.suspect.push(directory);
            }
        })
        .ok()?;
        let mounted = mounted_below(volume).unwrap_or(true);
        (!mounted).then_some(index)
    }

    /// Whether there is no scratch snapshot in `entry` of the volume.
    pub(super) fn clears(&self, entry: &Entry<'_>) -> bool {
        // A link may lead anywhere.
        entry.kind == Some(FileKind::Directory)
            && !self.suspect.contains(&entry.inode)
            && !self.nested.iter().any(|n| **n == *entry.name.as_bytes())
    }
}

fn mounted_below(directory: &File) -> io::Result<bool> {
    let path = file::path_of(directory.as_fd())?;
    Ok(has_mount(&fs::read("/proc/thread-self/mountinfo")?, &path))
}

/// Whether a mount point of `mountinfo` (proc(5)) is below `directory`.
fn has_mount(mountinfo: &[u8], directory: &Path) -> bool {
    let directory = directory.as_os_str().as_bytes();
    let directory = directory.strip_suffix(b"/").unwrap_or(directory);
    mountinfo.split(|byte| *byte == b'\n').any(|line| {
        let point = line.split(|byte| *byte == b' ').nth(4).unwrap_or_default();
        // The kernel writes some characters in another way: as if below.
        let escaped = directory.iter().any(|byte| b" \t\n\\#".contains(byte));
        !point.is_empty()
            && (escaped
                || point
                    .strip_prefix(directory)
                    .is_some_and(|rest| rest.starts_with(b"/")))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    const MOUNTINFO: &[u8] = b"\
23 28 0:21 / /sys rw,nosuid - sysfs sysfs rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 28 0:45 / /build/machines/default rw - btrfs /dev/vdb rw
91 90 0:46 /x /build/machines/default/linux-gcc rw - btrfs /dev/vdc rw
";

    #[test]
    fn what_is_mounted_below_a_directory_is_seen() {
        for (directory, below) in [
            ("/build/machines/default", true),
            ("/build/machines", true),
            ("/build/machines/default/linux-gcc", false),
            ("/build/machines/default/linux", false),
            ("/build/machine", false),
            ("/srv", false),
            ("/", true),
            ("/a b", true),
        ] {
            assert_eq!(
                has_mount(MOUNTINFO, Path::new(directory)),
                below,
                "{directory}"
            );
        }
        assert!(!has_mount(b"", Path::new("/a b")));
        assert!(!has_mount(b"\n1 2 3\n", Path::new("/")));
    }

    #[test]
    fn only_a_plain_directory_without_suspects_is_cleared() {
        let index = Index {
            suspect: vec![300],
            nested: vec![b"nested"[..].into()],
        };
        let clears = |name, kind, inode| {
            let name = OsStr::new(name);
            index.clears(&Entry { name, kind, inode })
        };
        assert!(clears("a", Some(FileKind::Directory), 257));
        assert!(!clears("a", Some(FileKind::Directory), 300));
        assert!(!clears("nested", Some(FileKind::Directory), 257));
        assert!(!clears("a", Some(FileKind::Symlink), 257));
        assert!(!clears("a", None, 257));
    }
}
