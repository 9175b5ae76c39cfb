//! Scratch snapshots whose owner is dead: nobody holds the lock on them.
//!
//! Whoever makes one holds a shared lock on the machine directory until the
//! lock on the snapshot is taken ([`crate::snapshot`]); so here the directory is
//! locked exclusively while a snapshot is judged. When that cannot be had
//! another agent is making one, and the next sweep looks again.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

use super::index::Index;
use crate::error::Result;
use crate::machines::tree;
use crate::snapshot;
use crate::sys::entries::{Entries, Entry};
use crate::sys::file::open_directory;
use crate::sys::flock::{How, Locked};
use crate::trace;

/// The litter among the machines, sorted.
pub(super) fn find(machines: &Path, toolchain: &str) -> Vec<PathBuf> {
    let volumes = match tree::volumes(machines) {
        Ok(volumes) => volumes,
        Err(error) => {
            // Whoever enumerates the machines reports it.
            trace!(3, "find", "{error}");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    let mut entries = Entries::default();
    for volume in volumes {
        for name in suspects(&volume, &mut entries).unwrap_or_default() {
            let dir = volume.join(&name);
            let stem = format!("{name}-{toolchain}");
            let candidates = candidates(&mut entries, &dir, stem.as_ref());
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

/// The machine directories of a volume in which there may be one.
fn suspects(volume: &Path, entries: &mut Entries) -> io::Result<Vec<String>> {
    let open = open_directory(volume)?;
    let index = Index::of(&open);
    let mut found = Vec::new();
    entries.read(open.as_fd(), |entry| {
        if let Some(name) = tree::visible(&entry)
            && !index.as_ref().is_some_and(|index| index.clears(&entry))
        {
            found.push(name.to_owned());
        }
    })?;
    Ok(found)
}

fn candidates(entries: &mut Entries, dir: &Path, stem: &OsStr) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(open) = open_directory(dir) {
        let each = |entry: Entry<'_>| {
            if snapshot::is_scratch(entry.name, stem) {
                found.push(dir.join(entry.name));
            }
        };
        // As above, or it has gone since.
        let _ = entries.read(open.as_fd(), each);
    }
    found
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
