//! How long ago another process did something, whatever the wall clock says.
//!
//! `CLOCK_BOOTTIME` is the same for all processes, goes on while the host is
//! suspended, and starts anew with each boot; so it goes with the name that the
//! kernel gives the boot.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Where the kernel tells the name of the boot.
const ID: &str = "/proc/sys/kernel/random/boot_id";

/// Time since the host was started.
#[must_use]
pub fn uptime() -> Duration {
    // The clock has always been there.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// The boot that we live in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its name, unless the kernel does not tell.
    pub id: Option<String>,
}

impl Boot {
    /// Asks the kernel.
    #[must_use]
    pub fn current() -> Boot {
        let id = fs::read_to_string(ID).unwrap_or_default();
        let id = id.trim();
        Boot {
            id: (!id.is_empty()).then(|| id.to_owned()),
        }
    }

    /// How old at least something is at `now` that was made at `then`, both being
    /// times since the start of the host; `boot` is the boot that `then` is of.
    /// What an earlier boot made is older than this one. Where a boot has no name
    /// nothing is known.
    #[must_use]
    pub fn age(&self, boot: Option<&str>, then: Duration, now: Duration) -> Duration {
        match (self.id.as_deref(), boot) {
            (Some(ours), Some(theirs)) if ours == theirs => now.saturating_sub(then),
            (Some(_), Some(_)) => now,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_more_than_the_time_that_has_passed() {
        let boot = Boot {
            id: Some("b".to_owned()),
        };
        let age = |boot: &Boot, of, then, now| {
            boot.age(of, Duration::from_secs(then), Duration::from_secs(now))
                .as_secs()
        };
        assert_eq!(age(&boot, Some("b"), 100, 130), 30);
        // A virtual machine that is set back.
        assert_eq!(age(&boot, Some("b"), 100, 30), 0);
        assert_eq!(age(&boot, Some("a"), 100, 30), 30);
        assert_eq!(age(&boot, None, 100, 130), 0);
        assert_eq!(age(&Boot { id: None }, Some("b"), 100, 130), 0);
        assert_eq!(Boot::current(), Boot::current());
        assert!(Boot::current().id.is_some());
    }
}
