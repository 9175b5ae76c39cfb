//! Signals as a readable descriptor (signalfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that steer the agent, blocked and readable from a descriptor.
///
/// A child inherits the mask; [`super::process::Process::spawn`] empties it
/// again, and short-lived programs that we wait for do not need their signals.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks `SIGTERM`, `SIGINT`, `SIGHUP`, `SIGUSR1` and `SIGUSR2` and opens the
    /// descriptor from which they are read, close-on-exec and non-blocking.
    /// Ignores `SIGPIPE` (the standard library does) and `SIGXFSZ`, so that a
    /// closed peer and a file beyond our limit of its size are errors of write(2).
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
            Signal::SIGUSR2,
        ] {
            set.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        // SAFETY: no handler is installed, so none can run at a
        // time when it must not.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals(fd))
    }

    /// The next pending signal, if any.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_beyond_a_limit_or_to_nobody_does_not_kill_us() {
        let _signals = Signals::open().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap();
        for signal in [Signal::SIGXFSZ, Signal::SIGPIPE] {
            assert_ne!(ignored & (1 << (signal as u32 - 1)), 0, "{signal}");
        }
    }
}
