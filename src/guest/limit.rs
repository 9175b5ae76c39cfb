//! The time that a guest is given in a phase. What passes while it cannot run,
//! for want of room on our disk or because we were stopped ourselves, is not its
//! time.

use std::time::{Duration, Instant};

use super::room::Room;

/// The minimum time of a guest after it is resumed. QEMU retries the failed write at
/// once, and a second failure has to come before the limit.
const TRY: Duration = Duration::from_secs(1);

/// A limit that is under way.
#[derive(Debug)]
pub(super) struct Limit {
    /// Once the guest goes on, if it does not run now.
    deadline: Instant,
    room: Room,
    /// Since when it has been suspended for want of room.
    suspended: Option<Instant>,
}

impl Limit {
    /// One of `length` that begins at `now`.
    pub(super) fn new(now: Instant, length: Duration) -> Limit {
        Limit {
            deadline: now + length,
            room: Room::default(),
            suspended: None,
        }
    }

    /// Notes at `now` that the guest is suspended because a write found no
    /// space; whether to go on waiting for some.
    pub(super) fn lacks_room(&mut self, now: Instant) -> bool {
        self.suspended.get_or_insert(now);
        self.room.lacking(now)
    }

    /// Whether to resume the guest at `now`; asked once for each time.
    pub(super) fn is_to_resume(&mut self, now: Instant) -> bool {
        let due = self.room.due(now);
        if due && let Some(since) = self.suspended.take() {
            let extended = self.deadline + now.saturating_duration_since(since);
            self.deadline = extended.max(now + TRY);
        }
        due
    }

    /// Notes that nobody looked for `length`, when we were stopped.
    pub(super) fn was_away(&mut self, length: Duration) {
        // A guest that is suspended is given that time back anyway.
        if self.suspended.is_none() {
            self.deadline += length;
        }
    }

    /// Whether it is over at `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.suspended.is_none() && now >= self.deadline
    }

    /// When to look again: at the end, or to resume the guest.
    pub(super) fn next(&self) -> Instant {
        self.room
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
        assert!(limit.lacks_room(now));
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
    fn the_end_does_not_come_before_room_is_given_up() {
        let start = Instant::now();
        let mut limit = Limit::new(start, 3 * SECOND);
        let mut now = start + 2 * SECOND;
        let mut waited = 0;
        // Each try takes a moment, and fails.
        while limit.lacks_room(now) {
            let next = limit.next();
            assert!(!limit.is_over(next) && limit.is_to_resume(next));
            assert!(!limit.is_over(next + SECOND / 20), "after {waited} tries");
            now = next + SECOND / 20;
            waited += 1;
        }
        assert!(waited > 100, "{waited}");
    }

    #[test]
    fn a_guest_that_goes_on_after_a_lack_of_room_is_not_spared() {
        let start = Instant::now();
        let mut limit = Limit::new(start, 3 * SECOND);
        let resumed = pause(&mut limit, start + 3 * SECOND);
        assert!(!limit.is_over(resumed));
        assert!(limit.is_over(resumed + TRY));
    }

    #[test]
    fn time_in_which_nobody_looked_counts_once() {
        let start = Instant::now();
        let mut limit = Limit::new(start, 10 * SECOND);
        limit.was_away(100 * SECOND);
        assert!(!limit.is_over(start + 109 * SECOND));
        assert!(limit.is_over(start + 110 * SECOND));

        let mut limit = Limit::new(start, 10 * SECOND);
        assert!(limit.lacks_room(start + 4 * SECOND));
        limit.was_away(100 * SECOND);
        assert!(limit.is_to_resume(start + 104 * SECOND));
        assert!(limit.is_over(start + 110 * SECOND));
    }
}
