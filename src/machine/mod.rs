//! A running virtual machine: a QEMU process, its monitor, its console.
//!
//! [`VirtualMachine::start`] returns when the guest runs. From then on the caller polls
//! [`VirtualMachine::fds`] next to its own descriptors, not past
//! [`VirtualMachine::deadline`], and calls [`VirtualMachine::handle`] until it returns `None`.
//! Requests ([`power_down`](VirtualMachine::power_down), [`suspend`](VirtualMachine::suspend),
//! [`resume`](VirtualMachine::resume)) do not wait; their outcome is an [`Event`]. The
//! last event is always [`Event::Exited`].
//!
//! QEMU's exit status is 0 after a signal, a reboot and a power off alike, so the
//! reason is taken from the monitor's `SHUTDOWN`.

pub mod accel;
pub mod by_hand;
pub mod capture;
mod clock;
mod devices;
pub mod events;
pub mod files;
pub mod firmware;
pub mod inspect;
pub mod memory;
pub mod monitor;
pub mod options;
pub mod program;
pub mod qemu;
pub mod record;
mod save;
mod script;
mod start;
pub mod tpm;
mod usage;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cgroup::GuestCgroup;
use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::json::Value;
use crate::sys::poll;
use crate::sys::process::Process;
use crate::sys::tree::remove_tree;

pub use accel::Accel;
pub use events::{Event, ShutdownReason};
pub use memory::Memory;
pub use qemu::{Purpose, Spec};
pub use usage::MachineUsage;

use capture::Capture;
use inspect::Inspection;
use monitor::{ANSWER_TIMEOUT, Monitor, Said};
use tpm::Tpm;

/// The interval of requests to power off. A guest that boots ignores them.
const POWER_DOWN_EVERY: Duration = Duration::from_secs(1);

/// The time for QEMU to quit before it is killed.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time for the kernel to end a killed QEMU. A longer time means that QEMU waits
/// for a disk.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the console's log in a machine's run directory.
pub const CONSOLE_LOG: &str = "console.log";

/// The run directory of the guest of an auxiliary machine, numbered from 1, of the agent
/// with the run directory `agent`.
#[must_use]
pub fn auxiliary_run_dir(agent: &Path, number: usize) -> PathBuf {
    agent.join(format!("{AUXILIARY_PREFIX}{number}"))
}

/// The start of the name of such a directory.
pub const AUXILIARY_PREFIX: &str = "auxiliary-";

/// The lines of the console that are evidence: a Linux kernel that panics writes its
/// reason some 40 lines above its last one.
const CONSOLE_LINES: usize = 50;

/// The lines of QEMU's messages that are evidence.
const EVIDENCE_LINES: usize = 20;

/// A QEMU process; killed and reaped when this value is dropped.
#[derive(Debug)]
pub struct VirtualMachine {
    label: String,
    /// Virtual processors.
    cpus: u32,
    process: Process,
    /// The TPM. It is dropped after QEMU, which has its state stored first.
    tpm: Option<Tpm>,
    /// Their cgroup, which is removed after them.
    cgroup: Option<GuestCgroup>,
    monitor: Monitor,
    console: Capture,
    stderr: Capture,
    queue: VecDeque<Event>,
    /// The time of the next request to power off.
    power_down: Option<Instant>,
    /// The guest's processors are stopped, by a request or after a failure.
    suspended: bool,
    /// The guest stopped, and QEMU was not asked for the reason yet.
    is_status_due: bool,
    shutdown: Option<ShutdownReason>,
    exited: Option<ExitStatus>,
    /// QEMU was killed and has not ended in time.
    stuck: bool,
    /// The bytes that the disks had transferred when QEMU was last asked.
    disk_bytes: u64,
    /// QEMU was asked for the state of a guest that failed.
    inspection: Option<Inspection>,
    /// The file with the state of the devices.
    state: Option<File>,
    /// The port of a guest agent.
    agent: Option<OwnedFd>,
    has_agent: bool,
    /// The version of QEMU.
    version: String,
    files: Files,
}

/// The files of a machine in its run directory. The sockets go with this value.
#[derive(Debug)]
struct Files {
    vnc: PathBuf,
    /// The descriptor of its directory in QEMU's process.
    vnc_directory: RawFd,
    operator: PathBuf,
    console: PathBuf,
    script: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        for socket in [&self.vnc, &self.operator] {
            // QEMU that quits has removed its own socket.
            let _ = fs::remove_file(socket);
        }
        if let Some(directory) = self.vnc.parent() {
            // QEMU's user can write to it, and may have made more than the socket.
            let _ = remove_tree(directory);
        }
    }
}

