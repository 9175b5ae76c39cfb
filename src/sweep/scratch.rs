//! Scratch snapshots whose owner is dead: nobody holds the lock on them.
//!
//! Whoever makes one holds a shared lock on the machine directory until the
//! lock on the snapshot is taken ([`crate::snapshot`]); so here the directory is
//! locked exclusively while a snapshot is judged. When that cannot be had
//! somebody is making one just now, and the next sweep looks again.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::error::Result;
use crate::machines::tree;
use crate::snapshot;
use crate::sys::entries::Entries;
use crate::sys::file::open_directory;
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
    let mut entries = Entries::default();
    for place in places.found {
        let stem = format!("{}-{toolchain}", place.name);
        let candidates = candidates(&mut entries, &place.dir, stem.as_ref());
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

fn candidates(entries: &mut Entries, dir: &Path, stem: &OsStr) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(open) = open_directory(dir) {
        let each = |name: &OsStr| {
            if snapshot::is_scratch(name, stem) {
                found.push(dir.join(name));
            }
        };
        // As above, or it has gone since.
        let _ = entries.read(open.as_fd(), each);
    }
    found
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
