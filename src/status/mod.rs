//! The activity of the agent, or the reason why it is idle: one small model, shown in
//! five places.
//!
//! The model is a [`Phase`] with its beginning and limit, the [`Subject`] it is
//! about, and the last [`Outcome`]s. [`Board`] keeps it and publishes changes
//! to a state file (read by `--status`), to systemd (`STATUS=`), to a
//! Prometheus text file, to the journal and, on a terminal, to a progress line.
//!
//! Idle turns publish nothing: enumerating and asking are shown only when they
//! take a while, and being idle again for the same reason is no change. So an
//! idle agent writes no file and its state says since when it has been idle.
//!
//! The time is an argument; `watch` reads the clocks.

mod board;
mod file;
mod laps;
mod metrics;
mod notify;
mod show;
mod state;

use std::time::{Duration, Instant};

pub use self::board::{Board, StatusSettings};
pub use self::file::{file_in, find, read};
pub use self::laps::Laps;
pub use self::notify::Notify;
pub use self::show::{json, text};
pub use self::state::{Outcome, State, Subject};

/// One instant on three clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For arithmetic within the process.
    pub instant: Instant,
    /// `CLOCK_MONOTONIC`, which other processes see as well.
    pub monotonic: Duration,
    /// Since 1970, for people.
    pub wall: Duration,
}

/// The phases of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Going through the machines.
    Enumerating,
    /// Asking the controllers.
    Asking,
    /// Waiting for the first request of a guest that was started.
    Booting,
    /// Bootstrapping a machine.
    Bootstrapping,
    /// Making the template of a machine.
    Preparing,
    /// Waiting until guests of other agents have made room.
    Waiting,
    /// Performing a task.
    Building,
    /// Waiting for a task of higher priority, with a paused guest.
    Paused,
    /// Delivering a result.
    Uploading,
    /// Keeping the memory of a failed guest (`--keep-state`).
    Saving,
    /// Keeping a suspended guest for inspection.
    Holding,
    /// Running a machine on the terminal (`--shell`).
    Shell,
    /// Running a failed guest again (`--resume`).
    Resumed,
    /// Waiting, for this reason.
    Idle(Idle),
    /// Ended in good order. After a crash the last phase stays in the file.
    Stopped,
}

/// Why the agent waits. The list is closed: these words stand in the state
/// file, in the metrics and in monitoring rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// There is no machine for the toolchain.
    NoMachines,
    /// No controller has a task.
    NoTask,
    /// Less free space than `--min-free`.
    BelowFreeSpace,
    /// No controller answered.
    ControllersDown,
    /// A guest is held for inspection.
    Held,
    /// The task cannot be performed and was given back.
    TaskDeclined,
    /// The host lacks something that guests need.
    HostNotReady,
    /// Results wait for a controller that takes them.
    ResultsWaiting,
    /// The host failed; a pause, then another turn.
    Failed,
    /// The host failed so often that no work is asked for.
    BreakerOpen,
    /// Other agents have the memory or the processors of the host.
    HostFull,
    /// Another agent performs a task of higher priority.
    HigherPriority,
    /// The operator asked for no more work.
    Drained,
}

impl Idle {
    /// Every reason.
    pub const ALL: [Idle; 13] = [
        Idle::NoMachines,
        Idle::NoTask,
        Idle::BelowFreeSpace,
        Idle::ControllersDown,
        Idle::Held,
        Idle::TaskDeclined,
        Idle::HostNotReady,
        Idle::ResultsWaiting,
        Idle::Failed,
        Idle::BreakerOpen,
        Idle::HostFull,
        Idle::HigherPriority,
        Idle::Drained,
    ];

