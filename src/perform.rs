//! Performing a task: a throw-away snapshot of a bootstrapped machine is booted,
//! the worker fetches the task and uploads the result.
//!
//! Where the task came from, and what becomes of the result, is the caller's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::diag;
use crate::error::{Context as _, Result};
use crate::guest::{self, Boot, Directory, Ended, Guest, Phase, Step, Upload, Why};
use crate::machine::Purpose;
use crate::manifest::{
    MachineManifest, OperationResult, ResultManifest, ResultStatus, Style, TaskManifest,
};
use crate::snapshot::Snapshot;
use crate::tftp::Map;
use crate::trace;
use crate::watch::{Wake, Watch};

/// What the worker may ask for the task by: as the original does, and as today.
const TASKS: [&str; 2] = ["manifest", "task.manifest"];

/// What the worker may call its result; the first complete one counts.
const RESULTS: [&str; 3] = ["manifest", "result.manifest", "result.manifest.lz4"];

/// What the worker may upload before its result: the artifacts.
const ARTIFACTS: &str = "upload.tar";

/// The operation under which we say why there is no result.
const OPERATION: &str = "agent";

/// Settings of all tasks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Settings of all guests.
    pub guest: guest::Config,
    /// `<tftp>`: uploads go below `build`.
    pub tftp: PathBuf,
    /// Until the first request.
    pub startup: Duration,
    /// From there to the result.
    pub work: Duration,
    /// Further attempts with a guest that made no request.
    pub retries: u32,
    /// The largest upload, in octets.
    pub upload_limit: u64,
    /// The largest result once unpacked, in octets.
    pub result_limit: u64,
    /// What to do in place of running a guest.
    pub fake: Option<Fake>,
}

/// Ways to do without a guest, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fake {
    /// The result is an `abort`, at once (`--fake-build`).
    Build,
    /// Somebody else reads the task from `get/manifest` and writes the result to
    /// `put/manifest` (`--fake-machine`).
    Machine,
}

/// What came of a task.
#[derive(Debug)]
pub enum Performed {
    /// A result, the worker's or ours.
    Done(Box<Outcome>),
    /// We were told to stop.
    Stopped,
}

/// A result and what goes with it.
#[derive(Debug)]
pub struct Outcome {
    /// The result: the worker's, or one of ours that says why there is none.
    pub result: ResultManifest,
    /// If the failure is ours and not the package's: what it was.
    pub fault: Option<String>,
    /// The archive of artifacts, in a directory that goes with this value.
    pub artifacts: Option<Artifacts>,
    /// How long each part took.
    pub times: Times,
}

/// Artifacts that the worker uploaded.
#[derive(Debug)]
pub struct Artifacts {
    /// The tar archive.
    pub path: PathBuf,
    /// Owns it.
    pub directory: Directory,
}

/// How long each part of a task took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Making the snapshot.
    pub snapshot: Duration,
    /// From starting QEMU to the first request.
    pub startup: Duration,
    /// From there to the result.
    pub work: Duration,
    /// Ending QEMU and deleting the snapshot.
    pub cleanup: Duration,
}

/// Performs `task` in a snapshot of `directory`, the bootstrapped copy of
/// `machine`.
///
/// # Errors
///
/// When something of ours fails: the host, its disk, QEMU. The result to send
/// is then [`abort`].
pub fn perform(
    config: &Config,
    task: &TaskManifest,
    machine: &MachineManifest,
    directory: &Path,
    watch: &Watch,
) -> Result<Performed> {
    let text = task
        .to_text(Style::default())
        .context(|| "unable to compose the task manifest")?;
    match config.fake {
        Some(Fake::Build) => {
            return Ok(done(ResultManifest::new(
                task.name(),
                task.version(),
                ResultStatus::Abort,
            )));
        }
        Some(Fake::Machine) => return fake_machine(config, &text, watch),
        None => {}
    }
    let uploads = Directory::create(&config.tftp.join("build").join(&config.guest.owner))?;
    let put = uploads.path().join("put");
    fs::create_dir(&put).context(|| format!("unable to create directory {}", put.display()))?;

    let mut left = config.retries;
    let mut outcome = loop {
        let attempt = attempt(
            config,
            task,
            &text,
            machine,
            directory,
            &put,
            left == 0,
            watch,
        )?;
        match attempt {
            Attempt::Done(outcome) => break *outcome,
            Attempt::Ended(ended) if ended.why == Why::Stopped => return Ok(Performed::Stopped),
            Attempt::Ended(ended) if ended.never_asked() && left > 0 => {
                left -= 1;
                diag::warning(format_args!(
                    "build startup timeout for machine {}, trying again: {ended}",
                    directory.display()
                ))
                .emit();
            }
            Attempt::Ended(ended) => {
                let why = ended.to_string();
                // A guest that boots and asks is the package's affair.
                let ours = ended.is_ours() || ended.phase == Phase::Startup;
                break Outcome {
                    fault: ours.then(|| why.clone()),
                    ..Outcome::of(abort(task, &why))
                };
            }
        }
    };
    let archive = put.join(ARTIFACTS);
    if archive.is_file() {
        outcome.artifacts = Some(Artifacts {
            path: archive,
            directory: uploads,
        });
    } else {
        uploads.close()?;
    }
    Ok(Performed::Done(Box::new(outcome)))
}

