//! What every wait of the agent also watches: signals, and time for the
//! watchdog and the progress line.
//!
//! The agent is one thread that waits in a few places (the guest's TFTP
//! requests, a controller's answer, the pause between turns). Each of them
//! polls [`Watch::fd`] next to its own descriptors, never waits past
//! [`Watch::until`], and calls [`Watch::tick`] when it wakes. So a signal is an
//! event in a poll loop, the stack unwinds, and guards clean up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Context as _, Result};
use crate::sys::poll;
use crate::sys::signal::Signals;

/// What the operator asked for by a signal, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// `SIGUSR1`: finish the task in hand, take no more, exit 0.
    Drain,
    /// `SIGHUP`: finish the task in hand, upload it, exit 3.
    Restart,
    /// `SIGTERM`, `SIGINT`: stop what is under way, clean up, exit 0.
    Terminate,
    /// A second `SIGTERM` or `SIGINT`: do not wait for anything any more.
    Hurry,
}

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
}

impl Watch {
    /// Starts to watch: from here on the signals are no longer fatal.
    ///
    /// # Errors
    ///
    /// When the system has no descriptor left.
    pub fn start() -> Result<Watch> {
        let signals = Signals::open().context(|| "unable to watch for signals")?;
        Ok(Watch(Arc::new(Shared {
            signals,
            stop: Mutex::new(None),
        })))
    }

    fn stop_mut(&self) -> MutexGuard<'_, Option<Stop>> {
        self.0.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor to poll for reading; call [`Watch::tick`] when it is
    /// readable.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.signals.as_fd()
    }

    /// A descriptor of one's own for the same signals.
    ///
    /// # Errors
    ///
    /// Those of dup(2).
    pub fn dup(&self) -> std::io::Result<OwnedFd> {
        self.fd().try_clone_to_owned()
    }

    /// Until when a wait may last: `deadline`, or the next [`Watch::tick`] that
    /// is due, whichever comes first.
    #[must_use]
    pub fn until(&self, deadline: Option<Instant>) -> Option<Instant> {
        deadline
    }

    /// Takes note of signals that came in and does what is due by the clock.
    /// Cheap: to be called whenever a wait returns.
    pub fn tick(&self, _now: Instant) {
        while let Ok(Some(signal)) = self.0.signals.next() {
            let mut stop = self.stop_mut();
            let wanted = match signal {
                Signal::SIGUSR1 => Stop::Drain,
                Signal::SIGHUP => Stop::Restart,
                _ if *stop >= Some(Stop::Terminate) => Stop::Hurry,
                _ => Stop::Terminate,
            };
            *stop = (*stop).max(Some(wanted));
        }
    }

    /// What was asked for so far, if anything.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        *self.stop_mut()
    }

    /// Whether to give up what is under way.
    #[must_use]
    pub fn must_stop(&self) -> bool {
        self.stop() >= Some(Stop::Terminate)
    }

    /// Waits for `length`, or until a signal comes in.
    #[must_use]
    pub fn pause(&self, length: Duration) -> Wake {
        let deadline = Instant::now() + length;
        let before = self.stop();
        loop {
            let now = Instant::now();
            self.tick(now);
            if self.stop() != before {
                return Wake::Signal;
            }
            if now >= deadline {
                return Wake::Deadline;
            }
            // Only a bad descriptor can make this fail, and ours is good.
            let _ = poll::readable(&[self.fd()], &mut [false], self.until(Some(deadline)));
        }
    }
}
