//! Scratch snapshots whose owner is dead: nobody holds the lock on them.
//!
//! Whoever makes one holds a shared lock on the machine directory until the
//! lock on the snapshot is taken ([`crate::snapshot`]); so here the directory is
//! locked exclusively while a snapshot is judged. When that cannot be had
//! another agent is making one, and the next sweep looks again.

use std::fs::{self, DirEntry, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::error::Result;
use crate::machines::tree;
use crate::snapshot;
use crate::sys::file::open_directory;
use crate::sys::flock::{How, Locked};
use crate::trace;

/// The litter among the machines, sorted.
pub(super) fn find(machines: &Path, toolchain: &str) -> Vec<PathBuf> {
    let volumes = match tree::volumes(machines) {
        Ok(volumes) => volumes,
        Err(error) => {
            // The enumeration reports it.
            trace!(3, "find", "{error}");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for volume in volumes {
        for name in tree::directories(&volume).unwrap_or_default() {
            let dir = volume.join(&name);
            let candidates = candidates(&dir, &format!("{name}-{toolchain}"));
            // No lock is taken where there is nothing to judge.
            if !candidates.is_empty()
                && let Some(_alone) = alone(&dir)
            {
                found.extend(candidates.into_iter().filter(|path| is_dead(path)));
            }
        }
    }
    found.sort();
    found
}

/// The scratch snapshots in a machine directory. An unreadable one has none: the
/// enumeration reports it.
fn candidates(dir: &Path, target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_scratch = |entry: &DirEntry| snapshot::is_scratch(&entry.file_name(), target.as_ref());
    entries
        .filter(is_scratch)
        .map(|entry| entry.path())
        .collect()
}

/// Removes one that is still dead.
pub(super) fn remove(path: &Path) -> Result<()> {
    let Some(_alone) = path.parent().and_then(alone) else {
        return Ok(());
    };
    // Held until it is gone, so that nobody else takes it for litter meanwhile.
    match lock(path) {
        Some(_lock) => snapshot::delete(path),
        None => Ok(()),
    }
}

/// Whether `path` is a subvolume that nobody has locked.
pub(super) fn is_dead(path: &Path) -> bool {
    matches!(snapshot::is_subvolume(path), Ok(true)) && lock(path).is_some()
}

/// The lock on a machine directory, which may be a link to one, if it is free.
fn alone(dir: &Path) -> Option<Locked> {
    Locked::take(open_directory(dir).ok()?, How::TryExclusive).ok()
}

/// The lock on a snapshot, if it is free.
fn lock(snapshot: &Path) -> Option<Locked> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(snapshot)
        .ok()?;
    Locked::take(file, How::TryExclusive).ok()
}
