//! Running the openssl program: input by pipe, output bounded, never longer
//! than a deadline, and ended by a signal to the agent.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};

use super::KeySettings;
use crate::error::{Class, Context as _, Error, Result};
use crate::sys::poll;
use crate::trace;
use crate::watch::Watch;

/// How much of what openssl says about a failure is kept.
const MESSAGE_MAX: usize = 4096;
/// How soon a program that has closed its output is expected to end.
const LAST_BREATH: Duration = Duration::from_millis(5);

/// How long a command may take once we are told to stop.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The openssl program and its version.
#[derive(Debug)]
pub(super) struct Openssl {
    settings: KeySettings,
    watch: Watch,
    /// Major version 3 and later have `pkeyutl` do what `rsautl` did.
    modern: bool,
}

impl Openssl {
    /// Asks openssl for its version.
    pub(super) fn find(settings: &KeySettings, watch: Watch) -> Result<Openssl> {
        let mut openssl = Openssl {
            settings: settings.clone(),
            watch,
            modern: true,
        };
        let program = settings.openssl.display();
        let output = openssl
            .exchange(Command::new(&settings.openssl).arg("version"), b"", 256)
            .map_err(|error| {
                let hint = "install openssl, or name it: --openssl <path>";
                error.with_class(Class::Config).hint(hint)
            })?;
        let version = String::from_utf8_lossy(&output);
        let version = version.lines().next().unwrap_or_default();
        // OpenSSL 3.0.22 25 Aug 2026; LibreSSL counts for itself.
        let Some((name, number)) = version.split_once(' ') else {
            return Err(Error::new(format!("{program} is not openssl: '{version}'"))
                .with_class(Class::Config));
        };
        let major = number.split('.').next().and_then(|n| n.parse::<u32>().ok());
        openssl.modern = name != "OpenSSL" || major.is_none_or(|major| major >= 3);
        trace!(4, "find", "{program}: {version}");
        Ok(openssl)
    }

    /// The command for the private-key operation without a hash.
    pub(super) fn sign_command(&self) -> &'static [&'static str] {
        if self.modern {
            &["pkeyutl", "-sign"]
        } else {
            &["rsautl", "-sign"]
        }
    }

    /// Runs a command on the key, named by the option `key_option`.
    pub(super) fn run(
        &self,
        command: &[&str],
        key_option: &str,
        input: &[u8],
        most: usize,
    ) -> Result<Vec<u8>> {
        let mut process = Command::new(&self.settings.openssl);
        process
            .args(command)
            .args(&self.settings.options)
            .arg(key_option)
            .arg(&self.settings.key);
        self.exchange(&mut process, input, most)
            .map_err(|error| error.with_class(Class::Config))
    }

    fn exchange(&self, command: &mut Command, input: &[u8], most: usize) -> Result<Vec<u8>> {
        // Who is stopping already may still sign that it gives a task back.
        let limit = if self.watch.must_stop() {
            self.settings.timeout.min(LAST_WORD)
        } else {
            self.settings.timeout
        };
        let limit = Limit {
            length: limit,
            at: Instant::now() + limit,
            stop: !self.watch.must_stop(),
        };
        let shown = show(command);
        trace!(3, "exchange", "{shown}");
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| format!("unable to run {}", self.settings.openssl.display()))?;
        let mut running = Running(child);
        let outcome = self.pump(&mut running.0, input, most, limit);
        let (output, message) = outcome.context(|| format!("unable to run {shown}"))?;
        let status = self
            .ended(&mut running.0, limit)
            .context(|| format!("unable to run {shown}"))?;
        if status.success() {
            return Ok(output);
        }
        let message = String::from_utf8_lossy(&message);
        let why = explain(&message);
        Err(Error::new(format!("{shown} failed ({status}){why}")))
    }

    /// Writes `input`, reads both outputs to their ends.
    fn pump(
        &self,
        child: &mut Child,
        input: &[u8],
        most: usize,
        limit: Limit,
    ) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut stdin = child.stdin.take();
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        for fd in [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            non_blocking(fd)?;
        }
        let mut left = input;
        let (mut output, mut message) = (Vec::new(), Vec::new());
        while stdout.is_some() || stderr.is_some() {
            if left.is_empty() {
                // openssl reads to the end of its input.
                stdin = None;
            }
            let mut set = vec![PollFd::new(self.watch.fd(), PollFlags::POLLIN)];
            set.extend(
                stdin
                    .as_ref()
                    .map(|f| PollFd::new(f.as_fd(), PollFlags::POLLOUT)),
            );
            set.extend(
                stdout
                    .as_ref()
                    .map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)),
            );
            set.extend(
                stderr
                    .as_ref()
                    .map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)),
            );
            poll::wait(&mut set, self.watch.until(Some(limit.at)))?;
            drop(set);
            self.check(limit)?;
            if let Some(pipe) = &mut stdin {
                match pipe.write(left) {
                    Ok(count) => left = &left[count..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    // It has ended, and will say why on standard error.
                    Err(_) => stdin = None,
                }
            }
            if drained(&mut stdout, &mut output, most)? {
                stdout = None;
            }
            if drained(&mut stderr, &mut message, MESSAGE_MAX)? {
                stderr = None;
            }
        }
        Ok((output, message))
    }

    fn ended(&self, child: &mut Child, limit: Limit) -> io::Result<std::process::ExitStatus> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            self.check(limit)?;
            let _ = self.watch.pause(LAST_BREATH);
        }
    }

    fn check(&self, limit: Limit) -> io::Result<()> {
        let now = Instant::now();
        self.watch.tick(now);
        if limit.stop && self.watch.must_stop() {
            return Err(io::Error::other("stopped by a signal"));
        }
        if now >= limit.at {
            let seconds = limit.length.as_secs_f32();
            return Err(io::Error::other(format!(
                "not done after {seconds} seconds"
            )));
        }
        Ok(())
    }
}

/// How long a command may take, and whether a signal ends it.
#[derive(Clone, Copy)]
struct Limit {
    length: Duration,
    at: Instant,
    stop: bool,
}

/// Reads what is there; says whether that was the end. What is beyond `most` is
/// an error, and not kept.
fn drained<R: Read>(pipe: &mut Option<R>, into: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    let Some(pipe) = pipe else { return Ok(false) };
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) if into.len() + count > most => {
                return Err(io::Error::other(format!(
                    "more than {most} bytes of output"
                )));
            }
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn non_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The command as an operator would type it. The key is there by its path only.
fn show(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().map(OsStr::to_string_lossy) {
        text.push(' ');
        text.push_str(&argument);
    }
    text
}

/// The line of openssl's messages that says most: the last error of its stack
/// comes last, the first line is often only "Could not read key".
fn explain(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|l| !l.is_empty());
    match lines.next() {
        Some(first) => format!(": {first}"),
        None => String::new(),
    }
}

/// A child that does not outlive the call.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing to a child that has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
