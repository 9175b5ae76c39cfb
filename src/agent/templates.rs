//! Templates of machines: when they are made.
//!
//! A template is made in an idle turn. If its making fails, or its guest fails in the
//! first task so that it is made again, the next attempt comes after a pause that doubles.

use std::path::Path;
use std::time::Duration;

use super::guests::GuestHost;
use super::setup;
use crate::delivery::Now;
use crate::diag;
use crate::error::{Context as _, Result};
use crate::evidence::EvidenceStore;
use crate::ledger::Work;
use crate::machines::Machine;
use crate::perform::TASKS;
use crate::status::Subject;
use crate::trace;
use crate::warm::{self, Made, TemplateState};

/// The first and the longest pause between the attempts for a machine.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(60);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

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
        let mut settings = setup::warm(self.options, self.settings()?);
        let why = match warm::look(&settings, &machine.manifest, &machine.dir)? {
            TemplateState::Ready(_) | TemplateState::Unable => return Ok(Prepared::Nothing),
            TemplateState::Missing => "is missing".to_owned(),
            TemplateState::Stale(why) => why,
        };
        let shown = machine.dir.display();
        trace!(3, "prepare", "the template of {shown} {why}");
        let (id, now) = (machine.manifest.machine.id(), Now::read().uptime);
        let copy = machine.dir.to_string_lossy();
        // A template that has to be made anew after a long time has not failed.
        self.pauses.expire(LONGEST_PAUSE, now);
        if let Some(left) = self.pauses.left(&copy, id, now) {
            let left = left.as_secs();
            trace!(3, "prepare", "it is not made for another {left} s");
            return Ok(Prepared::Resting);
        }
        if self.pauses.has(&copy, id) {
            // The evidence of the first attempt is enough: more would displace that of tasks.
            settings.guest.evidence = EvidenceStore::new(Path::new(""), 0);
        }
        let (min_free, ram) = (self.options.min_free, self.options.ram);
        if let Some(why) = warm::space_shortage(&machine.dir, min_free, ram)? {
            return Ok(Prepared::Later(format!("no template of {shown}: {why}")));
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
            self.pauses.add(&copy, id, Now::read().uptime);
        }
        match made.context(|| format!("unable to make the template of {shown}"))? {
            Made::Done => diag::info(format_args!("made template of {shown}")).emit(),
            Made::Unable(why) => {
                diag::warning(format_args!("{shown} cannot start warm: {why}")).emit();
            }
            Made::Stopped => return Ok(Prepared::Nothing),
        }
        Ok(Prepared::Template)
    }
}
