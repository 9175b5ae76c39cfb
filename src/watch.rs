//! Signals, the watchdog and the progress line during every wait of the agent.
//!
//! The agent is one thread that waits in a few places (the guest's TFTP
//! requests, a controller's answer, the pause between turns). Each of them
//! polls [`Watch::fd`] next to its own descriptors, never waits past
//! [`Watch::until`], and calls [`Watch::tick`] when it wakes. So a signal is an
//! event in a poll loop, the stack unwinds, and guards clean up.
//!
//! The watch also has the [`status`](crate::status): each phase begins with
//! [`Watch::enter`], and a wait between turns has a reason ([`Watch::idle`]).
//! [`Watch::report`] sets where they are published.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use crate::diag;
use crate::error::{Context as _, Result};
use crate::status::{Board, Idle, Moment, Outcome, Phase, StatusSettings, Subject};
use crate::sys::poll::{self, Waited};
use crate::sys::process;
use crate::sys::signal::Signals;

/// The request of the operator by a signal, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// `SIGUSR1`: finish the task under way, take no more, exit 0.
    Drain,
    /// `SIGHUP`: finish the task under way, upload its result, exit 3.
    Restart,
    /// `SIGTERM`, `SIGINT`: stop what is under way, clean up, exit 0.
    Terminate,
    /// A second `SIGTERM` or `SIGINT`: do not wait for anything any more.
    Hurry,
}

/// The time after which a reader of standard error that was behind is tried again.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// How a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The time has passed.
    Deadline,
    /// A signal came in.
    Signal,
}

/// A handle to the one watch of the process; clones share it.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    signals: Signals,
    stop: Mutex<Option<Stop>>,
    /// `SIGUSR2`: what failed is to be tried again at once.
    retry: AtomicBool,
    /// The end of the time in which a first request to stop is ignored.
    grace: Mutex<Option<Instant>>,
    board: Mutex<Board>,
}

/// The present instant on all clocks.
pub fn moment() -> Moment {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    Moment {
        instant: Instant::now(),
        // Both clocks have always been there, and it is later than 1970.
        monotonic: monotonic.unwrap_or_default(),
        wall: wall.unwrap_or_default(),
    }
}

impl Watch {
    /// Starts to watch: from here on the signals are no longer fatal.
    pub fn start() -> Result<Watch> {
        let signals = Signals::open().context(|| "unable to watch for signals")?;
        Ok(Watch(Arc::new(Shared {
            signals,
            stop: Mutex::new(None),
            retry: AtomicBool::new(false),
            grace: Mutex::new(None),
            board: Mutex::new(Board::new(moment())),
        })))
    }

    fn stop_mut(&self) -> MutexGuard<'_, Option<Stop>> {
        self.0.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the state is published as `config` says.
    pub fn report(&self, config: StatusSettings) {
        self.board().configure(config, moment());
    }

    /// Tells systemd that the agent is up: after the first enumeration.
    pub fn ready(&self) {
        self.board().tell("READY=1");
    }

    /// Publishes that the agent ended in good order.
    pub fn stopped(&self) {
        self.board().stopping();
        self.subject(Subject::default());
        self.enter(Phase::Stopped, None);
    }

    /// A phase of work begins, with the time it may take.
    pub fn enter(&self, phase: Phase, limit: Option<Duration>) {
        self.board().enter(phase, "", limit, moment());
    }

    /// Sets the subject of this phase and the next ones; the default when it is over.
    pub fn subject(&self, subject: Subject) {
        self.board().subject(subject, moment());
    }

    /// Bytes that the present phase has transferred so far. Cheap: shown only
    /// when the progress line moves.
    pub fn transferred(&self, bytes: u64) {
        self.board().transferred(bytes);
    }

    /// Notes how a task ended; `outcome.at` is set to now.
    pub fn finished(&self, mut outcome: Outcome) {
        let now = moment();
        outcome.at = now.wall;
        self.board().finished(outcome, now);
    }

    /// Waits between turns for `length`, or until a signal comes in, and publishes the
    /// reason. `detail` has the numbers or names behind it, or is empty.
    #[must_use]
    pub fn idle(&self, reason: Idle, detail: &str, length: Duration) -> Wake {
        let phase = Phase::Idle(reason);
        self.board().enter(phase, detail, None, moment());
        self.pass(length, true)
    }

