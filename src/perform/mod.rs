//! Performing a task: a throw-away snapshot of a bootstrapped machine is booted,
//! the worker fetches the task and uploads the result.
//!
//! Where the task came from, and what becomes of the result, is the caller's.

mod fake;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::diag;
use crate::error::{Context as _, Result};
use crate::guest::{self, Boot, Directory, Ended, Guest, Phase, Step, Upload, Why};
use crate::lz4;
use crate::machine::Purpose;
use crate::manifest::{
    MachineManifest, ResultManifest, ResultStatus, Style, TaskManifest, failure_result, sanitize,
};
use crate::snapshot::Snapshot;
use crate::status::{self, Laps};
use crate::tftp::Map;
use crate::trace;
use crate::watch::Watch;

pub use fake::Fake;

/// What the worker may ask for the task by: as the original does, and as today.
const TASKS: [&str; 2] = ["manifest", "task.manifest"];

/// What the worker may call its result; the first complete one counts.
const RESULTS: [&str; 3] = ["manifest", "result.manifest", "result.manifest.lz4"];

/// What the worker may upload before its result: the artifacts.
const ARTIFACTS: &str = "upload.tar";

/// The largest result once unpacked, in octets. It is cut to size before it is
/// sent; this only bounds what a mad guest may make us hold in memory.
const UNPACKED: usize = 256 << 20;

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
    /// What to do in place of running a guest.
    pub fake: Option<Fake>,
}

/// A task and where to perform it.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The task, as the worker is to see it.
    pub task: &'a TaskManifest,
    /// The machine.
    pub machine: &'a MachineManifest,
    /// Its bootstrapped copy.
    pub directory: &'a Path,
}

/// What came of a task.
#[derive(Debug)]
pub enum Performed<'w> {
    /// A result, the worker's or ours.
    Done(Box<Outcome<'w>>),
    /// We were told to stop.
    Stopped,
}

/// A result and what goes with it.
#[derive(Debug)]
pub struct Outcome<'w> {
    /// The worker's result, or one of ours that says why there is none.
    pub result: ResultManifest,
    /// If the failure is ours and not the package's: what it was.
    pub fault: Option<String>,
    /// The archive of artifacts.
    pub artifacts: Option<Artifacts>,
    /// What is left of the guest run: it takes the time of a dozen deliveries to
    /// remove, so that is for afterwards.
    pub remains: Option<Remains<'w>>,
}

/// A guest that is ending, and its snapshot; removed when this goes.
#[derive(Debug)]
pub struct Remains<'w> {
    // Dropped in this order.
    guest: Guest<'w>,
    snapshot: Snapshot,
}

impl Remains<'_> {
    /// Removes all that was made for the guest.
    ///
    /// # Errors
    ///
    /// The first one of doing so; the rest is done all the same.
    pub fn close(self) -> Result<()> {
        let down = self.guest.close();
        down.and(self.snapshot.close())
    }
}

/// An archive that the worker uploaded; it goes with this value.
#[derive(Debug)]
pub struct Artifacts {
    /// The tar archive.
    pub path: PathBuf,
    _directory: Directory,
}

impl<'w> Outcome<'w> {
    /// What there is to say when something of ours failed: an `abort` with the
    /// reason.
    #[must_use]
    pub fn failed(task: &TaskManifest, why: &str) -> Outcome<'w> {
        *Outcome::of(failure_result(task, ResultStatus::Abort, why))
    }

    fn of(result: ResultManifest) -> Box<Outcome<'w>> {
        Box::new(Outcome {
            result,
            fault: None,
            artifacts: None,
            remains: None,
        })
    }
}

/// Performs a job, and notes how long each part of it took.
///
/// # Errors
///
/// When something of ours fails: the host, its disk, QEMU.
pub fn perform<'w>(
    config: &Config,
    job: &Job<'_>,
    laps: &mut Laps,
    watch: &'w Watch,
) -> Result<Performed<'w>> {
    let text = job
        .task
        .to_text(Style::default())
        .context(|| "unable to compose the task manifest")?;
    let directory = config.tftp.join("build").join(&config.guest.owner);
    if let Some(fake) = config.fake {
        return fake.perform(job.task, &text, &directory, watch);
    }
    let uploads = Directory::create(&directory)?;
    let put = uploads.path().join("put");
    fs::create_dir(&put).context(|| format!("unable to create directory {}", put.display()))?;
    let map = TASKS.into_iter().fold(Map::new().put(&put), |map, name| {
        map.contents(name, text.as_bytes().to_vec())
    });

    let mut left = config.retries;
    let mut outcome = loop {
        let ended = match attempt(config, job, map.clone(), left == 0, laps, watch)? {
            Step::Done(outcome) => break outcome,
            Step::Ended(ended) if ended.why == Why::Stopped => return Ok(Performed::Stopped),
            Step::Ended(ended) => ended,
        };
        if !ended.never_asked() || left == 0 {
            break failed(job.task, &ended);
        }
        left -= 1;
        diag::warning(format_args!(
            "build {} for machine {}, trying again: {ended}",
            ended.title(),
            job.directory.display()
        ))
        .emit();
    };
    let path = put.join(ARTIFACTS);
    if path.is_file() {
        outcome.artifacts = Some(Artifacts {
            path,
            _directory: uploads,
        });
    } else if let Err(error) = uploads.close() {
        // It must not cost the result; the next sweep tries again.
        diag::failure(&error).emit();
    }
    Ok(Performed::Done(outcome))
}

