//! The reboots of a guest: installers reboot, and so do guests that fail in a loop.

use std::time::{Duration, Instant};

use super::Why;
use crate::machine::Purpose;
use crate::trace;

/// Resets within this time are one reboot: `SeaBIOS` resets the machine again at its start.
const ONE_REBOOT: Duration = Duration::from_secs(2);

/// The reboots of a guest.
#[derive(Debug)]
pub(super) struct Reboots {
    allowed: u32,
    pub(super) count: u32,
    /// The first reset of the last reboot.
    last: Option<Instant>,
}

impl Reboots {
    /// No reboot so far. If the purpose allows none, QEMU ends at the first one.
    pub(super) fn new(purpose: Purpose) -> Reboots {
        Reboots {
            allowed: match purpose {
                Purpose::Bootstrap { reboots } => reboots,
                Purpose::Build => 0,
            },
            count: 0,
            last: None,
        }
    }

    /// Counts a reset. Returns the reason to give up the guest if it is one reboot too many.
    pub(super) fn reset(&mut self, now: Instant) -> Option<Why> {
        if self.last.is_none_or(|last| now >= last + ONE_REBOOT) {
            self.last = Some(now);
            self.count += 1;
            let Reboots { allowed, count, .. } = self;
            trace!(
                2,
                "reset", "reboot {count} of the guest, {allowed} are allowed"
            );
        }
        (self.count > self.allowed).then_some(Why::Rebooted(self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reboot_too_many_ends_the_run() {
        let mut reboots = Reboots::new(Purpose::Bootstrap { reboots: 1 });
        let start = Instant::now();
        assert_eq!(reboots.reset(start), None);
        assert_eq!(reboots.reset(start + ONE_REBOOT / 2), None);
        assert_eq!(reboots.reset(start + ONE_REBOOT), Some(Why::Rebooted(2)));
    }

    #[test]
    fn resets_without_end_are_reboots() {
        let mut reboots = Reboots::new(Purpose::Bootstrap { reboots: 3 });
        let start = Instant::now();
        let mut resets = (0..1000).map(|n| start + n * ONE_REBOOT / 100);
        assert_eq!(
            resets.find_map(|at| reboots.reset(at)),
            Some(Why::Rebooted(4))
        );
    }
}
