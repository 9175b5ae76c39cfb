//! Events of a machine, from QEMU's (`qapi run-state.json`, `qapi block-core.json`).

use std::fmt;
use std::process::ExitStatus;

use crate::cgroup::OutOfMemory;
use crate::json::Value;
use crate::status;

/// Something that happened to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest's processors are stopped.
    Suspended,
    /// They run again.
    Resumed,
    /// The guest reset the machine: it reboots, or triple-faulted. QEMU goes on.
    Reset,
    /// The guest's kernel panicked; the guest is kept, suspended.
    Panicked,
    /// The accelerator could not execute an instruction; the guest is suspended.
    ProcessorFailed,
    /// A disk of the host failed under the guest, which is suspended. `full`: no space
    /// was left. [`resume`](super::VirtualMachine::resume) repeats the write.
    DiskFailed {
        /// The error was `ENOSPC`.
        full: bool,
        /// The error as QEMU words it.
        reason: String,
    },
    /// QEMU is about to end, for this reason.
    ShuttingDown(ShutdownReason),
    /// QEMU did not answer in time; it may be stuck.
    Unanswered {
        /// The command.
        command: &'static str,
    },
    /// QEMU refused a command.
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's reason.
        reason: String,
    },
    /// The monitor failed, for this reason. The process is still there.
    MonitorLost(&'static str),
    /// The kernel killed QEMU for its memory. The event before the last.
    OutOfMemory(OutOfMemory),
    /// QEMU is gone. The last event.
    Exited {
        /// How the process ended; 0 says nothing about the guest.
        status: ExitStatus,
        /// The reason that QEMU gave.
        reason: Option<ShutdownReason>,
    },
}

/// Why a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// The guest switched itself off.
    GuestShutdown,
    /// The guest rebooted, or triple-faulted.
    GuestReset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// QEMU was told to quit.
    Quit,
    /// QEMU got a signal.
    Signal,
    /// Another one.
    Other,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel killed qemu, ")?;
        match self {
            OutOfMemory::Limit(limit) => write!(
                f,
                "which had reached the memory limit of its cgroup: {}, the guest's memory, a \
                 quarter of it and 2 GiB",
                status::bytes(*limit)
            ),
            OutOfMemory::Around(cgroup, limit) => write!(
                f,
                "because {} had reached its memory limit (MemoryMax=): {}",
                cgroup.file_name().unwrap_or_default().display(),
                status::bytes(*limit)
            ),
            OutOfMemory::Host => f.write_str("because the host ran out of memory"),
        }
    }
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ShutdownReason::GuestShutdown => "guest powered off",
            ShutdownReason::GuestReset => "guest rebooted",
            ShutdownReason::GuestPanic => "guest panicked",
            ShutdownReason::Quit => "forced down",
            ShutdownReason::Signal => "qemu ended by a signal",
            ShutdownReason::Other => "ended by qemu",
        })
    }
}

/// The event of QEMU of that name, if the agent needs it.
pub fn event(name: &str, data: &Value) -> Option<Event> {
    match name {
        "STOP" => Some(Event::Suspended),
        "RESUME" => Some(Event::Resumed),
        "GUEST_PANICKED" => Some(Event::Panicked),
        "RESET" if data.get("guest").and_then(Value::as_bool) == Some(true) => Some(Event::Reset),
        "BLOCK_IO_ERROR" => {
            // By the options of its machine the guest handles other errors itself.
            if data.get("action").and_then(Value::as_str) != Some("stop") {
                return None;
            }
            let full = data.get("nospace").and_then(Value::as_bool);
            let reason = data.get("reason").and_then(Value::as_str);
            Some(Event::DiskFailed {
                full: full.unwrap_or(false),
                reason: reason.unwrap_or("unknown").chars().take(200).collect(),
            })
        }
        "SHUTDOWN" => {
            let reason = data.get("reason").and_then(Value::as_str);
            Some(Event::ShuttingDown(match reason {
                Some("guest-shutdown") => ShutdownReason::GuestShutdown,
                Some("guest-reset") => ShutdownReason::GuestReset,
                Some("guest-panic") => ShutdownReason::GuestPanic,
                Some("host-qmp-quit") => ShutdownReason::Quit,
                Some("host-signal") => ShutdownReason::Signal,
                _ => ShutdownReason::Other,
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, data: &str) -> Option<Event> {
        event(name, &Value::parse(data).unwrap())
    }

    #[test]
    fn a_kill_for_memory_has_the_limit_that_was_reached() {
        let own = OutOfMemory::Limit(7 << 29).to_string();
        assert!(own.contains("limit of its cgroup: 3.5 GiB"), "{own}");
        let service = "/sys/fs/cgroup/system.slice/bbot-agent@default.service";
        let around = OutOfMemory::Around(service.into(), 1 << 30).to_string();
        assert_eq!(
            around,
            "the kernel killed qemu, because bbot-agent@default.service had reached its memory \
             limit (MemoryMax=): 1.0 GiB"
        );
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let data = |nospace, action| {
            format!(
                "{{\"device\":\"disk0\",\"nospace\":{nospace},\"operation\":\"write\",\
                 \"action\":\"{action}\",\"reason\":\"why\"}}"
            )
        };
        for full in [true, false] {
            assert_eq!(
                of("BLOCK_IO_ERROR", &data(full, "stop")),
                Some(Event::DiskFailed {
                    full,
                    reason: "why".into()
                })
            );
        }
        assert_eq!(of("BLOCK_IO_ERROR", &data(true, "report")), None);
    }

    #[test]
    fn the_reason_of_the_end_is_the_monitors() {
        let reason = |text| {
            of(
                "SHUTDOWN",
                &format!("{{\"guest\":true,\"reason\":\"{text}\"}}"),
            )
        };
        assert_eq!(
            reason("guest-reset"),
            Some(Event::ShuttingDown(ShutdownReason::GuestReset))
        );
        assert_eq!(
            reason("new-in-qemu-99"),
            Some(Event::ShuttingDown(ShutdownReason::Other))
        );
    }

    #[test]
    fn a_reset_by_the_guest_is_a_reboot() {
        let data = |guest| format!("{{\"guest\":{guest},\"reason\":\"why\"}}");
        assert_eq!(of("RESET", &data(true)), Some(Event::Reset));
        assert_eq!(of("RESET", &data(false)), None);
    }

    #[test]
    fn events_of_no_interest_are_no_events() {
        assert_eq!(of("RTC_CHANGE", "{\"offset\":1}"), None);
        assert_eq!(of("POWERDOWN", "null"), None);
    }
}