/// The result of a guest that failed: an `abort` that says in a sentence what
/// happened.
fn failed<'w>(task: &TaskManifest, ended: &Ended) -> Box<Outcome<'w>> {
    let why = ended.to_string();
    let mut outcome = Outcome::of(failure_result(task, ResultStatus::Abort, &why));
    // What happens after a worker has asked for its task is the package's doing.
    if ended.is_ours() || ended.phase == Phase::Startup {
        outcome.fault = Some(why);
    }
    outcome
}

/// One run of the guest, in a snapshot of its own. A failure is reported, and
/// the guest held, unless it will be tried again.
fn attempt<'w>(
    config: &Config,
    job: &Job<'_>,
    map: Map,
    last: bool,
    laps: &mut Laps,
    watch: &'w Watch,
) -> Result<Step<Box<Outcome<'w>>>> {
    let rest = &mut |length| watch.rest(length);
    let Some(snapshot) = Snapshot::scratch_in_turn(job.directory, job.directory, rest)? else {
        return Ok(Step::Ended(Ended::before(Why::Stopped)));
    };
    laps.lap("snapshot", Instant::now());
    let boot = Boot {
        machine: job.machine,
        directory: snapshot.path(),
        purpose: Purpose::Build,
        map,
        upload_limit: config.upload_limit,
    };
    let mut guest = Guest::boot(&config.guest, boot, watch)?;
    let step = converse(config, &mut guest, laps, watch)?;
    match step {
        Step::Done(upload) => {
            let mut outcome = conclude(config, job.task, &mut guest, &upload)?;
            laps.lap_unless_brief("hold", Instant::now());
            // It has time to end while its result is on its way.
            guest.quit();
            outcome.remains = Some(Remains { guest, snapshot });
            Ok(Step::Done(outcome))
        }
        Step::Ended(ended) => {
            if last || !ended.never_asked() {
                guest.report_and_hold(&format!("build {}", ended.title()), &ended)?;
            }
            laps.lap_unless_brief("hold", Instant::now());
            Remains { guest, snapshot }.close()?;
            laps.lap("clean-up", Instant::now());
            Ok(Step::Ended(ended))
        }
    }
}

/// The guest's side of the task: it boots and asks, works, and uploads.
fn converse(
    config: &Config,
    guest: &mut Guest<'_>,
    laps: &mut Laps,
    watch: &Watch,
) -> Result<Step<Upload>> {
    watch.enter(status::Phase::Building, Some(config.startup));
    let step = guest.await_request(config.startup)?;
    laps.lap("boot", Instant::now());
    if let Step::Ended(ended) = step {
        return Ok(Step::Ended(ended));
    }
    watch.enter(status::Phase::Building, Some(config.work));
    let step = guest.await_upload(&RESULTS, config.work)?;
    laps.lap("work", Instant::now());
    Ok(step)
}

/// Reads the result that was uploaded; keeps the guest if there is reason to
/// look at it.
fn conclude<'w>(
    config: &Config,
    task: &TaskManifest,
    guest: &mut Guest<'w>,
    upload: &Upload,
) -> Result<Box<Outcome<'w>>> {
    let text = upload.read(config.upload_limit)?;
    trace!(
        3,
        "conclude",
        "the worker has uploaded {} ({} bytes)",
        upload.name,
        text.len()
    );
    let result = match unpack(&text, &upload.name).and_then(|text| read(&text, &upload.name)) {
        Ok(result) => result,
        Err(why) => {
            let ended = guest.ended(Phase::Work, config.work, why);
            guest.report_and_hold("build failure", &ended)?;
            let why = ended.to_string();
            return Ok(Outcome::of(failure_result(task, ResultStatus::Abort, &why)));
        }
    };
    if result.status == ResultStatus::Abnormal {
        let why = "the worker reported an abnormal end".to_owned();
        let ended = guest.ended(Phase::Work, config.work, why);
        guest.report_and_hold("build terminated abnormally", &ended)?;
    }
    Ok(Outcome::of(result))
}

/// The text of an upload: the result, or an LZ4 frame of it.
fn unpack<'a>(text: &'a [u8], name: &str) -> Result<Cow<'a, [u8]>, String> {
    if !name.ends_with(".lz4") {
        return Ok(Cow::Borrowed(text));
    }
    lz4::decode(text, UNPACKED)
        .map(Cow::Owned)
        .map_err(|error| format!("the worker uploaded a {name} that cannot be unpacked ({error})"))
}

/// Reads a result, or says in a clause what is wrong with it. Logs may hold
/// whatever compilers print, so the text is made fit to be a manifest first.
fn read(text: &[u8], name: &str) -> Result<ResultManifest, String> {
    ResultManifest::parse(sanitize(text).as_bytes(), name)
        .map_err(|error| format!("the worker uploaded an invalid result manifest ({error})"))
}
