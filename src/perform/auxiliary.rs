//! The auxiliary machines of a task: started side by side before its build, each in a
//! snapshot of its own, and served until it ends.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Build, BuildEnd, BuildSettings, Job, Performed, Remains, end_of_failure};
use crate::diag;
use crate::error::{Context as _, Result};
use crate::guest::{Directory, Ended, Guest, GuestPhase, GuestRun, GuestSettings, Step, Why};
use crate::machine::{self, Memory};
use crate::manifest::{AuxiliaryEnvironment, MAX_ENVIRONMENT_BYTES, MachineManifest};
use crate::snapshot::Snapshot;
use crate::status::Phase;
use crate::tftp::Map;

/// The names of the environment in uploads.
const ENVIRONMENTS: [&str; 2] = ["auxiliary-environment", "environment"];

/// Virtual processors of an auxiliary machine.
const PROCESSORS: u32 = 1;

/// An auxiliary machine of a task.
#[derive(Clone, Debug)]
pub struct AuxiliaryJob<'a> {
    /// The name of its environment; empty for one without a name.
    pub environment: &'a str,
    /// The machine.
    pub machine: &'a MachineManifest,
    /// Its revision.
    pub revision: &'a Path,
    /// The path that the name of its scratch snapshot is derived from.
    pub scratch: &'a Path,
    /// Its memory in kB.
    pub ram_kb: u64,
    /// The name of its tap.
    pub tap: String,
}

/// A guest that was booted, and its snapshot.
#[derive(Debug)]
pub(super) struct BootedGuest<'w> {
    // Dropped in this order.
    pub(super) guest: Guest<'w>,
    pub(super) snapshot: Snapshot,
    /// The run directory, if it is not that of the agent.
    pub(super) run_dir: Option<Directory>,
}

impl BootedGuest<'_> {
    pub(super) fn close(self) -> Result<()> {
        let down = self.guest.close();
        let down = down.and(self.snapshot.close());
        down.and(self.run_dir.map_or(Ok(()), Directory::close))
    }
}

/// The guest of an auxiliary machine.
#[derive(Debug)]
pub(super) struct AuxiliaryGuest<'w> {
    name: String,
    pub(super) booted: BootedGuest<'w>,
}

/// The variables of the auxiliary machines of a job, whose guests are in `build` from
/// now on; or the end of the build.
pub(super) fn start<'w>(
    config: &BuildSettings,
    job: &Job<'_>,
    uploads: &Path,
    build: &mut Build<'_, 'w>,
) -> Result<Result<AuxiliaryEnvironment, Performed<Remains<'w>>>> {
    let mut variables = AuxiliaryEnvironment::default();
    if job.auxiliary.is_empty() {
        return Ok(Ok(variables));
    }
    let begin = Instant::now();
    // That of the former guest: the build machine has none until it starts.
    let _ = fs::remove_file(config.guest.run_dir.join(machine::CONSOLE_LOG));
    build.watch.enter(Phase::Booting, Some(config.auxiliary));
    for index in 0..job.auxiliary.len() {
        let put = uploads.join(format!("put-{}", index + 1));
        match boot(config, job, index, &put, build)? {
            Some(guest) => build.auxiliary.push(guest),
            None => return Ok(Err(closed(build, BuildEnd::Stopped))),
        }
    }
    let mut texts: Vec<Option<Vec<u8>>> = vec![None; job.auxiliary.len()];
    while let Some(index) = texts.iter().position(Option::is_none) {
        let left = config.auxiliary.saturating_sub(begin.elapsed());
        if let Err((index, why)) = await_one(build, index, left)? {
            let refused = build.auxiliary[index].booted.guest.first_refusal();
            let ended = Ended {
                refused,
                ..environment_end(config, begin, why)
            };
            return Ok(Err(failed(build, index, &ended, None)));
        }
        for (index, one) in build.auxiliary.iter_mut().enumerate() {
            let Some(upload) = one.booted.guest.take_upload(&ENVIRONMENTS) else {
                continue;
            };
            let text = upload.read(MAX_ENVIRONMENT_BYTES as u64)?;
            let environment = job.auxiliary[index].environment;
            let checked = AuxiliaryEnvironment::default().add(environment, &text);
            if let Err(why) = checked {
                let ended = environment_end(config, begin, Why::Invalid(why));
                return Ok(Err(failed(build, index, &ended, None)));
            }
            let (name, seconds) = (&one.name, begin.elapsed().as_secs());
            diag::info(format_args!(
                "auxiliary machine {name} is ready after {seconds} s"
            ))
            .emit();
            texts[index] = Some(text);
        }
    }
    // In the order of the task, so that the text for the worker is the same every time.
    for (index, text) in texts.iter().flatten().enumerate() {
        let added = variables.add(job.auxiliary[index].environment, text);
        if let Err(why) = added {
            let ended = environment_end(config, begin, Why::Invalid(why));
            return Ok(Err(failed(build, index, &ended, None)));
        }
    }
    Ok(Ok(variables))
}

