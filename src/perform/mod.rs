//! Performing a task: a throw-away snapshot of a bootstrapped machine is booted,
//! the worker fetches the task and uploads the result.
//!
//! The caller knows the controller of the task, and delivers the result.

mod fake;
mod result;
mod warm;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diag;
use crate::error::{Context as _, Result};
use crate::guest::{self, Directory, Ended, Guest, GuestPhase, GuestRun, Step, Upload, Why};
use crate::machine::{Memory, Purpose};
use crate::manifest::{
    BootstrappedMachine, ResultManifest, ResultStatus, Style, TaskManifest, failure_result,
};
use crate::snapshot::Snapshot;
use crate::status::{self, Laps};
use crate::tftp::Map;
use crate::trace;
use crate::watch::Watch;

pub use fake::Fake;

/// The names of the task in the requests of workers: those of the original and of
/// today.
pub const TASKS: [&str; 2] = ["manifest", "task.manifest"];

/// The names of the result in the uploads of workers; the first complete one counts.
const RESULTS: [&str; 3] = ["manifest", "result.manifest", "result.manifest.lz4"];

/// The name of the archive of artifacts, which a worker uploads before its result.
const ARTIFACTS: &str = "upload.tar";

/// Settings of all builds.
#[derive(Clone, Debug)]
pub struct BuildSettings {
    /// Settings of all guests.
    pub guest: guest::GuestSettings,
    /// `<tftp>`: uploads go below `build`.
    pub tftp: PathBuf,
    /// Until the first request.
    pub startup: Duration,
    /// From there to the result.
    pub work: Duration,
    /// Further attempts with a guest that made no request.
    pub retries: u32,
    /// The largest upload in bytes, also when it is unpacked.
    pub upload_limit: u64,
    /// The largest result that is sent, in bytes.
    pub result_limit: u64,
    /// The replacement of the guest in a trial run.
    pub fake: Option<Fake>,
    /// The age up to which the machine's template is used, if the machine may start warm.
    pub warm: Option<Duration>,
}

/// A task and its machine.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The task that the worker gets.
    pub task: &'a TaskManifest,
    /// The machine.
    pub machine: &'a BootstrappedMachine,
    /// Its bootstrapped copy.
    pub directory: &'a Path,
}

impl Job<'_> {
    /// The run of its guest in `directory`, a snapshot of the copy or of a template.
    fn guest<'r>(
        &'r self,
        directory: &'r Path,
        memory: Memory,
        map: Map,
        config: &BuildSettings,
    ) -> GuestRun<'r> {
        GuestRun {
            machine: &self.machine.machine,
            label: self.directory,
            source: self.directory,
            directory,
            purpose: Purpose::Build,
            task: Some(self.task),
            memory,
            map,
            upload_limit: config.upload_limit,
        }
    }
}

/// The end of a build.
#[derive(Debug)]
pub struct Performed<G> {
    /// Its result or failure.
    pub end: BuildEnd,
    /// The archive of artifacts.
    pub artifacts: Option<Artifacts>,
    /// The guest and its snapshot. Removing them takes far longer than delivering
    /// the result, and a failed guest may be held for hours, so both are done
    /// afterwards.
    pub guest: Option<G>,
}

/// The result or failure of a build.
#[derive(Debug)]
pub enum BuildEnd {
    /// The worker's result.
    Result(ResultManifest),
    /// No result, and a failure that was reported.
    Failed(BuildFailure),
    /// The agent was told to stop.
    Stopped,
    /// This agent has a task of higher priority. There is room for its guest when this
    /// one is closed.
    Interrupted(String),
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildFailure {
    /// The side that failed.
    pub side: FailedSide,
    /// How far the build had come.
    pub stage: BuildStage,
    /// The reason, as a clause.
    pub why: String,
}

/// The side that a failure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSide {
    /// The host: its disk, QEMU. The package may be the reason.
    Host,
    /// The host lost what guests need, its bridge for instance. The package is not the
    /// reason.
    Surroundings,
    /// The guest: it did not boot, crashed, or took too long.
    Guest,
}

/// How far a build has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStage {
    /// The worker has not asked for its task: nothing of the package has run.
    BeforeTask,
    /// The worker has its task.
    WithTask,
}

