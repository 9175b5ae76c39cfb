//! Standard error, written without waiting for its reader: a full pipe or a stopped
//! terminal must not stop the loop, in which guests and signals are waiting.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::{SFlag, fstat};

use crate::sys::poll;

/// Text that waits for the reader, in bytes. Records beyond that are lost.
const MAX_PENDING: usize = 64 * 1024;

/// Bytes of one write to a descriptor that may block: a pipe that is ready takes as
/// many (pipe(7), `PIPE_BUF`).
const MAX_BLOCKING_WRITE: usize = 4096;

/// Standard error.
#[derive(Debug)]
pub(super) struct StandardError {
    /// An open file description of the agent's own, if standard error is a pipe or a
    /// terminal. The one of descriptor 2 cannot be made non-blocking: the shell has it,
    /// too.
    own: Option<File>,
    is_open: bool,
    /// Records that the reader has not taken yet: whole, but for the first one.
    pending: Vec<u8>,
    /// Records that were lost since the last report of it.
    lost: u64,
}

impl StandardError {
    pub(super) const fn new() -> StandardError {
        StandardError {
            own: None,
            is_open: false,
            pending: Vec::new(),
            lost: 0,
        }
    }

    /// Writes a record, keeps it, or counts it as lost.
    pub(super) fn write(&mut self, record: &[u8]) {
        self.flush();
        if self.pending.is_empty() {
            let count = self.take(record);
            self.pending.extend_from_slice(&record[count..]);
        } else if self.pending.len() + record.len() <= MAX_PENDING {
            self.pending.extend_from_slice(record);
        } else {
            self.lost += 1;
        }
    }

    /// Writes what was kept, as far as the reader takes it.
    pub(super) fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let count = self.take(&pending);
        self.pending = pending;
        self.pending.drain(..count);
    }

    /// Whether the reader has not taken all records.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty() || self.lost > 0
    }

    /// The number of lost records, to be reported now that the reader takes more.
    pub(super) fn take_lost(&mut self) -> Option<u64> {
        (self.lost > 0 && self.pending.is_empty()).then(|| std::mem::take(&mut self.lost))
    }

    /// Waits for the reader, for at most `length`.
    pub(super) fn drain(&mut self, length: Duration) {
        let deadline = Instant::now() + length;
        while self.is_behind() && Instant::now() < deadline {
            let stderr = io::stderr();
            let mut set = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
            if poll::wait(&mut set, Some(deadline)).is_err() {
                return;
            }
            self.flush();
            if self.pending.is_empty() {
                return;
            }
        }
    }

    /// Writes the beginning of `text`. Returns the number of bytes that are done with:
    /// written, or of no use because there is no reader and will be none.
    fn take(&mut self, text: &[u8]) -> usize {
        if !self.is_open {
            self.is_open = true;
            self.own = open_again();
        }
        let mut done = 0;
        while done < text.len() {
            let rest = &text[done..];
            let written = match &mut self.own {
                Some(own) => own.write(rest),
                None => write_if_ready(rest),
            };
            match written {
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Standard error is closed, or its disk is full.
                Err(_) => return text.len(),
            }
        }
        done
    }
}

/// Opens a pipe or terminal anew. Other files have a position, or (sockets) cannot be
/// opened.
fn open_again() -> Option<File> {
    let mode = SFlag::from_bits_truncate(fstat(io::stderr()).ok()?.st_mode);
    if !matches!(mode & SFlag::S_IFMT, SFlag::S_IFIFO | SFlag::S_IFCHR) {
        return None;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    options.open("/proc/self/fd/2").ok()
}

/// write(2) to descriptor 2, if that does not block.
fn write_if_ready(text: &[u8]) -> io::Result<usize> {
    let stderr = io::stderr();
    let mut set = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll::wait(&mut set, Some(Instant::now()))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    stderr
        .lock()
        .write(&text[..text.len().min(MAX_BLOCKING_WRITE)])
}
