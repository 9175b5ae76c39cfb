//! Signals as a readable descriptor (signalfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that steer the agent, blocked and readable from a descriptor.
///
/// A child inherits the mask; [`super::process::Process::spawn`] empties it
/// again, and short-lived programs that we wait for do not need their signals.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks `SIGTERM`, `SIGINT`, `SIGHUP` and `SIGUSR1` and opens the
    /// descriptor from which they are read, close-on-exec and non-blocking.
    /// Ignores `SIGPIPE`, so that a closed peer is an error of write(2).
    ///
    /// # Errors
    ///
    /// Those of signalfd(2), mostly `EMFILE`.
    pub fn open() -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
        ] {
            set.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals(fd))
    }

    /// The next pending signal, if any.
    ///
    /// # Errors
    ///
    /// Those of read(2) except `EAGAIN`.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        Ok(self
            .0
            .read_signal()?
            .and_then(|info| i32::try_from(info.ssi_signo).ok())
            .and_then(|number| Signal::try_from(number).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
