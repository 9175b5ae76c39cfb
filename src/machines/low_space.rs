//! Volumes without the free space for another snapshot.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tree;
use crate::error::Result;
use crate::snapshot;
use crate::trace;
use crate::watch::{Wake, Watch};

/// The time for the kernel to free the space of deleted subvolumes, and the interval of
/// looks at it.
const CLEANER_TIMEOUT: Duration = Duration::from_secs(30);
const CLEANER_POLL: Duration = Duration::from_millis(100);

/// The volumes that are short of space.
#[derive(Debug, Default)]
pub struct LowVolumes {
    /// Their paths.
    pub volumes: HashSet<PathBuf>,
    /// A line for each.
    pub lines: Vec<String>,
}

/// The volumes of `machines` with less free space than `least` requires of a file system
/// of a given size, in bytes.
pub fn low(machines: &Path, least: impl Fn(u64) -> u64, watch: &Watch) -> Result<LowVolumes> {
    let mut low = LowVolumes::default();
    for volume in tree::volumes(machines)? {
        let Ok(mut space) = snapshot::space(&volume) else {
            // The enumeration reports the volume.
            continue;
        };
        let least = least(space.total);
        if space.available < least {
            await_cleaner(&volume, watch);
            space = snapshot::space(&volume)?;
        }
        if space.available < least {
            low.lines.push(format!(
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

/// Waits until the kernel has freed the space of deleted subvolumes, which it does after
/// the deletion has returned.
fn await_cleaner(volume: &Path, watch: &Watch) {
    let deadline = Instant::now() + CLEANER_TIMEOUT;
    if let Err(error) = snapshot::sync(volume) {
        trace!(3, "await_cleaner", "{error}");
    }
    // An older kernel has no figure for it; `sync` has begun the work.
    while let Ok(Some(1..)) = snapshot::cleaner_backlog(volume) {
        if Instant::now() >= deadline || watch.pause(CLEANER_POLL) == Wake::Signal {
            return;
        }
    }
}
