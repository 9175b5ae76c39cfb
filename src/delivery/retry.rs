//! When to send a result again, and when to stop.

use std::time::Duration;

use super::clock::Now;
use crate::backoff::Backoff;
use crate::controller::failure::FailureClass;

/// Artifacts that could not be sent in so many attempts, which take some 20
/// minutes, no longer keep the result waiting.
const ARTIFACT_ATTEMPTS: u32 = 8;

/// How long to try, and how often.
#[derive(Clone, Copy, Debug)]
pub struct RetryLimits {
    /// How long after it handed out a task a controller takes the result.
    pub expiry: Duration,
    /// The pause after the first failure; each further one doubles it.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for RetryLimits {
    fn default() -> RetryLimits {
        RetryLimits {
            expiry: Duration::from_secs(3 * 3600),
            first_pause: Duration::from_secs(10),
            longest_pause: Duration::from_secs(600),
        }
    }
}

impl RetryLimits {
    /// Whether a result of a task of this age is of no more use to its controller.
    pub(super) fn is_expired(&self, age: Duration) -> bool {
        age > self.expiry
    }

    /// Whether the result goes without the artifacts that could not be sent: it
    /// gets the last sixth of its time for itself.
    pub(super) fn gives_up_artifacts(&self, attempts: u32, age: Duration) -> bool {
        attempts >= ARTIFACT_ATTEMPTS || age > self.expiry / 6 * 5
    }
}

/// The attempts to send one result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    backoff: Backoff,
    /// The next attempt is due then, in time since the start of the host.
    pub(super) due: Duration,
}

impl Retry {
    pub(super) fn new(limits: &RetryLimits) -> Retry {
        Retry {
            backoff: Backoff::new(limits.first_pause, limits.longest_pause),
            due: Duration::ZERO,
        }
    }

    /// Counts a failure at `now`, and puts the next attempt off.
    pub(super) fn failed(&mut self, now: Now) {
        self.due = now.uptime + self.backoff.failed();
    }

    pub(super) fn attempts(&self) -> u32 {
        self.backoff.failures()
    }
}

/// Whether a failure says that the server is out of reach, so that it is not
/// tried with another result in the same round.
pub(super) fn is_out_of_reach(class: FailureClass) -> bool {
    matches!(
        class,
        FailureClass::Name
            | FailureClass::Connect
            | FailureClass::Tls
            | FailureClass::Timeout
            | FailureClass::Setup
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_do_not_take_the_time_of_the_result() {
        let limits = RetryLimits::default();
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        for (attempts, age, gives_up) in [
            (1, minutes(1), false),
            (7, minutes(20), false),
            (8, minutes(20), true),
            (1, minutes(149), false),
            (1, minutes(151), true),
        ] {
            let found = limits.gives_up_artifacts(attempts, age);
            assert_eq!(found, gives_up, "{attempts} {age:?}");
        }
        assert!(!limits.is_expired(minutes(180)));
        assert!(limits.is_expired(minutes(181)));
    }
}