    /// The descriptor to poll for reading; call [`Watch::tick`] when it is
    /// readable.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.signals.as_fd()
    }

    /// The end of a wait: `deadline`, or the time of the next [`Watch::tick`] if that is
    /// earlier.
    pub fn until(&self, deadline: Option<Instant>) -> Option<Instant> {
        let due = self.board().due();
        // The reader of standard error is tried again.
        let flush = diag::is_behind().then(|| Instant::now() + FLUSH_INTERVAL);
        let due = due.into_iter().chain(flush).min();
        let grace = self.grace().filter(|_| !self.must_stop());
        deadline.into_iter().chain(due).chain(grace).min()
    }

    /// Takes note of signals that came in and does what is due by the clock.
    /// Cheap: to be called whenever a wait returns.
    pub fn tick(&self, now: Instant) {
        if diag::is_behind() {
            diag::flush();
        }
        while let Ok(Some(signal)) = self.0.signals.next() {
            if signal == Signal::SIGUSR2 {
                self.0.retry.store(true, Ordering::Relaxed);
                continue;
            }
            let mut stop = self.stop_mut();
            let wanted = match signal {
                Signal::SIGUSR1 => Stop::Drain,
                Signal::SIGHUP => Stop::Restart,
                _ if *stop >= Some(Stop::Terminate) => Stop::Hurry,
                _ => Stop::Terminate,
            };
            *stop = (*stop).max(Some(wanted));
            drop(stop);
            match wanted {
                Stop::Drain | Stop::Restart => self.board().draining(moment()),
                Stop::Terminate | Stop::Hurry => self.board().stopping(),
            }
        }
        let mut board = self.board();
        if board.due().is_some_and(|due| now >= due) {
            board.tick(moment());
        }
    }

    /// Whether the operator has asked for a retry since the last call.
    pub fn take_retry(&self) -> bool {
        self.0.retry.swap(false, Ordering::Relaxed)
    }

    /// The request so far, if there is one.
    pub fn stop(&self) -> Option<Stop> {
        *self.stop_mut()
    }

    /// Ends the agent as `SIGHUP` does.
    pub fn restart(&self) {
        let mut stop = self.stop_mut();
        *stop = (*stop).max(Some(Stop::Restart));
    }

    /// Whether the work under way is to be given up.
    pub fn must_stop(&self) -> bool {
        match self.stop() {
            Some(Stop::Hurry) => true,
            Some(Stop::Terminate) => self.grace().is_none_or(|until| Instant::now() >= until),
            _ => false,
        }
    }

    /// Lets the agent go on for `length` although it was told to stop once. A second
    /// signal ends that.
    pub fn grant(&self, length: Duration) {
        let until = Instant::now() + length;
        *self.0.grace.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn grace(&self) -> Option<Instant> {
        *self.0.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one of `fds` is readable or until `deadline`, within a phase.
    pub fn wait(&self, fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<Waited> {
        let mut all = vec![self.fd()];
        all.extend(fds);
        let mut ready = vec![false; all.len()];
        loop {
            let now = Instant::now();
            self.tick(now);
            if self.must_stop() {
                return Ok(Waited::Stopped);
            }
            if now >= deadline {
                return Ok(Waited::Deadline);
            }
            poll::readable(&all, &mut ready, self.until(Some(deadline)))?;
            if ready[1..].contains(&true) {
                return Ok(Waited::Readable);
            }
        }
    }

    /// Runs a program as [`process::run`] does. A signal to stop ends it, except when the
    /// agent was stopping before.
    pub fn run(
        &self,
        command: Command,
        input: &[u8],
        limit: usize,
        time: Duration,
    ) -> io::Result<Output> {
        let was_stopping = self.must_stop();
        let mut check = || {
            self.tick(Instant::now());
            if !was_stopping && self.must_stop() {
                return Err(io::Error::other("stopped by a signal"));
            }
            Ok(self.until(None))
        };
        let also = (self.fd(), &mut check as &mut _);
        process::run(command, input, limit, time, Some(also))
    }

    /// Waits for `length`, or until a signal comes in, within a phase. Between
    /// turns it is [`Watch::idle`] that waits.
    pub fn pause(&self, length: Duration) -> Wake {
        self.pass(length, false)
    }

    fn pass(&self, length: Duration, until_retry: bool) -> Wake {
        let deadline = Instant::now() + length;
        let before = self.stop();
        loop {
            let now = Instant::now();
            self.tick(now);
            if self.stop() != before || until_retry && self.0.retry.load(Ordering::Relaxed) {
                return Wake::Signal;
            }
            if now >= deadline {
                return Wake::Deadline;
            }
            // Only a bad descriptor can make this fail, and this one is good.
            let _ = poll::readable(&[self.fd()], &mut [false], self.until(Some(deadline)));
        }
    }

    /// Waits within a phase for something that is tried again after `length`.
    /// Returns false if the agent was told to stop.
    #[must_use]
    pub fn rest(&self, length: Duration) -> bool {
        let _ = self.pause(length);
        !self.must_stop()
    }
}
