//! Performing a task: a throw-away snapshot of a bootstrapped machine is booted,
//! the worker fetches the task and uploads the result.
//!
//! The caller knows the controller of the task, and delivers the result.

mod auxiliary;
mod end;
mod fake;
mod result;
mod warm;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diag;
use crate::error::{Context as _, Result};
use crate::guest::{self, Directory, Ended, Guest, GuestPhase, GuestRun, Step, Why};
use crate::machine::Memory;
use crate::manifest::{BootstrappedMachine, ResultStatus, Style, TaskManifest, failure_result};
use crate::snapshot::Snapshot;
use crate::status::{self, Laps};
use crate::tftp::{Map, Upload};
use crate::trace;
use crate::watch::Watch;

pub use auxiliary::AuxiliaryJob;
pub use end::{
    Artifacts, BuildEnd, BuildFailure, BuildStage, FailedSide, HeldGuest, Performed, Remains,
};
pub use fake::Fake;

use auxiliary::{AuxiliaryGuest, BootedGuest};

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
    /// From the start of the auxiliary machines to the last environment.
    pub auxiliary: Duration,
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
    /// The auxiliary machines of the task.
    pub auxiliary: &'a [AuxiliaryJob<'a>],
}

/// A build under way.
struct Build<'l, 'w> {
    stage: BuildStage,
    laps: &'l mut Laps,
    auxiliary: Vec<AuxiliaryGuest<'w>>,
    watch: &'w Watch,
}

impl<'w> Build<'_, 'w> {
    /// The guests beside that of the build.
    fn beside(&mut self) -> Vec<&mut Guest<'w>> {
        let guests = self.auxiliary.iter_mut();
        guests.map(|one| &mut one.booted.guest).collect()
    }

    /// The same, which are no longer needed.
    fn take_others(&mut self) -> Vec<BootedGuest<'w>> {
        self.auxiliary.drain(..).map(|one| one.booted).collect()
    }
}

impl Job<'_> {
    /// The taps of the guests beside the auxiliary machine `index`, or beside the build.
    fn group(&self, config: &BuildSettings, index: Option<usize>) -> Vec<String> {
        let auxiliary = self.auxiliary.iter().enumerate();
        let taps = auxiliary
            .filter(|(other, _)| Some(*other) != index)
            .map(|(_, one)| one.tap.clone());
        taps.chain(index.map(|_| config.guest.tap.clone()))
            .collect()
    }

    /// The settings of the guest of the build.
    fn settings(&self, config: &BuildSettings) -> guest::GuestSettings {
        guest::GuestSettings {
            group: self.group(config, None),
            ..config.guest.clone()
        }
    }

    /// The run of its guest in `directory`, a snapshot of the copy or of a template.
    fn guest<'r>(
        &'r self,
        directory: &'r Path,
        memory: Memory,
        map: Map,
        config: &BuildSettings,
    ) -> GuestRun<'r> {
        GuestRun {
            task: Some(self.task),
            map,
            upload_limit: config.upload_limit,
            ..GuestRun::without_task(&self.machine.machine, self.directory, directory, memory)
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
    let mut build = Build {
        stage: BuildStage::BeforeTask,
        laps,
        auxiliary: Vec::new(),
        watch,
    };
    perform_at(config, job, &mut build).unwrap_or_else(|error| {
        diag::failure(&error).emit();
        Performed::of(BuildEnd::Failed(BuildFailure {
            side: FailedSide::Host,
            stage: build.stage,
            why: error.to_string(),
            auxiliary: None,
        }))
    })
}

