//! The output of a guest and of QEMU, within bounds.
//!
//! A guest can write gigabytes to its serial console, and controls QEMU's messages
//! too. The last bytes stay in memory, for diagnostics, and a file on disk is rotated
//! when it is full. When the agent does not read, QEMU makes the guest's UART wait.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::diag;
use crate::manifest::sanitize;

/// The last bytes of a stream.
#[derive(Debug)]
pub struct Tail {
    bytes: VecDeque<u8>,
    capacity: usize,
    total: u64,
}

impl Tail {
    /// Keeps the last `capacity` bytes.
    pub fn new(capacity: usize) -> Tail {
        Tail {
            bytes: VecDeque::new(),
            capacity,
            total: 0,
        }
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(self.capacity);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// The number of bytes of the stream so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The bytes that are kept.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }

    /// The last `most` lines that are not blank, fit for a terminal: without escape
    /// sequences and control characters. Long lines are cut.
    pub fn lines(&self, most: usize) -> Vec<String> {
        const WIDTH: usize = 200;
        let bytes = self.bytes();
        let text = sanitize(&bytes);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines[lines.len().saturating_sub(most)..]
            .iter()
            .map(|line| {
                let mut shown = String::new();
                let cut: String = line.trim_end().chars().take(WIDTH).collect();
                diag::escape(&mut shown, &cut);
                if cut.len() < line.trim_end().len() {
                    shown.push_str(" ...");
                }
                shown
            })
            .collect()
    }
}

/// The text of a guest in lines that cannot steer a terminal: without escape sequences
/// and control characters.
pub fn plain_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in sanitize(bytes).split_inclusive('\n') {
        diag::escape(&mut text, line.trim_end_matches('\n'));
        if line.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

/// A file of at most `limit` bytes with its predecessor: at half of that it is renamed
/// to `<path>.1`, and a new one is begun.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl Log {
    /// Begins the file anew.
    pub fn create(path: &Path, limit: u64) -> io::Result<Log> {
        Ok(Log {
            path: path.to_owned(),
            file: Log::begin(path)?,
            written: 0,
            limit,
        })
    }

    fn begin(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let half = self.limit / 2;
        while !bytes.is_empty() {
            if self.written >= half {
                let mut old = self.path.clone().into_os_string();
                old.push(".1");
                fs::rename(&self.path, old)?;
                self.file = Log::begin(&self.path)?;
                self.written = 0;
            }
            let room = usize::try_from(half - self.written).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room.max(1)));
            self.file.write_all(now)?;
            self.written += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }
}

/// The reading end of a stream of a machine.
#[derive(Debug)]
pub struct Capture {
    /// `None` once the other end is closed.
    fd: Option<OwnedFd>,
    tail: Tail,
    log: Option<Log>,
}

impl Capture {
    /// Reads from `fd`, which has to be non-blocking. Keeps `capacity` bytes in memory,
    /// and what `log` takes.
    pub fn new(fd: OwnedFd, capacity: usize, log: Option<Log>) -> Capture {
        Capture {
            fd: Some(fd),
            tail: Tail::new(capacity),
            log,
        }
    }

    /// The descriptor to poll, while the other end is open.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// The last lines of the output.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Whether the log has all of the output, but for what was rotated away.
    pub fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// Reads what is there, up to 64 KiB, so that a guest that writes without end does
    /// not stop the agent. Returns whether there was anything.
    pub fn read(&mut self) -> bool {
        const MAX_READS: usize = 4;
        let mut buffer = [0; 16 * 1024];
        let mut any = false;
        for _ in 0..MAX_READS {
            let Some(fd) = &self.fd else { return any };
            match nix::unistd::read(fd, &mut buffer) {
                Ok(0) => self.fd = None,
                Ok(count) => {
                    any = true;
                    self.take(&buffer[..count]);
                }
                Err(Errno::EAGAIN) => return any,
                Err(Errno::EINTR) => {}
                // QEMU has ended or is about to end.
                Err(_) => self.fd = None,
            }
        }
        any
    }

    fn take(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        if let Some(log) = &mut self.log
            && let Err(error) = log.append(bytes)
        {
            // A build does not end because its console cannot be stored.
            diag::warning(format_args!(
                "unable to write console log {}: {}",
                log.path.display(),
                crate::error::reason(&error)
            ))
            .emit();
            self.log = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_bytes_are_kept() {
        let mut tail = Tail::new(8);
        tail.push(b"0123456789");
        tail.push(b"ab");
        assert_eq!(tail.lines(9), ["456789ab"]);
        assert_eq!(tail.total(), 12);
        tail.push(&[b'x'; 100]);
        assert_eq!(tail.lines(9), ["xxxxxxxx"]);
    }

    #[test]
    fn a_console_cannot_steer_a_terminal() {
        let mut tail = Tail::new(1024);
        tail.push(b"\x1b[2J\x1b]0;owned\x07 \xff\r\n\n");
        assert_eq!(tail.lines(9), [" \u{fffd}"]);
        tail.push(b"[  \x1b[32mOK\x1b[0m  ] a\x08\r\n\x1b[K\r\n");
        assert_eq!(tail.lines(1), ["[  OK  ] a?"]);
    }

    #[test]
    fn text_of_a_guest_has_no_control_characters() {
        assert_eq!(
            plain_text(b"a\x1b[2Jb\r\nc\x07\xff\xe2\x80\xae\n\nd"),
            "ab\nc?\u{fffd}?\n\nd"
        );
    }

    #[test]
    fn long_lines_are_cut_and_only_the_last_lines_shown() {
        let mut tail = Tail::new(4096);
        tail.push(b"one\ntwo\n");
        tail.push(&[b'y'; 300]);
        let lines = tail.lines(2);
        assert_eq!(lines[0], "two");
        assert_eq!(lines[1].len(), 204);
    }

    #[test]
    fn a_log_stays_within_its_limit() {
        let dir = std::env::temp_dir().join(format!("console-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log");
        let mut log = Log::create(&path, 1000).unwrap();
        for i in 0..1000 {
            log.append(format!("line {i}\n").as_bytes()).unwrap();
        }
        let last = fs::read_to_string(&path).unwrap();
        assert!(last.ends_with("line 999\n"), "{last}");
        let sizes: u64 = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(sizes <= 1000, "{sizes}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
