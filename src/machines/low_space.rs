//! Volumes without the free space for another snapshot.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::tree;
use crate::error::Result;
use crate::snapshot;
use crate::watch::{Wake, Watch};

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
            let rest = &mut |length| watch.pause(length) != Wake::Signal;
            snapshot::await_cleaner(&volume, rest);
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