impl VirtualMachine {
    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The descriptors to poll for reading; they change with every call of
    /// [`VirtualMachine::handle`]. None when QEMU is gone.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        if self.exited.is_some() {
            return Vec::new();
        }
        let streams = [self.monitor.fd(), self.console.fd(), self.stderr.fd()];
        let mut fds = vec![self.process.as_fd()];
        fds.extend(streams.into_iter().flatten());
        fds
    }

    /// The time to call [`VirtualMachine::handle`] even if nothing is readable.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.exited.is_some() {
            return None;
        }
        [self.power_down, self.monitor.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Reads what is there, does what is due at `now`, and returns the next event. Does
    /// not wait.
    pub fn handle(&mut self, now: Instant) -> Option<Event> {
        if self.queue.is_empty() && self.exited.is_none() {
            self.console.read();
            self.stderr.read();
            self.listen();
            self.do_what_is_due(now);
            self.look_for_the_end();
        }
        self.queue.pop_front()
    }

    /// Returns whether QEMU said anything.
    fn listen(&mut self) -> bool {
        let all = self.monitor.read();
        let any = !all.is_empty();
        for said in all {
            self.hear(said);
        }
        any
    }

    fn hear(&mut self, said: Said) {
        let Some(said) = self.note_answer(said) else {
            return;
        };
        match said {
            // There is no other port with an id (qapi `char.json`).
            Said::Event(name, data) if name == "VSERPORT_CHANGE" => {
                self.has_agent = data.get("open").and_then(Value::as_bool) == Some(true);
            }
            Said::Event(name, data) => self.note(events::event(&name, &data)),
            // `internal-error`: KVM could not execute an instruction (run-state.json).
            Said::Done("query-status", value)
                if value.get("status").and_then(Value::as_str) == Some("internal-error") =>
            {
                self.queue.push_back(Event::ProcessorFailed);
            }
            Said::Done(usage::BLOCK_STATISTICS, value) => {
                self.disk_bytes = usage::disk_bytes(&value);
            }
            Said::Refused(command, reason) => {
                self.queue.push_back(Event::Refused { command, reason });
            }
            // A QEMU that exits closes its monitor first; if it lives on, it
            // can still be killed.
            Said::Lost(why) if why != monitor::CLOSED => {
                self.queue.push_back(Event::MonitorLost(why));
            }
            Said::Greeting(_) | Said::Done(..) | Said::Lost(_) => {}
        }
    }

    fn note(&mut self, event: Option<Event>) {
        match &event {
            Some(Event::Suspended) => {
                self.suspended = true;
                self.is_status_due = true;
            }
            Some(Event::Resumed) => self.suspended = false,
            Some(Event::ShuttingDown(reason)) => self.shutdown = Some(*reason),
            _ => {}
        }
        self.queue.extend(event);
    }

    fn do_what_is_due(&mut self, now: Instant) {
        while let Some(command) = self.monitor.overdue(now) {
            self.queue.push_back(Event::Unanswered { command });
        }
        if std::mem::take(&mut self.is_status_due) {
            self.monitor.send("query-status", now + ANSWER_TIMEOUT);
        }
        if self.power_down.is_some_and(|next| next <= now) {
            if self.suspended {
                // A stopped guest does not notice the power button.
                self.monitor.send("cont", now + ANSWER_TIMEOUT);
            }
            self.monitor.send("system_powerdown", now + ANSWER_TIMEOUT);
            self.power_down = Some(now + POWER_DOWN_EVERY);
        }
    }

    fn look_for_the_end(&mut self) {
        // The only error is that the process is not a child of the agent.
        let Ok(Some(status)) = self.process.try_wait() else {
            return;
        };
        // The last output is still in the sockets; the guest cannot add to it.
        while self.listen() {}
        while self.console.read() {}
        while self.stderr.read() {}
        self.exited = Some(status);
        let killed = self.cgroup.as_ref().and_then(GuestCgroup::out_of_memory);
        self.queue.extend(killed.map(Event::OutOfMemory));
        let reason = self.shutdown;
        self.queue.push_back(Event::Exited { status, reason });
    }

    /// Asks the guest to power off, and again every second until it has.
    /// Resumes it if it is suspended.
    pub fn power_down(&mut self, now: Instant) {
        if self.power_down.is_none() {
            self.power_down = Some(now);
            self.do_what_is_due(now);
        }
    }

    /// Asks QEMU to stop the guest's processors, so that it can be looked at:
    /// [`Event::Suspended`]. A guest that was asked to power off is no longer.
    pub fn suspend(&mut self, now: Instant) {
        self.power_down = None;
        self.monitor.send("stop", now + ANSWER_TIMEOUT);
    }

    /// Asks QEMU to let a suspended guest go on: [`Event::Resumed`].
    pub fn resume(&mut self, now: Instant) {
        self.monitor.send("cont", now + ANSWER_TIMEOUT);
    }

    /// Why QEMU ends or has ended, if it has said so.
    #[must_use]
    pub fn shutdown(&self) -> Option<ShutdownReason> {
        self.shutdown
    }

    /// How QEMU ended, if it has.
    #[must_use]
    pub fn exited(&self) -> Option<ExitStatus> {
        self.exited
    }

    /// Tells QEMU to quit, whatever the guest does, and does not wait for it.
    pub fn quit(&mut self, now: Instant) {
        self.power_down = None;
        self.monitor.send("quit", now + QUIT_TIMEOUT);
    }

    /// Ends QEMU, whatever the guest does: it is told to quit, and killed after 2 s.
    /// The guest cannot write its data. Evidence is still there afterwards.
    ///
    /// # Errors
    ///
    /// QEMU is still there 10 s after the kill: the kernel waits for a disk.
    pub fn force_down(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        self.power_down = None;
        self.monitor.send("quit", start + QUIT_TIMEOUT);
        let mut killed = false;
        loop {
            let now = Instant::now();
            while self.handle(now).is_some() {}
            if let Some(status) = self.exited {
                return Ok(status);
            }
            if !killed && (now >= start + QUIT_TIMEOUT || self.monitor.fd().is_none()) {
                self.process
                    .signal(Signal::SIGKILL)
                    .context(|| format!("unable to kill {}", self.title()))?;
                killed = true;
            }
            if now >= start + QUIT_TIMEOUT + KILL_TIMEOUT {
                self.stuck = true;
                return Err(
                    Error::new(format!("unable to end {}", self.title())).hint(format!(
                        "it was killed; the kernel shows what it waits for in /proc/{}/stack",
                        self.pid()
                    )),
                );
            }
            let until = if killed {
                start + QUIT_TIMEOUT + KILL_TIMEOUT
            } else {
                start + QUIT_TIMEOUT
            };
            let fds = self.fds();
            poll::readable(&fds, &mut vec![false; fds.len()], Some(until))
                .context(|| format!("unable to wait for {}", self.title()))?;
        }
    }

    /// Removes what was made for the process. It was forced down before.
    ///
    /// # Errors
    ///
    /// When its cgroup cannot be removed.
    pub fn close(mut self) -> Result<()> {
        let cgroup = self.cgroup.take();
        drop(self);
        cgroup.map_or(Ok(()), GuestCgroup::close)
    }

    fn title(&self) -> String {
        format!("machine {} (pid {})", self.label, self.pid())
    }

    /// The ways for an operator to a guest that is held.
    pub fn ways_in(&self) -> [String; 2] {
        [
            format!("vnc socket {}", self.files.vnc.display()),
            format!("qmp socket {}", self.files.operator.display()),
        ]
    }

    /// The evidence of a failure: lines that are safe for a terminal and for a log.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        let mut lines = vec![match (self.exited, self.suspended) {
            (Some(status), _) => format!("qemu (pid {}) has ended: {status}", self.pid()),
            (None, true) => format!("qemu pid {}, guest suspended", self.pid()),
            (None, false) => format!("qemu pid {}", self.pid()),
        }];
        if let Some(tpm) = &self.tpm {
            lines.push(format!("swtpm pid {}", tpm.pid()));
        }
        let script = self.files.script.display();
        lines.push(format!("to start it by hand: sh {script}"));
        let console = self.console.tail();
        let log = self.files.console.display();
        quote(
            &mut lines,
            &format!("console, {} bytes in all ({log})", console.total()),
            &console.lines(CONSOLE_LINES),
        );
        quote(
            &mut lines,
            "messages of qemu",
            &self.stderr.tail().lines(EVIDENCE_LINES),
        );
        lines
    }
}

fn quote(lines: &mut Vec<String>, title: &str, quoted: &[String]) {
    if quoted.is_empty() {
        lines.push(format!("{title}: nothing"));
        return;
    }
    lines.push(format!("{title}:"));
    lines.extend(quoted.iter().map(|line| format!("| {line}")));
}

impl Drop for VirtualMachine {
    fn drop(&mut self) {
        // A failed attempt is not repeated.
        if self.exited.is_none()
            && !self.stuck
            && let Err(error) = self.force_down()
        {
            diag::warning(&error).emit();
        }
    }
}
