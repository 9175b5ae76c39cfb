//! The time limit of a phase. The time in which the guest cannot run, because the
//! host's disk is full or the agent is stopped, does not count.

use std::time::{Duration, Instant};

use super::space::Shortage;

/// The minimum time of a guest after it is resumed. QEMU retries the failed write at
/// once, and a second failure has to come before the limit.
const MIN_TIME_AFTER_RESUME: Duration = Duration::from_secs(1);

/// A limit that is under way.
#[derive(Debug)]
pub(super) struct Limit {
    /// Moved by the length of the suspension when the guest is resumed.
    deadline: Instant,
    shortage: Shortage,
    /// The start of a suspension because of a full disk.
    suspended: Option<Instant>,
}

impl Limit {
    /// A limit of `length` that begins at `now`.
    pub(super) fn new(now: Instant, length: Duration) -> Limit {
        Limit {
            deadline: now + length,
            shortage: Shortage::default(),
            suspended: None,
        }
    }

    /// Notes at `now` that the guest is suspended because a write found no space.
    /// Returns whether to go on waiting.
    pub(super) fn lacks_space(&mut self, now: Instant) -> bool {
        self.suspended.get_or_insert(now);
        self.shortage.noted(now)
    }

    /// Whether to resume the guest at `now`; true once for each suspension.
    pub(super) fn is_to_resume(&mut self, now: Instant) -> bool {
        let due = self.shortage.due(now);
        if due && let Some(since) = self.suspended.take() {
            let extended = self.deadline + now.saturating_duration_since(since);
            self.deadline = extended.max(now + MIN_TIME_AFTER_RESUME);
        }
        due
    }

    /// Notes that the agent was stopped for `length`.
    pub(super) fn was_away(&mut self, length: Duration) {
        // The time of a suspended guest does not count anyway.
        if self.suspended.is_none() {
            self.deadline += length;
        }
    }

    /// The time of the guest that is left at `now`.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let since = self.suspended.unwrap_or(now);
        self.deadline.saturating_duration_since(since)
    }

    /// Whether it is over at `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.suspended.is_none() && now >= self.deadline
    }

    /// The next event: the end, or the resumption of the guest.
    pub(super) fn next(&self) -> Instant {
        self.shortage
            .retry()
            .filter(|_| self.suspended.is_some())
            .unwrap_or(self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Has the guest lack room at `now`; when it goes on.
    fn pause(limit: &mut Limit, now: Instant) -> Instant {
        assert!(limit.lacks_space(now));
        let next = limit.next();
        assert!(next > now && !limit.is_over(next) && limit.is_to_resume(next));
        next
    }

    #[test]
    fn a_suspended_guest_has_the_rest_of_its_time_left() {
        let start = Instant::now();
        let mut limit = Limit::new(start, 10 * SECOND);
        let resumed = pause(&mut limit, start + 4 * SECOND);
        assert!(!limit.is_over(resumed + 5 * SECOND));
        assert!(limit.is_over(resumed + 6 * SECOND));
        assert_eq!(limit.next(), resumed + 6 * SECOND);
    }

    #[test]
    fn the_limit_does_not_end_while_the_guest_waits_for_space() {
        let start = Instant::now();
        let mut limit = Limit::new(start, 3 * SECOND);
        let mut now = start + 2 * SECOND;
        let mut waited = 0;
        // Each try takes a moment, and fails.
        while limit.lacks_space(now) {
            let next = limit.next();
            assert!(!limit.is_over(next) && limit.is_to_resume(next));
            assert!(!limit.is_over(next + SECOND / 20), "after {waited} tries");
            now = next + SECOND / 20;
            waited += 1;
        }
        assert!(waited > 100, "{waited}");
    }

    #[test]
    fn a_guest_that_is_resumed_keeps_its_limit() {
        let start = Instant::now();
        let mut limit = Limit::new(start, 3 * SECOND);
        let resumed = pause(&mut limit, start + 3 * SECOND);
        assert!(!limit.is_over(resumed));
        assert!(limit.is_over(resumed + MIN_TIME_AFTER_RESUME));
    }

    #[test]
    fn time_in_which_the_agent_was_stopped_counts_once() {
        let start = Instant::now();
        let mut limit = Limit::new(start, 10 * SECOND);
        limit.was_away(100 * SECOND);
        assert!(!limit.is_over(start + 109 * SECOND));
        assert!(limit.is_over(start + 110 * SECOND));

        let mut limit = Limit::new(start, 10 * SECOND);
        assert!(limit.lacks_space(start + 4 * SECOND));
        limit.was_away(100 * SECOND);
        assert!(limit.is_to_resume(start + 104 * SECOND));
        assert!(limit.is_over(start + 110 * SECOND));
    }
}
