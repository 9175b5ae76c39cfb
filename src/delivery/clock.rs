//! Ages of tasks, across restarts of the agent and whatever the wall clock says.
//!
//! `CLOCK_BOOTTIME` is the same for all processes, goes on while the host is
//! suspended, and starts anew with each boot; so a time on it goes with the id
//! that the kernel gives the boot.

use std::fs;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::json::Value;

/// The file with the id of the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The present time, as deliveries need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Time since the start of the host. Everything is decided by it.
    pub uptime: Duration,
    /// Time since 1970, for file names and for people.
    pub wall: Duration,
}

impl Now {
    /// Reads the clocks.
    pub fn read() -> Now {
        let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Now {
            // Linux has had the clock since 2.6.39.
            uptime: uptime.unwrap_or_default(),
            wall: wall.unwrap_or_default(),
        }
    }
}

/// When something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Seconds since 1970.
    pub wall: u64,
    /// The id of the boot in which it happened, if it was known.
    pub boot: Option<String>,
    /// Seconds from the start of that boot.
    pub uptime: u64,
}

impl Stamp {
    /// The present time in the present boot.
    pub fn new(now: Now, boot: &Boot) -> Stamp {
        Stamp {
            wall: now.wall.as_secs(),
            boot: boot.0.clone(),
            uptime: now.uptime.as_secs(),
        }
    }

    pub(super) fn to_json(&self) -> [(&'static str, Value); 3] {
        [
            ("at", self.wall.into()),
            ("boot", self.boot.as_deref().into()),
            ("uptime", self.uptime.into()),
        ]
    }

    /// A missing value makes nothing older than it is.
    pub(super) fn from_json(value: &Value) -> Stamp {
        let number = |name| value.get(name).and_then(Value::as_u64);
        Stamp {
            // Version 0.1.0 had the time of storing in its stored results.
            wall: number("at").or_else(|| number("stored")).unwrap_or(0),
            boot: value.get("boot").and_then(Value::as_str).map(str::to_owned),
            uptime: number("uptime").unwrap_or(0),
        }
    }
}

/// The id of a boot, unless the kernel does not tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot(pub Option<String>);

impl Boot {
    /// Asks the kernel.
    pub fn current() -> Boot {
        let id = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let id = id.trim();
        Boot((!id.is_empty()).then(|| id.to_owned()))
    }

    /// The least age of `stamp` in this boot. Anything of an earlier boot is older
    /// than this boot. If the id of either boot is unknown, so is the age, which
    /// is zero then.
    pub fn age(&self, stamp: &Stamp, now: Now) -> Duration {
        match (&self.0, &stamp.boot) {
            (Some(this), Some(that)) if this == that => {
                now.uptime.saturating_sub(Duration::from_secs(stamp.uptime))
            }
            (Some(_), Some(_)) => now.uptime,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_more_than_the_time_that_has_passed() {
        let known = Boot(Some("b".to_owned()));
        let age = |boot: &Boot, of: Option<&str>, then, now| {
            let stamp = Stamp {
                wall: 0,
                boot: of.map(str::to_owned),
                uptime: then,
            };
            let now = Now {
                uptime: Duration::from_secs(now),
                wall: Duration::ZERO,
            };
            boot.age(&stamp, now).as_secs()
        };
        assert_eq!(age(&known, Some("b"), 100, 130), 30);
        // A virtual machine that was set back.
        assert_eq!(age(&known, Some("b"), 100, 30), 0);
        assert_eq!(age(&known, Some("a"), 100, 30), 30);
        assert_eq!(age(&known, None, 100, 130), 0);
        assert_eq!(age(&Boot(None), Some("b"), 100, 130), 0);
        assert_eq!(Boot::current(), Boot::current());
        assert!(Boot::current().0.is_some());
    }
}
