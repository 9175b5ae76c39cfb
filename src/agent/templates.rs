//! Templates of machines: when they are made.
//!
//! A template is made in an idle turn. If its making fails, or its guest fails in the
//! first task so that it is made again, the next attempt comes after a pause that doubles.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::guests::GuestHost;
use super::setup;
use crate::backoff::Backoff;
use crate::delivery::Now;
use crate::diag;
use crate::error::Result;
use crate::ledger::Work;
use crate::machines::Machine;
use crate::perform::TASKS;
use crate::snapshot;
use crate::status::{self, Subject};
use crate::trace;
use crate::warm::{self, Made, TemplateState};

/// The first and the longest pause between the attempts for a machine.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The pauses after attempts to make templates, by the copy of the machine.
#[derive(Debug, Default)]
pub(super) struct TemplatePauses(HashMap<PathBuf, TemplatePause>);

#[derive(Debug)]
struct TemplatePause {
    /// The revision of the machine: another one is tried at once.
    id: String,
    backoff: Backoff,
    /// The uptime of the host until which no attempt is made.
    until: Duration,
}

impl TemplatePauses {
    /// The rest of the pause of a machine at `now`.
    fn left(&self, copy: &Path, id: &str, now: Duration) -> Option<Duration> {
        let pause = self.0.get(copy).filter(|pause| pause.id == id)?;
        pause.until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Counts an attempt at `now`. Pauses start over after a long time without one.
    fn attempted(&mut self, copy: &Path, id: &str, now: Duration) {
        self.0
            .retain(|_, pause| now < pause.until.saturating_add(LONGEST_PAUSE));
        let former = self.0.remove(copy).filter(|pause| pause.id == id);
        let mut backoff = former.map_or(Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), |former| {
            former.backoff
        });
        let pause = TemplatePause {
            id: id.to_owned(),
            until: now + backoff.failed(),
            backoff,
        };
        self.0.insert(copy.to_owned(), pause);
    }

    /// Ends all pauses.
    pub(super) fn retry(&mut self) {
        self.0.clear();
    }
}

/// The outcome of a look at the template of a machine.
pub(super) enum Prepared {
    /// Nothing was to be done.
    Nothing,
    /// It is to be made after a pause.
    Resting,
    /// It is to be made, and cannot be for now.
    Later(String),
    /// It was made, or found to be impossible.
    Template,
}

impl GuestHost<'_> {
    /// Makes the template of a machine, if it has none that is valid.
    pub(super) fn prepare(&mut self, machine: &Machine) -> Result<Prepared> {
        let settings = setup::warm(self.options, self.settings()?);
        let why = match warm::look(&settings, &machine.manifest, &machine.dir)? {
            TemplateState::Ready(_) | TemplateState::Unable => return Ok(Prepared::Nothing),
            TemplateState::Missing => "is missing".to_owned(),
            TemplateState::Stale(why) => why,
        };
        let shown = machine.dir.display();
        trace!(3, "prepare", "the template of {shown} {why}");
        let (id, now) = (machine.manifest.machine.id(), Now::read().uptime);
        if let Some(left) = self.pauses.left(&machine.dir, id, now) {
            let left = left.as_secs();
            trace!(3, "prepare", "it is not made for another {left} s");
            return Ok(Prepared::Resting);
        }
        // The memory is on the disk, and all of it may be in use.
        let space = snapshot::space(&machine.dir)?;
        let least = self.options.min_free.of(space.total) + self.options.ram * 1024;
        if space.available < least {
            return Ok(Prepared::Later(format!(
                "no template of {shown}: less than {} are free (--min-free and --ram)",
                status::bytes(least)
            )));
        }
        let name = machine.manifest.machine.name();
        let _claim = match self.claim(Work::Template, name)? {
            Ok(claim) => claim,
            Err(shortage) => {
                return Ok(Prepared::Later(format!(
                    "no template of {shown}: it waits for {shortage}"
                )));
            }
        };
        self.watch.subject(Subject {
            machine: Some(name.to_owned()),
            ..Subject::default()
        });
        let made = warm::make(
            &settings,
            &machine.manifest,
            &machine.dir,
            &TASKS,
            self.watch,
        );
        self.watch.subject(Subject::default());
        if !matches!(made, Ok(Made::Stopped)) {
            let now = Now::read().uptime;
            self.pauses.attempted(&machine.dir, id, now);
        }
        match made? {
            Made::Done => diag::info(format_args!("made template of {shown}")).emit(),
            Made::Unable(why) => {
                diag::warning(format_args!("{shown} cannot start warm: {why}")).emit();
            }
            Made::Stopped => return Ok(Prepared::Nothing),
        }
        Ok(Prepared::Template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour_and_end_with_a_new_revision() {
        let mut pauses = TemplatePauses::default();
        let copy = Path::new("/m");
        let mut now = Duration::from_secs(1000);
        assert_eq!(pauses.left(copy, "m-1.0", now), None);
        let mut all = Vec::new();
        for _ in 0..8 {
            pauses.attempted(copy, "m-1.0", now);
            let left = pauses.left(copy, "m-1.0", now).unwrap();
            all.push(left.as_secs());
            now += left;
            assert_eq!(pauses.left(copy, "m-1.0", now), None);
        }
        assert_eq!(all, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        pauses.attempted(copy, "m-1.0", now);
        assert_eq!(pauses.left(copy, "m-1.1", now), None);
        assert_eq!(pauses.left(Path::new("/n"), "m-1.0", now), None);
        pauses.retry();
        assert_eq!(pauses.left(copy, "m-1.0", now), None);
    }

    #[test]
    fn pauses_start_over_after_a_long_time() {
        let mut pauses = TemplatePauses::default();
        let copy = Path::new("/m");
        let mut now = Duration::from_secs(1000);
        for _ in 0..3 {
            pauses.attempted(copy, "m-1.0", now);
            now += Duration::from_secs(86_400);
        }
        pauses.attempted(copy, "m-1.0", now);
        assert_eq!(pauses.left(copy, "m-1.0", now), Some(FIRST_PAUSE));
    }
}
