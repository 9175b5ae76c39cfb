//! A task in the guest of a template.
//!
//! A fault of the template or of its guest costs time and not the task: the template is
//! deleted, and the task starts cold.

use std::fs;
use std::time::{Duration, Instant};

use super::{Build, BuildEnd, BuildSettings, BuildStage, Job, Performed, Remains, finish, work};
use crate::diag::{self, Record};
use crate::error::{Context as _, Error, Result};
use crate::guest::{Guest, GuestPhase, Step, Why};
use crate::snapshot::Snapshot;
use crate::status::Phase;
use crate::sys::tree::remove_tree;
use crate::tftp::Map;
use crate::trace;
use crate::warm::{self, Template, TemplateState, WarmSettings};

/// The time for a restored guest to show that it runs.
const WORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Performs a job in the guest of its machine's template. `None`: it starts cold.
pub(super) fn attempt<'w>(
    config: &BuildSettings,
    job: &Job<'_>,
    map: &Map,
    build: &mut Build<'_, 'w>,
) -> Result<Option<Performed<Remains<'w>>>> {
    let Some(age) = config.warm else {
        return Ok(None);
    };
    let settings = WarmSettings {
        guest: config.guest.clone(),
        startup: config.startup,
        age,
    };
    let why = match warm::look(&settings, job.machine, job.directory) {
        Ok(TemplateState::Missing | TemplateState::Unable) => return Ok(None),
        Ok(TemplateState::Stale(why)) => Error::new(format!("its template {why}")),
        Ok(TemplateState::Ready(template)) => match restore(config, job, &template, map, build) {
            Ok(performed) => return Ok(Some(performed)),
            Err(error) => error,
        },
        Err(error) => error,
    };
    let warning = diag::warning(format_args!(
        "machine {} starts cold: {why}",
        job.directory.display()
    ));
    let warning = why.hints().fold(warning, Record::info);
    warning
        .info("its template is made anew when there is no task")
        .emit();
    diag::report(warm::discard(&warm::path(
        job.directory,
        config.guest.instance,
    )));
    if let Some(put) = map.put_root() {
        // The guest may have uploaded something.
        remove_tree(put)
            .and_then(|()| fs::create_dir(put))
            .context(|| format!("unable to empty directory {}", put.display()))?;
    }
    build.stage = BuildStage::BeforeTask;
    build.laps.lap("template", Instant::now());
    Ok(None)
}

fn restore<'w>(
    config: &BuildSettings,
    job: &Job<'_>,
    template: &Template,
    map: &Map,
    build: &mut Build<'_, 'w>,
) -> Result<Performed<Remains<'w>>> {
    let rest = &mut |length| build.watch.rest(length);
    let snapshot = Snapshot::scratch_in_turn(&template.path, job.directory, rest)?;
    let Some(snapshot) = snapshot else {
        return Ok(Performed::of(BuildEnd::Stopped));
    };
    template.verify()?;
    build.laps.lap("snapshot", Instant::now());
    build.watch.enter(Phase::Booting, None);
    let boot = job.guest(snapshot.path(), template.memory(), map.clone(), config);
    let Step::Done(mut guest) = Guest::boot(&job.settings(config), boot, build.watch)? else {
        return Ok(Performed::of(BuildEnd::Stopped));
    };
    template.verify_gateway(guest.gateway())?;
    if template.has_agent() {
        let is_set = guest.set_time()?;
        trace!(3, "restore", "the guest agent has set the clock: {is_set}");
    }
    guest.answer(&template.request()?)?;
    let step = guest.await_word(WORD_TIMEOUT, &mut build.beside())?;
    build.laps.lap("restore", Instant::now());
    let step = match step {
        Step::Done(()) => work(config, &mut guest, build)?,
        Step::Ended(ended) => Step::Ended(ended),
    };
    match &step {
        // A guest that ends by itself, at whatever point, may do so because it was
        // restored. That of an interactive build is ended by its user.
        Step::Ended(ended)
            if ended.phase == GuestPhase::Restore
                && !matches!(
                    ended.why,
                    Why::Stopped | Why::Interrupted(_) | Why::Beside(..)
                )
                || matches!(ended.why, Why::Lost(_)) && job.task.interactive().is_none() =>
        {
            let failure = guest.failure("failure of a restored guest", ended);
            guest.close().and(snapshot.close())?;
            Err(failure)
        }
        _ => finish(config, job.task, (guest, snapshot), step, build),
    }
}
