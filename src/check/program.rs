//! Asking a program about itself, for a bounded time and answer.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::sys::poll;
use crate::watch::moment;

/// How long a program may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most bytes of an answer.
const LARGEST: usize = 1 << 20;

/// Kills and reaps a child that is not waited for.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The standard output of `program`.
///
/// # Errors
///
/// Those of execve(2); `TimedOut`; `Other` with the exit status if that is not
/// 0.
pub(super) fn answer(program: &OsStr, arguments: &[&str]) -> io::Result<String> {
    let deadline = moment().instant + PATIENCE;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut guard = Guard(child);
    let mut out = guard.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if !poll::readable(&[out.as_fd()], &mut [false], Some(deadline))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match out.read(&mut buffer)? {
            0 => break,
            length => answer.extend_from_slice(&buffer[..length]),
        }
        if answer.len() > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    drop(out);
    let status = loop {
        if let Some(status) = guard.0.try_wait()? {
            break status;
        }
        if moment().instant >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // It has closed its output, so it is about to end.
        let soon = moment().instant + Duration::from_millis(5);
        poll::readable(&[], &mut [], Some(soon))?;
    };
    if !status.success() {
        return Err(io::Error::other(status.to_string()));
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