/// A guest that has ended or is held, and its snapshot; removed when this goes.
#[derive(Debug)]
pub struct Remains<'w> {
    // Dropped in this order.
    guest: Guest<'w>,
    snapshot: Snapshot,
    holds: bool,
}

/// A guest whose build has ended.
pub trait HeldGuest {
    /// Stores the evidence of a failed guest, and waits until its hold is over, if it is
    /// to be held at all.
    fn hold(&mut self) -> Result<()>;

    /// Removes all that was made for the guest. Returns the first error; the rest is
    /// removed all the same.
    fn close(self) -> Result<()>;
}

impl HeldGuest for Remains<'_> {
    fn hold(&mut self) -> Result<()> {
        self.guest.keep_evidence();
        match std::mem::take(&mut self.holds) {
            true => self.guest.hold(),
            false => Ok(()),
        }
    }

    fn close(self) -> Result<()> {
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

impl<G> Performed<G> {
    /// The end of a build of which nothing is left.
    pub fn of(end: BuildEnd) -> Performed<G> {
        Performed {
            end,
            artifacts: None,
            guest: None,
        }
    }
}

/// Performs a job, and notes how long each part of it took.
pub fn perform<'w>(
    config: &BuildSettings,
    job: &Job<'_>,
    laps: &mut Laps,
    watch: &'w Watch,
) -> Performed<Remains<'w>> {
    let mut stage = BuildStage::BeforeTask;
    perform_at(config, job, &mut stage, laps, watch).unwrap_or_else(|error| {
        diag::failure(&error).emit();
        Performed::of(BuildEnd::Failed(BuildFailure {
            side: FailedSide::Host,
            stage,
            why: error.to_string(),
        }))
    })
}

fn perform_at<'w>(
    config: &BuildSettings,
    job: &Job<'_>,
    stage: &mut BuildStage,
    laps: &mut Laps,
    watch: &'w Watch,
) -> Result<Performed<Remains<'w>>> {
    let text = job
        .task
        .to_text(Style::default())
        .context(|| "unable to compose the task manifest")?;
    let directory = config.tftp.join("build").join(&config.guest.owner);
    if let Some(fake) = config.fake {
        return fake.perform(job.task, &text, &directory, config, watch);
    }
    let uploads = Directory::create(&directory)?;
    let put = uploads.path().join("put");
    fs::create_dir(&put).context(|| format!("unable to create directory {}", put.display()))?;
    let contents: Arc<[u8]> = text.into_bytes().into();
    let map = TASKS.into_iter().fold(Map::new().put(&put), |map, name| {
        map.contents(name, Arc::clone(&contents))
    });

    let mut left = config.retries;
    let mut performed = match warm::attempt(config, job, &map, stage, laps, watch)? {
        Some(performed) => performed,
        None => loop {
            let last = left == 0;
            match attempt(config, job, map.clone(), last, stage, laps, watch)? {
                Some(performed) => break performed,
                None => left -= 1,
            }
        },
    };
    let path = put.join(ARTIFACTS);
    if path.is_file() {
        performed.artifacts = Some(Artifacts {
            path,
            _directory: uploads,
        });
    } else if let Err(error) = uploads.close() {
        // The next sweep tries again.
        diag::failure(&error).emit();
    }
    Ok(performed)
}

/// One run of the guest, in a snapshot of its own. `None`: the guest made no request
/// and is to be tried again, since this was not the `last` attempt.
fn attempt<'w>(
    config: &BuildSettings,
    job: &Job<'_>,
    map: Map,
    last: bool,
    stage: &mut BuildStage,
    laps: &mut Laps,
    watch: &'w Watch,
) -> Result<Option<Performed<Remains<'w>>>> {
    let rest = &mut |length| watch.rest(length);
    let Some(snapshot) = Snapshot::scratch_in_turn(job.directory, job.directory, rest)? else {
        return Ok(Some(Performed::of(BuildEnd::Stopped)));
    };
    laps.lap("snapshot", Instant::now());
    let boot = job.guest(snapshot.path(), Memory::Anonymous, map, config);
    let Step::Done(mut guest) = Guest::boot(&config.guest, boot, watch)? else {
        return Ok(Some(Performed::of(BuildEnd::Stopped)));
    };
    let step = converse(config, &mut guest, stage, laps, watch);
    let step = guest.with_evidence("build failure", step)?;
    if let Step::Ended(ended) = &step
        && ended.never_asked()
        && !last
    {
        let what = format!("build {}", ended.title());
        let warning = diag::warning(format_args!(
            "{what} for machine {}, trying again: {ended}",
            job.directory.display()
        ));
        guest.report_attempt(&what, ended, warning);
        guest.close().and(snapshot.close())?;
        laps.lap("clean-up", Instant::now());
        return Ok(None);
    }
    finish(config, job.task, guest, snapshot, step, *stage).map(Some)
}

