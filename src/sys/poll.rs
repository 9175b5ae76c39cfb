//! Waiting for descriptors until an instant (ppoll(2)).

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// Waits until one of `fds` is readable (or in error, or hung up) or until
/// `deadline`; `None` waits as long as it takes. `ready[i]` then says whether
/// `fds[i]` is. Returns whether any is.
///
/// A deadline in the past polls without waiting. Interrupted waits go on.
pub fn readable(
    fds: &[BorrowedFd<'_>],
    ready: &mut [bool],
    deadline: Option<Instant>,
) -> io::Result<bool> {
    const MOST: usize = 128;
    let count = fds.len();
    if count > MOST || ready.len() < count {
        return Err(Errno::EINVAL.into());
    }
    let mut set: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    wait(&mut set, deadline)?;
    let mut any = false;
    for (ready, fd) in ready.iter_mut().zip(&set) {
        *ready = fd.any().unwrap_or(true);
        any |= *ready;
    }
    Ok(any)
}

/// How a wait for descriptors ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// One of them is readable.
    Readable,
    /// The deadline has come.
    Deadline,
    /// The operator wants the agent to stop.
    Stopped,
}

/// A wait for descriptors until a deadline, which the operator can end.
pub type Wait<'a> = dyn FnMut(&[BorrowedFd<'_>], Instant) -> io::Result<Waited> + 'a;

/// Waits for at most `length` until `fd` is readable; whether it is. For values
/// that go away, which have no deadline.
pub fn readable_within(fd: BorrowedFd<'_>, length: Duration) -> io::Result<bool> {
    readable(&[fd], &mut [false], Some(Instant::now() + length))
}

/// Whether the reader of a pipe is gone, or the terminal.
pub fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut set = [PollFd::new(fd, PollFlags::empty())];
    wait(&mut set, Some(Instant::now())).is_ok_and(|ready| ready > 0)
}

/// ppoll(2) until `deadline`; an interrupted wait goes on with what is left.
pub fn wait(set: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    loop {
        let timeout = deadline.map(|deadline| {
            TimeSpec::from_duration(deadline.saturating_duration_since(Instant::now()))
        });
        match ppoll(set, timeout, None) {
            Err(Errno::EINTR) => {}
            result => {
                return result
                    .map(|ready| usize::try_from(ready).unwrap_or(0))
                    .map_err(io::Error::from);
            }
        }
    }
}