/// The result for a task that was not performed, with the reason as the log of
/// an operation of ours.
#[must_use]
pub fn abort(task: &TaskManifest, reason: &str) -> ResultManifest {
    let mut result = ResultManifest::new(task.name(), task.version(), ResultStatus::Abort);
    result.results.push(OperationResult {
        operation: OPERATION.to_owned(),
        status: ResultStatus::Abort,
        log: format!("error: the task was not completed: {reason}"),
    });
    result
}

impl Outcome {
    fn of(result: ResultManifest) -> Outcome {
        Outcome {
            result,
            fault: None,
            artifacts: None,
            times: Times::default(),
        }
    }
}

fn done(result: ResultManifest) -> Performed {
    Performed::Done(Box::new(Outcome::of(result)))
}

enum Attempt {
    Done(Box<Outcome>),
    Ended(Ended),
}

/// One run of the guest, in a snapshot of its own.
#[allow(clippy::too_many_arguments)]
fn attempt(
    config: &Config,
    task: &TaskManifest,
    text: &str,
    machine: &MachineManifest,
    directory: &Path,
    put: &Path,
    last: bool,
    watch: &Watch,
) -> Result<Attempt> {
    let mut times = Times::default();
    let mut clock = Lap(Instant::now());
    let snapshot = Snapshot::scratch(directory, directory)?;
    times.snapshot = clock.lap();

    let map = TASKS.into_iter().fold(Map::new().put(put), |map, name| {
        map.contents(name, text.as_bytes().to_vec())
    });
    let boot = Boot {
        machine,
        directory: snapshot.path(),
        purpose: Purpose::Build,
        map,
        upload_limit: config.upload_limit,
    };
    let mut guest = Guest::boot(&config.guest, boot, watch)?;
    let step = converse(config, &mut guest, &mut clock, &mut times);
    let attempt = match step {
        Err(error) => Err(error),
        Ok(Step::Ended(ended)) => {
            if last || !ended.never_asked() {
                guest.report_and_hold(&format!("build {}", ended.title()), &ended)?;
            }
            Ok(Attempt::Ended(ended))
        }
        Ok(Step::Done(upload)) => {
            let result = upload.read(config.upload_limit)?;
            match receive(&upload, &result) {
                Ok(result) => {
                    if result.status == ResultStatus::Abnormal {
                        guest.report_and_hold(
                            "build terminated abnormally",
                            &abnormal(config, times),
                        )?;
                    }
                    Ok(Attempt::Done(Box::new(Outcome::of(result))))
                }
                Err(why) => {
                    let ended = guest.ended(Phase::Work, config.work, why);
                    guest.report_and_hold("build result", &ended)?;
                    Ok(Attempt::Done(Box::new(Outcome::of(abort(
                        task,
                        &ended.to_string(),
                    )))))
                }
            }
        }
    };
    clock.lap();
    guest.close()?;
    snapshot.close()?;
    times.cleanup = clock.lap();
    attempt.map(|attempt| match attempt {
        Attempt::Done(outcome) => Attempt::Done(Box::new(Outcome { times, ..*outcome })),
        ended @ Attempt::Ended(_) => ended,
    })
}

fn converse(
    config: &Config,
    guest: &mut Guest<'_>,
    clock: &mut Lap,
    times: &mut Times,
) -> Result<Step<Upload>> {
    if let Step::Ended(ended) = guest.await_request(config.startup)? {
        return Ok(Step::Ended(ended));
    }
    times.startup = clock.lap();
    let step = guest.await_upload(&RESULTS, config.work)?;
    times.work = clock.lap();
    Ok(step)
}

/// Time from lap to lap.
struct Lap(Instant);

impl Lap {
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}

/// Reads what the worker uploaded; a clause if it is no good.
fn receive(upload: &Upload, text: &[u8]) -> Result<ResultManifest, String> {
    trace!(
        3,
        "receive",
        "the worker has uploaded {} ({} bytes)",
        upload.name,
        text.len()
    );
    ResultManifest::parse(text, &upload.name)
        .map_err(|error| format!("invalid result manifest: {error}"))
}

/// The end of a task whose worker gave up, for the report.
fn abnormal(config: &Config, times: Times) -> Ended {
    Ended {
        phase: Phase::Work,
        limit: config.work,
        elapsed: times.work,
        why: Why::Invalid("the worker reported an abnormal end".to_owned()),
    }
}

/// Leaves the task in `get/manifest` and waits for `put/manifest`, for as long
/// as a guest would be waited for.
fn fake_machine(config: &Config, task: &str, watch: &Watch) -> Result<Performed> {
    const POLL: Duration = Duration::from_secs(1);
    let directory = Directory::create(&config.tftp.join("build").join(&config.guest.owner))?;
    let get = directory.path().join("get");
    let put = directory.path().join("put");
    for directory in [&get, &put] {
        fs::create_dir(directory)
            .context(|| format!("unable to create directory {}", directory.display()))?;
    }
    let path = get.join(TASKS[0]);
    fs::write(&path, task).context(|| format!("unable to write task {}", path.display()))?;

    let result = put.join(RESULTS[0]);
    loop {
        if result.exists() {
            let upload = Upload {
                name: RESULTS[0].to_owned(),
                path: result,
            };
            let text = upload.read(config.upload_limit)?;
            let manifest =
                ResultManifest::parse(&text, &upload.name).context(|| "invalid result manifest")?;
            directory.close()?;
            return Ok(done(manifest));
        }
        trace!(4, "fake_machine", "waiting for {}", result.display());
        if watch.pause(POLL) == Wake::Signal && watch.must_stop() {
            return Ok(Performed::Stopped);
        }
    }
}