/// The end of a build, and the remains of its guest.
fn finish<'w>(
    config: &BuildSettings,
    task: &TaskManifest,
    mut guest: Guest<'w>,
    snapshot: Snapshot,
    step: Step<Upload>,
    stage: BuildStage,
) -> Result<Performed<Remains<'w>>> {
    let (end, holds) = match step {
        Step::Done(upload) => {
            let concluded = conclude(config, &mut guest, &upload);
            guest.with_evidence("build failure", concluded)?
        }
        Step::Ended(ended) if task.interactive().is_some() && guest.ended_itself() => {
            let why = format!("the user ended the build: {ended}");
            diag::info(&why).emit();
            let result = failure_result(task, ResultStatus::Abort, &why);
            (BuildEnd::Result(result), false)
        }
        Step::Ended(ended) => {
            let holds = guest.report(&format!("build {}", ended.title()), &ended);
            (failed(stage, &ended), holds)
        }
    };
    if !holds {
        // The guest has time to end while its result is on its way.
        guest.quit();
    }
    let remains = Remains {
        guest,
        snapshot,
        holds,
    };
    Ok(Performed {
        end,
        artifacts: None,
        guest: Some(remains),
    })
}

/// The end of a build whose guest failed.
fn failed(stage: BuildStage, ended: &Ended) -> BuildEnd {
    match &ended.why {
        Why::Stopped => return BuildEnd::Stopped,
        Why::Interrupted(agent) => return BuildEnd::Interrupted(agent.clone()),
        _ => {}
    }
    let side = match ended.why {
        Why::Host(_) => FailedSide::Host,
        Why::Surroundings(_) => FailedSide::Surroundings,
        _ => FailedSide::Guest,
    };
    BuildEnd::Failed(BuildFailure {
        side,
        stage,
        why: ended.to_string(),
    })
}

/// The guest's side of the task: it boots and asks, works, and uploads.
fn converse(
    config: &BuildSettings,
    guest: &mut Guest<'_>,
    stage: &mut BuildStage,
    laps: &mut Laps,
    watch: &Watch,
) -> Result<Step<Upload>> {
    watch.enter(status::Phase::Booting, Some(config.startup));
    let step = guest.await_request(config.startup)?;
    laps.lap("boot", Instant::now());
    if let Step::Ended(ended) = step {
        return Ok(Step::Ended(ended));
    }
    work(config, guest, stage, laps, watch)
}

/// The guest's side of the task once it has it.
fn work(
    config: &BuildSettings,
    guest: &mut Guest<'_>,
    stage: &mut BuildStage,
    laps: &mut Laps,
    watch: &Watch,
) -> Result<Step<Upload>> {
    *stage = BuildStage::WithTask;
    watch.enter(status::Phase::Building, Some(config.work));
    let step = guest.await_upload(&RESULTS, config.work)?;
    laps.lap("work", Instant::now());
    Ok(step)
}

/// Reads the result that was uploaded. Returns also whether the guest is to be held.
fn conclude(
    config: &BuildSettings,
    guest: &mut Guest<'_>,
    upload: &Upload,
) -> Result<(BuildEnd, bool)> {
    trace!(3, "conclude", "the worker has uploaded {}", upload.name);
    let result = match result::read(upload, config)? {
        Ok(result) => result,
        Err(why) => {
            let ended = guest.ended(GuestPhase::Work, config.work, why);
            let holds = guest.report("build failure", &ended);
            return Ok((failed(BuildStage::WithTask, &ended), holds));
        }
    };
    let mut holds = false;
    if result.status == ResultStatus::Abnormal {
        let why = "the worker reported an abnormal end".to_owned();
        let ended = guest.ended(GuestPhase::Work, config.work, why);
        holds = guest.report("build terminated abnormally", &ended);
    }
    Ok((BuildEnd::Result(result), holds))
}
