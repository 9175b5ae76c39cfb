//! Scratch snapshots whose owner is dead: nobody holds the lock on them.
//!
//! Whoever makes one holds a shared lock on the machine directory until the
//! lock on the snapshot is taken ([`crate::snapshot`]); so here the directory is
//! locked exclusively while a snapshot is judged. When that cannot be had
//! another agent is making one, and the next sweep looks again.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::error::Result;
use crate::machines::tree;
use crate::snapshot;
use crate::sys::file::open_directory;
use crate::sys::flock::{How, Locked};
use crate::trace;
use crate::warm;

/// Subvolumes among the machines, sorted.
#[derive(Default)]
pub(super) struct Found {
    /// Scratch snapshots whose owner is dead.
    pub(super) scratch: Vec<PathBuf>,
    /// Templates.
    pub(super) templates: Vec<PathBuf>,
    /// States of failed guests without evidence.
    pub(super) states: Vec<PathBuf>,
}

/// Finds the snapshots for the toolchain among the machines.
pub(super) fn find(machines: &Path, toolchain: &str) -> Found {
    let volumes = match tree::volumes(machines) {
        Ok(volumes) => volumes,
        Err(error) => {
            // The enumeration reports it.
            trace!(3, "find", "{error}");
            return Found::default();
        }
    };
    let mut found = Found::default();
    for volume in volumes {
        for name in tree::directories(&volume).unwrap_or_default() {
            let dir = volume.join(&name);
            let target = format!("{name}-{toolchain}");
            let candidates = candidates(&dir, &target);
            found.templates.extend(candidates.templates);
            let (scratch, states) = (candidates.scratch, candidates.states);
            // No lock is taken where there is nothing to judge.
            if !(scratch.is_empty() && states.is_empty())
                && let Some(_alone) = alone(&dir)
            {
                let dead = |path: &PathBuf| is_dead(path);
                found.scratch.extend(scratch.into_iter().filter(dead));
                found.states.extend(states.into_iter().filter(dead));
            }
        }
    }
    found.scratch.sort();
    found.templates.sort();
    found.states.sort();
    found
}

/// The scratch snapshots, templates and states without evidence in a machine directory. An unreadable one has
/// none: the enumeration reports it.
fn candidates(dir: &Path, target: &str) -> Found {
    let mut found = Found::default();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default();
        if snapshot::is_scratch(name, target.as_ref()) {
            found.scratch.push(path);
        } else if warm::copy_of(&path).is_some_and(|(copy, _)| copy.ends_with(target)) {
            found.templates.push(path);
        } else if snapshot::is_kept(name, target.as_ref()) && snapshot::evidence_of(&path).is_none()
        {
            found.states.push(path);
        }
    }
    found
}

/// Removes one that is still dead, and litter.
pub(super) fn remove(path: &Path, is_litter: impl Fn(&Path) -> bool) -> Result<()> {
    let Some(_alone) = path.parent().and_then(alone) else {
        return Ok(());
    };
    // Held until it is gone, so that nobody else takes it for litter meanwhile.
    match lock(path) {
        Some(_lock) if is_litter(path) => snapshot::delete(path),
        _ => Ok(()),
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
