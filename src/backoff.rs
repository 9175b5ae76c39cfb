//! Pauses between attempts that double with each failure, up to a longest one.

use std::time::Duration;

/// Counts failures in a row, and says how long to wait after each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// No failure yet. The pause after the first one is `first`; each further
    /// failure doubles it, up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            first,
            longest,
            failures: 0,
        }
    }

    /// This back-off with so many failures counted.
    pub const fn after(self, failures: u32) -> Backoff {
        Backoff { failures, ..self }
    }

    /// Counts a failure, and returns the pause before the next attempt.
    pub fn failed(&mut self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.first.saturating_mul(doubled).min(self.longest)
    }

    /// How many failures were counted.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(600));
        let pauses: Vec<_> = (0..8).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600]);
        let long: Vec<_> = (0..100).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(long, [600; 100]);
        assert_eq!(backoff.failures(), 108);
    }
}