    /// The word for programs.
    pub fn keyword(self) -> &'static str {
        match self {
            Idle::NoMachines => "no-machines",
            Idle::NoTask => "no-task",
            Idle::BelowFreeSpace => "below-free-space",
            Idle::ControllersDown => "controllers-down",
            Idle::Held => "held",
            Idle::TaskDeclined => "task-declined",
            Idle::HostNotReady => "host-not-ready",
            Idle::ResultsWaiting => "results-waiting",
            Idle::Failed => "failed",
            Idle::BreakerOpen => "breaker-open",
            Idle::HostFull => "host-full",
            Idle::HigherPriority => "higher-priority",
            Idle::Drained => "drained",
        }
    }

    /// The text for people.
    pub fn text(self) -> &'static str {
        match self {
            Idle::NoMachines => "no machines",
            Idle::NoTask => "no task",
            Idle::BelowFreeSpace => "below free space",
            Idle::ControllersDown => "controllers fail",
            Idle::Held => "held for inspection",
            Idle::TaskDeclined => "task declined",
            Idle::HostNotReady => "host not ready",
            Idle::ResultsWaiting => "results waiting",
            Idle::Failed => "last turn failed",
            Idle::BreakerOpen => "breaker open",
            Idle::HostFull => "host full",
            Idle::HigherPriority => "task of higher priority",
            Idle::Drained => "drained",
        }
    }
}

impl Phase {
    /// The words a phase can have, [`DRAINING`] included.
    pub const KEYWORDS: [&'static str; 16] = [
        "enumerating",
        "asking",
        "booting",
        "bootstrapping",
        "preparing",
        "waiting",
        "building",
        "paused",
        "uploading",
        "saving",
        "holding",
        "shell",
        "resumed",
        "idle",
        "stopped",
        DRAINING,
    ];

    /// The word for programs and people.
    pub fn keyword(self) -> &'static str {
        match self {
            Phase::Enumerating => "enumerating",
            Phase::Asking => "asking",
            Phase::Booting => "booting",
            Phase::Bootstrapping => "bootstrapping",
            Phase::Preparing => "preparing",
            Phase::Waiting => "waiting",
            Phase::Building => "building",
            Phase::Uploading => "uploading",
            Phase::Paused => "paused",
            Phase::Saving => "saving",
            Phase::Holding => "holding",
            Phase::Shell => "shell",
            Phase::Resumed => "resumed",
            Phase::Idle(_) => "idle",
            Phase::Stopped => "stopped",
        }
    }

    /// Why the agent waits, if it does.
    pub fn reason(self) -> Option<Idle> {
        match self {
            Phase::Idle(reason) => Some(reason),
            Phase::Holding => Some(Idle::Held),
            _ => None,
        }
    }

    /// Whether a guest runs in it.
    fn has_guest(self) -> bool {
        has_guest(self.keyword())
    }

    /// Whether an idle turn passes through it at once.
    fn is_fleeting(self) -> bool {
        matches!(self, Phase::Enumerating | Phase::Asking)
    }
}

/// Whether a guest runs in the phase of this word, in `work` of a state file.
pub fn has_guest(work: &str) -> bool {
    use Phase::{Booting, Bootstrapping, Building, Holding, Paused, Preparing, Resumed, Saving};
    let early = [Booting, Bootstrapping, Preparing];
    let late = [Building, Paused, Saving, Holding, Resumed];
    let phases = early.iter().chain(&late);
    { phases }.any(|phase| phase.keyword() == work)
}

/// The word in place of the phase while the agent finishes its last task.
pub const DRAINING: &str = "draining";

/// A length of time for people: `42s`, `3m07s`, `1h04m`, `2d03h`.
pub fn human(length: Duration) -> String {
    let seconds = length.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if minutes == 0 {
        format!("{seconds}s")
    } else if hours == 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else {
        format!("{days}d{:02}h", hours % 24)
    }
}

/// A number of bytes for people: `512 B`, `1.5 KiB`, `12.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // In tenths, by whole numbers; the last unit takes what is left.
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (3840, "1h04m"),
            (183_600, "2d03h"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn bytes_have_one_decimal() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (12 << 20, "12.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut words: Vec<&str> = Idle::ALL.iter().map(|reason| reason.keyword()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Idle::ALL.len());
    }
}