/// Waits until one of the guests has uploaded something. Without that: the index of the
/// one that has failed, and why; `index` is one that is waited for.
fn await_one(
    build: &mut Build<'_, '_>,
    index: usize,
    limit: Duration,
) -> Result<Result<(), (usize, Why)>> {
    let mut one = build.auxiliary.remove(index);
    let guest = &mut one.booted.guest;
    let step = guest.await_environment(&ENVIRONMENTS, limit, &mut build.beside());
    let step = guest.with_evidence("auxiliary machine failure", step);
    build.auxiliary.insert(index, one);
    Ok(match step? {
        Step::Done(()) => Ok(()),
        // The number is among those without this one.
        Step::Ended(Ended {
            why: Why::Beside(other, why),
            ..
        }) => Err((other + usize::from(other >= index), *why)),
        Step::Ended(ended) => Err((index, ended.why)),
    })
}

/// The end of the phase in which the environments are waited for.
fn environment_end(config: &BuildSettings, begin: Instant, why: Why) -> Ended {
    Ended {
        phase: GuestPhase::Environment,
        limit: config.auxiliary,
        elapsed: begin.elapsed(),
        why,
        refused: None,
    }
}

/// Boots the guest of one auxiliary machine. `None`: the agent was told to stop.
fn boot<'w>(
    config: &BuildSettings,
    job: &Job<'_>,
    index: usize,
    put: &Path,
    build: &Build<'_, 'w>,
) -> Result<Option<AuxiliaryGuest<'w>>> {
    let needed = &job.auxiliary[index];
    let name = needed.machine.name();
    let rest = &mut |length| build.watch.rest(length);
    let snapshot = Snapshot::scratch_in_turn(needed.revision, needed.scratch, rest)?;
    let Some(snapshot) = snapshot else {
        return Ok(None);
    };
    let run_dir = machine::auxiliary_run_dir(&config.guest.run_dir, index + 1);
    let run_dir = Directory::create(&run_dir)?;
    fs::create_dir(put).context(|| format!("unable to create directory {}", put.display()))?;
    let settings = GuestSettings {
        tap: needed.tap.clone(),
        group: job.group(config, Some(index)),
        run_dir: run_dir.path().to_owned(),
        cpus: PROCESSORS,
        ram_kb: needed.ram_kb,
        display: None,
        idle_limit: None,
        ..config.guest.clone()
    };
    let (machine, revision) = (needed.machine, needed.revision);
    let run = GuestRun {
        map: Map::new().put(put),
        upload_limit: MAX_ENVIRONMENT_BYTES as u64,
        ..GuestRun::without_task(machine, revision, snapshot.path(), Memory::Anonymous)
    };
    Ok(match Guest::boot(&settings, run, build.watch)? {
        Step::Ended(_) => None,
        Step::Done(guest) => {
            diag::info(format_args!("started auxiliary machine {name}")).emit();
            Some(AuxiliaryGuest {
                name: name.to_owned(),
                booted: BootedGuest {
                    guest,
                    snapshot,
                    run_dir: Some(run_dir),
                },
            })
        }
    })
}

/// The end of a build whose auxiliary machine of this index has failed, and the guests
/// that are left, with that of the build, if it was booted.
pub(super) fn failed<'w>(
    build: &mut Build<'_, 'w>,
    index: usize,
    ended: &Ended,
    lead: Option<BootedGuest<'w>>,
) -> Performed<Remains<'w>> {
    let AuxiliaryGuest { name, mut booted } = build.auxiliary.remove(index);
    let what = format!("auxiliary machine {}", ended.title());
    let holds = booted.guest.report(&what, ended);
    let mut end = end_of_failure(build.stage, ended);
    if let BuildEnd::Failed(failure) = &mut end {
        failure.why = format!("auxiliary machine {name}: {}", failure.why);
        failure.auxiliary = Some(name);
    }
    let mut others = build.take_others();
    others.extend(lead);
    Performed {
        end,
        artifacts: None,
        guest: Some(Remains::new(booted, others, holds)),
    }
}

/// The end of a build whose guests are closed.
fn closed<'w>(build: &mut Build<'_, 'w>, end: BuildEnd) -> Performed<Remains<'w>> {
    for booted in build.take_others() {
        diag::report(booted.close());
    }
    Performed::of(end)
}
