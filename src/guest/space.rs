//! A guest whose write found the host's disk full: it is suspended, resumed every few
//! seconds, and given up after some minutes.

use std::time::{Duration, Instant};

/// The time until the guest's write is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// The time after which the guest is given up.
const MAX_SHORTAGE: Duration = Duration::from_secs(5 * 60);

/// A guest that has run for this long without another failure has recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// The shortage of space of a guest.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// The first and the last write that found no space.
    noted: Option<(Instant, Instant)>,
    retry: Option<Instant>,
}

impl Shortage {
    /// Notes at `now` that a write found no space. Returns whether to go on waiting.
    pub(super) fn noted(&mut self, now: Instant) -> bool {
        let first = match self.noted {
            Some((first, last)) if now - last < RETRY_INTERVAL + RECOVERED_AFTER => first,
            _ => now,
        };
        self.noted = Some((first, now));
        self.retry = Some(now + RETRY_INTERVAL);
        now - first < MAX_SHORTAGE
    }

    /// The time to resume the guest.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// Whether to resume the guest at `now`; true once for each suspension.
    pub(super) fn due(&mut self, now: Instant) -> bool {
        let due = self.retry.is_some_and(|retry| now >= retry);
        if due {
            self.retry = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_resumed_until_the_shortage_has_lasted_too_long() {
        let start = Instant::now();
        let mut shortage = Shortage::default();
        let mut now = start;
        let mut resumed = 0;
        while shortage.noted(now) {
            assert!(!shortage.due(now));
            now += RETRY_INTERVAL;
            assert!(shortage.due(now) && !shortage.due(now));
            resumed += 1;
        }
        assert_eq!(resumed, MAX_SHORTAGE.as_secs() / RETRY_INTERVAL.as_secs());
    }

    #[test]
    fn a_guest_that_ran_for_a_while_starts_over() {
        let mut shortage = Shortage::default();
        let start = Instant::now();
        assert!(shortage.noted(start));
        assert!(shortage.noted(start + MAX_SHORTAGE + RECOVERED_AFTER));
    }
}
