//! Deliveries beside the work of the agent. HTTP exchanges may take minutes, and the
//! agent serves guests meanwhile, so that a process of its own sends the results: the
//! program itself, started in a hidden mode (`bbot-agent --deliver`, its settings as
//! JSON on standard input). It dies with the agent.
//!
//! It sends what is in the queue, round after round, until nothing is left. The
//! journal is the agent's alone: the deliverer renames a result that it has sent from
//! `results/` to `sent/`, and the agent records and removes it. It writes a line feed
//! to standard output after each round in which it has tried to send something.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::clock::{Boot, Now};
use super::flush::{Ledger, Sender};
use super::queue::Queue;
use super::retry::RetryLimits;
use super::stored::StoredResult;
use crate::controller::Controllers;
use crate::controller::address::UploadTarget;
use crate::controller::http::Settings;
use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::json::Value;
use crate::settings::ProxyChoice;
use crate::sys::poll::Waited;
use crate::sys::process::Process;
use crate::watch::Watch;

/// The first argument of the hidden mode.
pub const MODE: &str = "--deliver";

/// How often the deliverer looks for new results.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The largest settings, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// The settings of the deliverer.
#[derive(Clone, Debug)]
pub struct DelivererSettings {
    /// The state directory.
    pub state: PathBuf,
    /// When results are sent again.
    pub retry: RetryLimits,
    /// How requests are made.
    pub http: Settings,
    /// The level of diagnostics.
    pub verbose: u8,
    /// Whether lines of diagnostics carry systemd's priorities.
    pub systemd: bool,
}

/// The deliverer, as the agent sees it. It is killed when this goes: a result whose
/// exchange is cut is sent again.
#[derive(Debug)]
pub struct Deliverer {
    process: Process,
    rounds: ChildStdout,
}

impl Deliverer {
    /// Starts the program as a deliverer.
    pub fn start(settings: &DelivererSettings) -> Result<Deliverer> {
        let what = || "unable to start the deliverer of results";
        let mut input = File::from(
            memfd_create(c"deliverer", MFdFlags::MFD_CLOEXEC)
                .map_err(io::Error::from)
                .context(what)?,
        );
        input
            .write_all(settings.to_json().to_string().as_bytes())
            .and_then(|()| input.rewind())
            .context(what)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(MODE)
            .stdin(Stdio::from(input))
            .stdout(Stdio::piped());
        let mut process = Process::spawn(command, &[], None).context(what)?;
        match process.take_stdout() {
            Some(rounds) => Ok(Deliverer { process, rounds }),
            None => Err(Error::new(what())),
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Waits until a round is over, or the deliverer ends, or `limit` has passed, or
    /// the agent is told to stop.
    pub fn await_round(&mut self, limit: Duration, watch: &Watch) -> Result<()> {
        let waited = watch
            .wait(&[self.rounds.as_fd()], Instant::now() + limit)
            .context(|| "unable to wait for the delivery of results")?;
        if waited == Waited::Readable {
            // Several rounds may have ended meanwhile. At the end of the deliverer
            // nothing can be read.
            let _ = self.rounds.read(&mut [0; 64]);
        }
        Ok(())
    }
}

impl DelivererSettings {
    fn to_json(&self) -> Value {
        let millis =
            |length: Duration| Value::from(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        let path = |path: &Path| Value::from(path.to_string_lossy().into_owned());
        let http = &self.http;
        Value::object([
            ("state", path(&self.state)),
            ("expiry", millis(self.retry.expiry)),
            ("first-pause", millis(self.retry.first_pause)),
            ("longest-pause", millis(self.retry.longest_pause)),
            ("connect-timeout", millis(http.connect_timeout)),
            ("request-timeout", millis(http.request_timeout)),
            ("connect-retries", u64::from(http.connect_retries).into()),
            ("ca-file", http.ca_file.as_deref().map(path).into()),
            ("http-proxy", http.proxy.http.as_deref().into()),
            ("https-proxy", http.proxy.https.as_deref().into()),
            ("no-proxy", Value::from(http.proxy.exceptions.as_str())),
            ("verbose", u64::from(self.verbose).into()),
            ("systemd", self.systemd.into()),
        ])
    }

    fn from_json(value: &Value) -> Option<DelivererSettings> {
        let number = |name| value.get(name).and_then(Value::as_u64);
        let millis = |name| number(name).map(Duration::from_millis);
        let text = |name| value.get(name).and_then(Value::as_str);
        Some(DelivererSettings {
            state: text("state")?.into(),
            retry: RetryLimits {
                expiry: millis("expiry")?,
                first_pause: millis("first-pause")?,
                longest_pause: millis("longest-pause")?,
            },
            http: Settings {
                connect_timeout: millis("connect-timeout")?,
                request_timeout: millis("request-timeout")?,
                connect_retries: u32::try_from(number("connect-retries")?).ok()?,
                ca_file: text("ca-file").map(PathBuf::from),
                proxy: ProxyChoice {
                    http: text("http-proxy").map(str::to_owned),
                    https: text("https-proxy").map(str::to_owned),
                    exceptions: text("no-proxy")?.to_owned(),
                },
            },
            verbose: u8::try_from(number("verbose")?).ok()?,
            systemd: value.get("systemd")?.as_bool()?,
        })
    }
}

/// The ledger of the deliverer.
struct SentDirectory;

impl Ledger for SentDirectory {
    fn was_sent(&self, _: &StoredResult) -> bool {
        false
    }

    fn sent(&mut self, queue: &Queue, stored: &StoredResult) -> Result<()> {
        queue.mark_sent(stored)
    }

    fn aside(&mut self, _: &StoredResult) -> Result<()> {
        Ok(())
    }
}

/// Whether the deliverer sends a result. A directory that plays controller is
/// written by the agent, which has its tasks locked.
pub(super) fn is_http(target: &UploadTarget) -> bool {
    matches!(target, UploadTarget::Http(_))
}

/// The hidden mode: sends the queue until it is empty.
pub fn serve() -> Result<()> {
    let what = || "unable to read the settings of the deliverer";
    let mut text = String::new();
    io::stdin()
        .take(MAX_SETTINGS)
        .read_to_string(&mut text)
        .context(what)?;
    let value = Value::parse(&text).context(what)?;
    let settings = DelivererSettings::from_json(&value).ok_or_else(|| Error::new(what()))?;
    diag::configure(settings.verbose, settings.systemd);
    let watch = Watch::start()?;
    let mut controllers = Controllers::new(&[], &settings.http, &watch)?;
    let queue = Queue::at(&settings.state);
    let mut sender = Sender::new(settings.retry, Boot::current());
    let mut last = None;
    loop {
        let now = Now::read();
        let flushed = sender.flush(&queue, &mut SentDirectory, is_http, now, &mut controllers)?;
        // Only rounds with an attempt are told, since the agent may not read for long.
        // If the agent has ended, the kernel ends this process, too.
        if last.replace(flushed) != Some(flushed) {
            let _ = io::stdout()
                .write_all(b"\n")
                .and_then(|()| io::stdout().flush());
        }
        if !queue.has(is_http)? || !watch.rest(pause(flushed.next, now)) {
            return Ok(());
        }
    }
}

/// A new result may come before the next one is due.
fn pause(next: Option<Duration>, now: Now) -> Duration {
    next.map_or(POLL_INTERVAL, |next| {
        next.saturating_sub(now.uptime).min(POLL_INTERVAL)
    })
}
