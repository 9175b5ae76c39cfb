//! A circuit breaker: after several host faults in a row the agent stops asking
//! for work, and tries with one machine at intervals.
//!
//! Otherwise a host with a broken QEMU or a full disk would take task after task
//! from its controllers and perform none of them.

use std::time::Duration;

use crate::backoff::Backoff;

/// The pause before the first try with an open breaker, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The work that may be asked for now. Times are times since the start of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Work for any machine.
    Closed,
    /// Nothing, until then.
    Open(Duration),
    /// Work for one machine.
    Try,
}

/// Counts host faults in a row.
#[derive(Debug)]
pub struct Breaker {
    limit: u32,
    faults: u32,
    last: String,
    open: Backoff,
    retry: Option<Duration>,
}

impl Breaker {
    /// A breaker that opens after `limit` faults in a row, and never if that is 0.
    pub fn new(limit: u32) -> Breaker {
        Breaker {
            limit,
            faults: 0,
            last: String::new(),
            open: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            retry: None,
        }
    }

    /// The work that may be asked for at `now`.
    pub fn gate(&self, now: Duration) -> Gate {
        match self.retry {
            None => Gate::Closed,
            Some(retry) if now < retry => Gate::Open(retry),
            Some(_) => Gate::Try,
        }
    }

    /// Counts a task that the host could perform, whatever its result. Returns
    /// whether the breaker was open.
    pub fn succeeded(&mut self) -> bool {
        let limit = self.limit;
        std::mem::replace(self, Breaker::new(limit)).retry.is_some()
    }

    /// Counts a host fault. If the breaker is open now, returns how long no work
    /// is asked for.
    pub fn failed(&mut self, reason: &str, now: Duration) -> Option<Duration> {
        self.faults = self.faults.saturating_add(1);
        reason.clone_into(&mut self.last);
        if self.limit == 0 || self.faults < self.limit {
            return None;
        }
        let pause = self.open.failed();
        self.retry = Some(now + pause);
        Some(pause)
    }

    /// The number of faults in a row so far, and the reason of the last one.
    pub fn faults(&self) -> (u32, &str) {
        (self.faults, &self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 5;

    #[test]
    fn opens_at_the_limit_tries_now_and_then_and_closes_on_success() {
        let mut breaker = Breaker::new(LIMIT);
        let now = Duration::from_secs(7);
        for _ in 1..LIMIT {
            assert_eq!(breaker.failed("x", now), None);
            assert_eq!(breaker.gate(now), Gate::Closed);
        }
        assert_eq!(breaker.failed("x", now), Some(FIRST_PAUSE));
        assert_eq!(breaker.gate(now), Gate::Open(now + FIRST_PAUSE));
        assert_eq!(breaker.gate(now + FIRST_PAUSE), Gate::Try);
        assert_eq!(breaker.failed("y", now), Some(FIRST_PAUSE * 2));
        assert_eq!(breaker.gate(now + FIRST_PAUSE * 2), Gate::Try);
        assert_eq!(breaker.faults(), (LIMIT + 1, "y"));
        assert!(breaker.succeeded());
        assert_eq!(breaker.gate(now), Gate::Closed);
    }

    #[test]
    fn a_success_starts_the_count_over() {
        let mut breaker = Breaker::new(LIMIT);
        let now = Duration::from_secs(7);
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
            assert_eq!(breaker.failed("x", Duration::ZERO), None);
        }
        assert_eq!(breaker.gate(Duration::ZERO), Gate::Closed);
    }

    #[test]
    fn pauses_have_a_limit() {
        let mut breaker = Breaker::new(LIMIT);
        let mut pause = None;
        for _ in 0..100 {
            pause = breaker.failed("x", Duration::ZERO);
        }
        assert_eq!(pause, Some(LONGEST_PAUSE));
    }
}