fn perform_at<'w>(
    config: &BuildSettings,
    job: &Job<'_>,
    build: &mut Build<'_, 'w>,
) -> Result<Performed<Remains<'w>>> {
    let compose = |task: &TaskManifest| {
        let text = task.to_text(Style::default());
        text.context(|| "unable to compose the task manifest")
    };
    let directory = config.tftp.join("build").join(&config.guest.owner);
    if let Some(fake) = config.fake {
        let text = compose(job.task)?;
        return fake.perform(job.task, &text, &directory, config, build.watch);
    }
    let uploads = Directory::create(&directory)?;
    let put = uploads.path().join("put");
    fs::create_dir(&put).context(|| format!("unable to create directory {}", put.display()))?;
    let mut task = job.task.clone();
    let started = auxiliary::start(config, job, uploads.path(), build)?;
    if !job.auxiliary.is_empty() {
        build.laps.lap("auxiliary", Instant::now());
    }
    match started {
        Ok(variables) => task.set_auxiliary_environment(&variables.to_text()),
        Err(performed) => return Ok(performed),
    }
    let job = &Job {
        task: &task,
        ..*job
    };
    let contents: Arc<[u8]> = compose(&task)?.into_bytes().into();
    let map = TASKS.into_iter().fold(Map::new().put(&put), |map, name| {
        map.contents(name, Arc::clone(&contents))
    });

    let mut left = config.retries;
    let mut performed = match warm::attempt(config, job, &map, build)? {
        Some(performed) => performed,
        None => loop {
            match attempt(config, job, map.clone(), left == 0, build)? {
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
    build: &mut Build<'_, 'w>,
) -> Result<Option<Performed<Remains<'w>>>> {
    let rest = &mut |length| build.watch.rest(length);
    let Some(snapshot) = Snapshot::scratch_in_turn(job.directory, job.directory, rest)? else {
        return Ok(Some(Performed::of(BuildEnd::Stopped)));
    };
    build.laps.lap("snapshot", Instant::now());
    let boot = job.guest(snapshot.path(), Memory::Anonymous, map, config);
    let settings = job.settings(config);
    let Step::Done(mut guest) = Guest::boot(&settings, boot, build.watch)? else {
        return Ok(Some(Performed::of(BuildEnd::Stopped)));
    };
    let step = converse(config, &mut guest, build);
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
        build.laps.lap("clean-up", Instant::now());
        return Ok(None);
    }
    finish(config, job.task, (guest, snapshot), step, build).map(Some)
}

/// The end of a build, and the remains of its guests.
fn finish<'w>(
    config: &BuildSettings,
    task: &TaskManifest,
    (guest, snapshot): (Guest<'w>, Snapshot),
    step: Step<Upload>,
    build: &mut Build<'_, 'w>,
) -> Result<Performed<Remains<'w>>> {
    let mut booted = BootedGuest {
        guest,
        snapshot,
        run_dir: None,
    };
    let guest = &mut booted.guest;
    let (end, holds) = match step {
        Step::Done(upload) => {
            let concluded = conclude(config, guest, &upload);
            guest.with_evidence("build failure", concluded)?
        }
        Step::Ended(ended) => match ended.why {
            Why::Beside(index, why) => {
                let ended = Ended {
                    phase: GuestPhase::Service,
                    why: *why,
                    ..ended
                };
                return Ok(auxiliary::failed(build, index, &ended, Some(booted)));
            }
            _ if task.interactive().is_some() && guest.ended_itself() => {
                let why = format!("the user ended the build: {ended}");
                diag::info(&why).emit();
                let result = failure_result(task, ResultStatus::Abort, &why);
                (BuildEnd::Result(result), false)
            }
            _ => {
                let holds = guest.report(&format!("build {}", ended.title()), &ended);
                (end_of_failure(build.stage, &ended), holds)
            }
        },
    };
    Ok(Performed {
        end,
        artifacts: None,
        guest: Some(Remains::new(booted, build.take_others(), holds)),
    })
}

/// The end of a build whose guest failed.
fn end_of_failure(stage: BuildStage, ended: &Ended) -> BuildEnd {
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
        auxiliary: None,
    })
}

/// The guest's side of the task: it boots and asks, works, and uploads.
fn converse<'w>(
    config: &BuildSettings,
    guest: &mut Guest<'w>,
    build: &mut Build<'_, 'w>,
) -> Result<Step<Upload>> {
    build
        .watch
        .enter(status::Phase::Booting, Some(config.startup));
    let step = guest.await_request(config.startup, &mut build.beside())?;
    build.laps.lap("boot", Instant::now());
    if let Step::Ended(ended) = step {
        return Ok(Step::Ended(ended));
    }
    work(config, guest, build)
}

/// The guest's side of the task once it has it.
fn work<'w>(
    config: &BuildSettings,
    guest: &mut Guest<'w>,
    build: &mut Build<'_, 'w>,
) -> Result<Step<Upload>> {
    build.stage = BuildStage::WithTask;
    build
        .watch
        .enter(status::Phase::Building, Some(config.work));
    let beside = &mut build.beside();
    let step = guest.await_upload(&RESULTS, config.work, beside)?;
    build.laps.lap("work", Instant::now());
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
            return Ok((end_of_failure(BuildStage::WithTask, &ended), holds));
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
