//! The phases of a guest run, and how they end: values, not errors.

use std::fmt;
use std::time::Duration;

use crate::machine::Event;

/// A part of a run that has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestPhase {
    /// From boot to the first request.
    Startup,
    /// Of a guest of a template, from the answer to its request to the next of its packets.
    Restore,
    /// From the first request to the upload that is waited for.
    Work,
    /// From the power button to power off.
    Shutdown,
    /// Of an auxiliary machine, from boot to the upload of its environment.
    Environment,
    /// Of an auxiliary machine, from there to the end of the build.
    Service,
}

/// The outcome of a phase.
#[derive(Debug)]
pub enum Step<T> {
    /// The phase reached its goal.
    Done(T),
    /// Something else.
    Ended(Ended),
}

/// A phase that did not reach its goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The phase.
    pub phase: GuestPhase,
    /// Its limit.
    pub limit: Duration,
    /// The time since its start.
    pub elapsed: Duration,
    /// Why it ended.
    pub why: Why,
    /// The first request that was refused, and the reason, where it may be the cause.
    pub refused: Option<String>,
}

/// Why a phase ended before its goal was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The limit was reached.
    TimedOut,
    /// The guest was idle for so long.
    Idle(Duration),
    /// The guest ended or failed: the reason as a clause.
    Lost(String),
    /// The guest rebooted so many times, which is more than it may.
    Rebooted(u32),
    /// The guest's upload is invalid; the reason as a clause.
    Invalid(String),
    /// The host failed under the guest, for instance because its disk is full.
    Host(String),
    /// The host lost what the guest needs, and not by what the guest did.
    Surroundings(String),
    /// The agent was told to stop.
    Stopped,
    /// This agent has a task of higher priority.
    Interrupted(String),
    /// The guest of this number among those beside it ended or failed.
    Beside(usize, Box<Why>),
}

impl Why {
    /// The reason to give up a guest after `event`, if there is one.
    pub(super) fn of(event: Event) -> Option<Why> {
        match event {
            Event::Panicked => Some(Why::Lost("the guest panicked".to_owned())),
            Event::ProcessorFailed => Some(Why::Host(
                "kvm failed to execute an instruction of the guest".to_owned(),
            )),
            Event::DiskFailed { full, reason } => Some(Why::Host(if full {
                "the host's disk is full under the guest, and no space came for too long".to_owned()
            } else {
                format!("the host's disk failed under the guest ({reason})")
            })),
            Event::MonitorLost(why) => {
                Some(Why::Host(format!("the monitor of qemu was lost ({why})")))
            }
            Event::OutOfMemory(cause) => Some(Why::Host(cause.to_string())),
            Event::Exited { status, reason } => Some(Why::Lost(match reason {
                Some(reason) => format!("the {reason}"),
                None => format!("qemu ended by itself ({status})"),
            })),
            Event::Suspended
            | Event::Resumed
            | Event::Reset
            | Event::ShuttingDown(_)
            | Event::Unanswered { .. }
            | Event::Refused { .. } => None,
        }
    }
}

impl Ended {
    /// Whether the guest may have failed to boot, so that another attempt may succeed.
    pub fn never_asked(&self) -> bool {
        self.phase == GuestPhase::Startup
            && matches!(self.why, Why::TimedOut | Why::Idle(_) | Why::Lost(_))
    }

    /// Whether the fault is the host's and not the guest's.
    pub fn is_host_fault(&self) -> bool {
        matches!(self.why, Why::Host(_) | Why::Surroundings(_))
    }

    /// The advice to the operator, if there is one.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match (self.phase, &self.why) {
            (GuestPhase::Shutdown, Why::TimedOut) => Some(
                "a guest that does not answer the power button has to power itself off after its \
                 upload",
            ),
            (_, Why::Rebooted(_)) => Some("to allow more reboots: --bootstrap-reboots <num>"),
            _ => None,
        }
    }

    /// The end in one or two words, for the head of a report.
    pub fn title(&self) -> String {
        let what = match self.why {
            Why::TimedOut => "timeout",
            Why::Idle(_) => "idle timeout",
            Why::Lost(_)
            | Why::Rebooted(_)
            | Why::Invalid(_)
            | Why::Host(_)
            | Why::Surroundings(_)
            | Why::Beside(..) => "failure",
            Why::Stopped | Why::Interrupted(_) => "interrupted",
        };
        match self.phase {
            // In the words of bbot: `build timeout`, `build startup timeout`.
            GuestPhase::Work | GuestPhase::Environment | GuestPhase::Service => what.to_owned(),
            phase => format!("{phase} {what}"),
        }
    }
}

