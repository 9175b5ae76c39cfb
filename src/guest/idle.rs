//! The idle limit: a guest that does nothing for that long is ended before its limit.
//!
//! An idle Linux guest still takes processor time for its timers. Emulated by QEMU 7.2,
//! Debian 12 took 0.4 to 1.1 percent of a processor in each 10 s of five minutes, but for
//! one with a burst of 4.1 percent, in which it wrote to its disk; a guest with busybox
//! only took 0.2 to 0.3 percent, and with four virtual processors 0.5 to 1.0. The limits
//! below are five times as high.

use std::time::{Duration, Instant};

use crate::machine::MachineUsage;

/// The longest interval between two samples.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// The number of samples within the limit, if it is short.
const SAMPLES: u32 = 8;

/// The maximum processor time of an idle guest, in thousandths of the time that passes:
/// for QEMU, and for each virtual processor.
const IDLE_PER_MILLE: u32 = 40;
const IDLE_PER_MILLE_AND_PROCESSOR: u32 = 20;

/// The totals of a guest: of its machine, and the last progress of a TFTP transfer.
pub(super) type GuestUsage = (MachineUsage, Option<Instant>);

/// The time in which a guest was idle.
#[derive(Debug)]
pub(super) struct IdleTimer {
    /// `None`: idle guests are not ended.
    limit: Option<Duration>,
    /// The number of virtual processors.
    processors: u32,
    next: Instant,
    last: Option<(Instant, GuestUsage)>,
    idle: Duration,
}

impl IdleTimer {
    /// A timer that begins at `now`.
    pub(super) fn new(now: Instant, limit: Option<Duration>, processors: u32) -> IdleTimer {
        IdleTimer {
            limit,
            processors,
            next: now,
            last: None,
            idle: Duration::ZERO,
        }
    }

    /// The time of the next sample.
    pub(super) fn next(&self) -> Option<Instant> {
        self.limit.map(|_| self.next)
    }

    /// Whether a sample is due at `now`.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.limit.is_some() && now >= self.next
    }

    /// Takes a sample at `now`. Returns the time in which the guest was idle if that has
    /// reached the limit.
    pub(super) fn sample(&mut self, now: Instant, usage: GuestUsage) -> Option<Duration> {
        let limit = self.limit?;
        self.next = now + (limit / SAMPLES).min(MAX_INTERVAL);
        if let Some((then, last)) = self.last.replace((now, usage)) {
            let length = now.saturating_duration_since(then);
            if self.is_idle(length, last, usage) {
                self.idle += length;
            } else {
                self.idle = Duration::ZERO;
            }
        }
        (self.idle >= limit).then_some(self.idle)
    }

    /// Leaves out the time since the last sample: the guest, or the agent, was suspended.
    pub(super) fn skip(&mut self) {
        self.last = None;
    }

    fn is_idle(&self, length: Duration, last: GuestUsage, usage: GuestUsage) -> bool {
        let per_mille = IDLE_PER_MILLE_AND_PROCESSOR
            .saturating_mul(self.processors)
            .saturating_add(IDLE_PER_MILLE);
        let (machine, transfer) = usage;
        let (before, last_transfer) = last;
        let processor = machine.processor.saturating_sub(before.processor);
        processor <= length.saturating_mul(per_mille) / 1000
            && (machine.disk, machine.console) == (before.disk, before.console)
            && transfer == last_transfer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Samples a guest that uses `usage(second)` until it is ended, or for an hour.
    fn ended_after(limit: u64, usage: impl Fn(u64) -> GuestUsage) -> Option<u64> {
        let start = Instant::now();
        let mut timer = IdleTimer::new(start, Some(SECOND * limit.try_into().unwrap()), 1);
        (0..3600).find(|second| {
            let now = start + SECOND * (*second).try_into().unwrap();
            timer.is_due(now) && timer.sample(now, usage(*second)).is_some()
        })
    }

    fn processor(time: Duration) -> GuestUsage {
        let usage = MachineUsage {
            processor: time,
            ..MachineUsage::default()
        };
        (usage, None)
    }

    #[test]
    fn a_guest_that_only_keeps_its_clock_is_ended_at_the_limit() {
        let ticking = |second| processor(Duration::from_millis(second * 50));
        assert_eq!(ended_after(600, ticking), Some(600));
        // To the next sample, which is at most 10 s later.
        assert_eq!(ended_after(605, ticking), Some(610));
    }

    #[test]
    fn any_use_of_processor_disk_or_console_and_any_transfer_starts_the_time_anew() {
        let start = Instant::now();
        let machine = |disk, console| MachineUsage {
            disk,
            console,
            ..MachineUsage::default()
        };
        let uses: [&dyn Fn(u64) -> GuestUsage; 4] = [
            &|work| processor(SECOND * work.try_into().unwrap()),
            &|work| (machine(512 * work, 0), None),
            &|work| (machine(0, work), None),
            &|work| (machine(0, 0), (work > 0).then_some(start)),
        ];
        for usage in uses {
            let once = |second: u64| usage(u64::from(second >= 500));
            assert_eq!(ended_after(600, once), Some(500 + 600));
        }
        let busy = |second| processor(Duration::from_millis(second * 70));
        assert_eq!(ended_after(600, busy), None);
    }

    #[test]
    fn time_in_which_the_guest_could_not_run_does_not_count() {
        let start = Instant::now();
        let mut timer = IdleTimer::new(start, Some(600 * SECOND), 1);
        let mut sample = |second: u64, skips: bool| {
            if skips {
                timer.skip();
            }
            let now = start + SECOND * second.try_into().unwrap();
            timer.sample(now, GuestUsage::default())
        };
        assert_eq!(sample(0, false), None);
        assert_eq!(sample(590, false), None);
        assert_eq!(sample(5000, true), None);
        assert_eq!(sample(5010, false), Some(600 * SECOND));
    }

    #[test]
    fn without_a_limit_nothing_is_sampled() {
        let start = Instant::now();
        let timer = IdleTimer::new(start, None, 1);
        assert_eq!(timer.next(), None);
        assert!(!timer.is_due(start + 9000 * SECOND));
    }
}
