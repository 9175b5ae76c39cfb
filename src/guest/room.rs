//! A guest whose disk the host has no room for: suspended, resumed every few
//! seconds, and given up if that does not help for a while.

use std::time::{Duration, Instant};

/// How long to wait before the guest's write is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// For how long to do so.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// A guest that went on for so long has got its room.
const CALM: Duration = Duration::from_secs(30);

/// How it stands with a guest.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// When it first lacked space, and when it last did.
    lacking: Option<(Instant, Instant)>,
    retry: Option<Instant>,
}

impl Room {
    /// Notes at `now` that a write found no space; whether to go on waiting.
    pub(super) fn lacking(&mut self, now: Instant) -> bool {
        let first = match self.lacking {
            Some((first, last)) if now - last < PAUSE + CALM => first,
            _ => now,
        };
        self.lacking = Some((first, now));
        self.retry = Some(now + PAUSE);
        now - first < PATIENCE
    }

    /// When to resume the guest.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// Whether to resume it at `now`; asked once for each time.
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
    fn a_guest_is_resumed_until_patience_is_over() {
        let start = Instant::now();
        let mut room = Room::default();
        let mut now = start;
        let mut resumed = 0;
        while room.lacking(now) {
            assert!(!room.due(now));
            now += PAUSE;
            assert!(room.due(now) && !room.due(now));
            resumed += 1;
        }
        assert_eq!(resumed, PATIENCE.as_secs() / PAUSE.as_secs());
    }

    #[test]
    fn one_that_went_on_for_a_while_starts_over() {
        let mut room = Room::default();
        let start = Instant::now();
        assert!(room.lacking(start));
        assert!(room.lacking(start + PATIENCE + CALM));
    }
}