impl fmt::Display for GuestPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GuestPhase::Startup => "startup",
            GuestPhase::Restore => "restore",
            GuestPhase::Work => "work",
            GuestPhase::Shutdown => "shutdown",
            GuestPhase::Environment => "environment",
            GuestPhase::Service => "service",
        })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = match self.phase {
            GuestPhase::Startup if self.refused.is_some() => "a request of it was granted",
            GuestPhase::Startup => "it made a first request",
            GuestPhase::Restore => "it read its task",
            GuestPhase::Work => "it had uploaded its manifest",
            GuestPhase::Shutdown => "it had powered off",
            GuestPhase::Environment => "it had uploaded its environment",
            GuestPhase::Service => "the build had ended",
        };
        match &self.why {
            Why::TimedOut => {
                write!(f, "{} seconds passed before {before}", self.limit.as_secs())?;
            }
            Why::Idle(length) => write!(
                f,
                "the guest was idle for {} seconds before {before}: it used neither processor, \
                 disk, console nor TFTP",
                length.as_secs()
            )?,
            Why::Lost(how) => write!(f, "{how} before {before}")?,
            Why::Rebooted(count) => write!(f, "the guest rebooted {count} times before {before}")?,
            Why::Invalid(what) | Why::Host(what) | Why::Surroundings(what) => f.write_str(what)?,
            Why::Interrupted(agent) => write!(
                f,
                "a task of {agent} with a higher priority needed the host before {before}"
            )?,
            Why::Beside(..) => write!(f, "an auxiliary machine failed before {before}")?,
            Why::Stopped => write!(f, "the agent was told to stop before {before}")?,
        }
        match &self.refused {
            Some(refused) => write!(f, " ({refused})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(phase: GuestPhase, why: Why) -> Ended {
        Ended {
            phase,
            limit: Duration::from_secs(240),
            elapsed: Duration::from_secs(3),
            why,
            refused: None,
        }
    }

    #[test]
    fn a_sentence_says_what_was_waited_for() {
        assert_eq!(
            ended(GuestPhase::Startup, Why::TimedOut).to_string(),
            "240 seconds passed before it made a first request"
        );
        let refused = Ended {
            refused: Some("get of manifest was refused: file not found".into()),
            ..ended(GuestPhase::Startup, Why::TimedOut)
        };
        assert_eq!(
            refused.to_string(),
            "240 seconds passed before a request of it was granted (get of manifest was \
             refused: file not found)"
        );
        let idle = ended(GuestPhase::Work, Why::Idle(Duration::from_secs(601)));
        assert_eq!(idle.title(), "idle timeout");
        assert_eq!(
            idle.to_string(),
            "the guest was idle for 601 seconds before it had uploaded its manifest: it used \
             neither processor, disk, console nor TFTP"
        );
        assert_eq!(
            ended(GuestPhase::Work, Why::Lost("the guest panicked".into())).to_string(),
            "the guest panicked before it had uploaded its manifest"
        );
    }

    #[test]
    fn a_kill_for_memory_is_the_fault_of_the_host() {
        use crate::cgroup::OutOfMemory;
        let host = "the kernel killed qemu, because the host ran out of memory";
        assert_eq!(
            Why::of(Event::OutOfMemory(OutOfMemory::Host)),
            Some(Why::Host(host.to_owned()))
        );
    }

    #[test]
    fn only_a_guest_that_never_asked_is_worth_another_attempt() {
        assert!(ended(GuestPhase::Startup, Why::TimedOut).never_asked());
        assert!(ended(GuestPhase::Startup, Why::Idle(Duration::ZERO)).never_asked());
        assert!(ended(GuestPhase::Startup, Why::Lost("x".into())).never_asked());
        assert!(!ended(GuestPhase::Startup, Why::Rebooted(4)).never_asked());
        assert!(!ended(GuestPhase::Startup, Why::Stopped).never_asked());
        assert!(!ended(GuestPhase::Startup, Why::Host("x".into())).never_asked());
        assert!(!ended(GuestPhase::Work, Why::TimedOut).never_asked());
    }
}
