//! Scratch snapshots whose owner is dead: nobody holds the lock on them.
//!
//! Whoever makes one holds a shared lock on the machine directory until the
//! lock on the snapshot is taken ([`crate::snapshot`]); so here the directory is
//! locked exclusively while a snapshot is judged. When that cannot be had
//! somebody is making one just now, and the next sweep looks again.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::error::Result;
use crate::machines::tree;
use crate::snapshot;
use crate::sys::flock::{How, Locked};
use crate::trace;

/// The litter among the machines, sorted.
pub(super) fn find(machines: &Path, toolchain: &str) -> Vec<PathBuf> {
    let places = match tree::places(machines) {
        Ok(places) => places,
        Err(error) => {
            // Whoever enumerates the machines reports it.
            trace!(3, "find", "{error}");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for place in places.found {
        let target = place.bootstrapped(toolchain);
        let Some(stem) = target.file_name() else {
            continue;
        };
        let candidates = candidates(&place.dir, stem);
        // No lock is taken where there is nothing to judge.
        if !candidates.is_empty()
            && let Some(_alone) = lock(&place.dir)
        {
            found.extend(candidates.into_iter().filter(|path| is_dead(path)));
        }
    }
    found.sort();
    found
}

fn candidates(dir: &Path, stem: &OsStr) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new(); // As above, or it has gone since.
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            snapshot::is_scratch(&entry.file_name(), stem).then(|| entry.path())
        })
        .collect()
}

/// Removes one that is still dead.
pub(super) fn remove(path: &Path) -> Result<()> {
    let Some(_alone) = path.parent().and_then(lock) else {
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

/// The lock on a directory, if it is free.
fn lock(dir: &Path) -> Option<Locked> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(dir)
        .ok()?;
    Locked::take(file, How::TryExclusive).ok()
}
