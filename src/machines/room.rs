//! Which volumes have no room for another snapshot.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tree;
use crate::error::Result;
use crate::snapshot;
use crate::trace;
use crate::watch::{Wake, Watch};

/// How long to wait for the space of what was deleted, and how often to look.
const CLEANER: Duration = Duration::from_secs(30);
const CLEANER_POLL: Duration = Duration::from_millis(100);

/// The volumes that are short of room.
#[derive(Debug, Default)]
pub struct Low {
    /// Which.
    pub volumes: HashSet<PathBuf>,
    /// A line for each.
    pub said: Vec<String>,
}

/// The volumes of `machines` that have less room than `least`, in bytes, wants
/// of a file system of a given size.
///
/// # Errors
///
/// When the machines directory cannot be read, or a volume not be looked at any
/// more.
pub fn low(machines: &Path, least: impl Fn(u64) -> u64, watch: &Watch) -> Result<Low> {
    let mut low = Low::default();
    for volume in tree::volumes(machines)? {
        let Ok(mut space) = snapshot::space(&volume) else {
            // Whatever is wrong with it, the enumeration will say.
            continue;
        };
        let least = least(space.total);
        if space.available < least {
            await_cleaner(&volume, watch);
            space = snapshot::space(&volume)?;
        }
        if space.available < least {
            low.said.push(format!(
                "{} has {} MiB left, less than the {} MiB that are wanted",
                volume.display(),
                space.available >> 20,
                least >> 20
            ));
            low.volumes.insert(volume);
        }
    }
    Ok(low)
}

/// Waits until the kernel has given back the space of deleted subvolumes: it
/// does so in its own time, after the deletion has returned.
fn await_cleaner(volume: &Path, watch: &Watch) {
    let deadline = Instant::now() + CLEANER;
    if let Err(error) = snapshot::sync(volume) {
        trace!(3, "await_cleaner", "{error}");
    }
    // An older kernel does not say; it has begun at least.
    while let Ok(Some(1..)) = snapshot::cleaner_backlog(volume) {
        if Instant::now() >= deadline || watch.pause(CLEANER_POLL) == Wake::Signal {
            return;
        }
    }
}
