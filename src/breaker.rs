//! A circuit breaker: after several failures in a row that are ours and not the
//! package's, stop asking for work, and try with one machine now and then.
//!
//! Otherwise a host with a broken QEMU or a full disk would draw task after task
//! from its controllers and abort each of them.

use std::time::{Duration, Instant};

/// The pause before the first try with an open breaker; it doubles up to
/// [`LONGEST`].
const FIRST: Duration = Duration::from_secs(5 * 60);
/// The longest pause between tries.
const LONGEST: Duration = Duration::from_secs(3600);

/// What may be asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Work for any machine.
    Closed,
    /// Nothing, until then.
    Open(Instant),
    /// Work for one machine: the n-th try since the breaker opened.
    Try(u32),
}

/// Counts failures of ours.
#[derive(Debug)]
pub struct Breaker {
    limit: u32,
    failures: u32,
    last: String,
    retry: Option<Instant>,
}

impl Breaker {
    /// One that opens after `limit` failures in a row, and never if that is 0.
    #[must_use]
    pub fn new(limit: u32) -> Breaker {
        Breaker {
            limit,
            failures: 0,
            last: String::new(),
            retry: None,
        }
    }

    /// What may be asked for at `now`.
    #[must_use]
    pub fn gate(&self, now: Instant) -> Gate {
        match self.retry {
            None => Gate::Closed,
            Some(retry) if now < retry => Gate::Open(retry),
            Some(_) => Gate::Try(self.failures.saturating_sub(self.limit)),
        }
    }

    /// A task went through, with whatever result for the package. Says whether
    /// the breaker was open.
    pub fn succeeded(&mut self) -> bool {
        let limit = self.limit;
        std::mem::replace(self, Breaker::new(limit)).retry.is_some()
    }

    /// A task failed for a reason of ours. Says for how long nothing is asked
    /// for, if this opens the breaker or leaves it open.
    pub fn failed(&mut self, reason: &str, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        reason.clone_into(&mut self.last);
        let limit = Some(self.limit).filter(|limit| *limit > 0)?;
        let beyond = self.failures.checked_sub(limit)?;
        let pause = FIRST.saturating_mul(1 << beyond.min(8)).min(LONGEST);
        self.retry = Some(now + pause);
        Some(pause)
    }

    /// Failures in a row so far, and the reason of the last one.
    #[must_use]
    pub fn failures(&self) -> (u32, &str) {
        (self.failures, &self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 5;

    #[test]
    fn opens_at_the_limit_tries_now_and_then_and_closes_on_success() {
        let mut breaker = Breaker::new(LIMIT);
        let now = Instant::now();
        for _ in 1..LIMIT {
            assert_eq!(breaker.failed("x", now), None);
            assert_eq!(breaker.gate(now), Gate::Closed);
        }
        assert_eq!(breaker.failed("x", now), Some(FIRST));
        assert_eq!(breaker.gate(now), Gate::Open(now + FIRST));
        assert_eq!(breaker.gate(now + FIRST), Gate::Try(0));
        assert_eq!(breaker.failed("y", now), Some(FIRST * 2));
        assert_eq!(breaker.gate(now + FIRST * 2), Gate::Try(1));
        assert_eq!(breaker.failures(), (LIMIT + 1, "y"));
        assert!(breaker.succeeded());
        assert_eq!(breaker.gate(now), Gate::Closed);
    }

    #[test]
    fn a_success_starts_the_count_over() {
        let mut breaker = Breaker::new(LIMIT);
        let now = Instant::now();
        for _ in 1..LIMIT {
            let _ = breaker.failed("x", now);
        }
        assert!(!breaker.succeeded());
        assert_eq!(breaker.failed("x", now), None);
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let mut breaker = Breaker::new(0);
        for _ in 0..100 {
            assert_eq!(breaker.failed("x", Instant::now()), None);
        }
        assert_eq!(breaker.gate(Instant::now()), Gate::Closed);
    }

    #[test]
    fn pauses_have_a_limit() {
        let mut breaker = Breaker::new(LIMIT);
        let mut pause = None;
        for _ in 0..100 {
            pause = breaker.failed("x", Instant::now());
        }
        assert_eq!(pause, Some(LONGEST));
    }
}
