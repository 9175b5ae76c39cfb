//! The resources that a machine has used so far.

use std::time::{Duration, Instant};

use super::VirtualMachine;
use super::monitor::ANSWER_TIMEOUT;
use crate::json::Value;
use crate::sys::procfs;

/// The command that asks for the transfers of all disks.
pub(super) const BLOCK_STATISTICS: &str = "query-blockstats";

/// Totals since the start of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUsage {
    /// The processor time of QEMU, with its virtual processors.
    pub processor: Duration,
    /// Bytes read from disks and written to them.
    pub disk: u64,
    /// Bytes that the guest has written to its console.
    pub console: u64,
}

impl VirtualMachine {
    /// Whether the guest's processors are stopped.
    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// The most memory that QEMU had at any time, with the page cache of its files, in
    /// bytes; `None` without a cgroup.
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        self.cgroup.as_ref()?.memory_peak()
    }

    /// The resources used so far; those of disks up to the call before, when QEMU was
    /// asked for them.
    pub fn usage(&mut self, now: Instant) -> MachineUsage {
        self.monitor.send(BLOCK_STATISTICS, now + ANSWER_TIMEOUT);
        MachineUsage {
            // A process that has ended is found out otherwise.
            processor: procfs::processor_time(self.pid()).unwrap_or_default(),
            disk: self.disk_bytes,
            console: self.console_bytes(),
        }
    }
}

/// The bytes that all disks have transferred, from the answer of QEMU.
pub(super) fn disk_bytes(answer: &Value) -> u64 {
    let disks = answer.as_array().unwrap_or_default().iter();
    let numbers = disks.flat_map(|disk| {
        let statistics = disk.get("stats");
        ["rd_bytes", "wr_bytes"].map(|name| statistics?.get(name)?.as_u64())
    });
    numbers.flatten().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transfers_of_all_disks_are_added_up() {
        let answer = "[{\"device\":\"d\",\"stats\":{\"rd_bytes\":5,\"wr_bytes\":7},\"parent\":\
                      {\"stats\":{\"rd_bytes\":100}}},{\"stats\":{\"rd_bytes\":1}},{},3]";
        assert_eq!(disk_bytes(&Value::parse(answer).unwrap()), 13);
        assert_eq!(disk_bytes(&Value::Null), 0);
    }
}
