//! What becomes of a task when its agent dies, or is told to stop: its
//! controller is told, so that it hands the task out again at once and not in
//! hours.

use super::Agent;
use super::turn::wall_clock;
use crate::controller::{Assignment, Controllers};
use crate::diag;
use crate::error::Result;
use crate::manifest::{ResultStatus, TaskManifest, explained};
use crate::store::{Accepted, Stage, Unfinished};

impl Agent {
    /// Notes that a task was taken on, before anything is done about it.
    pub(super) fn accepted(&mut self, assignment: &Assignment, machine: &str) -> Result<()> {
        let Some(outbox) = &mut self.outbox else {
            return Ok(());
        };
        outbox.accept(&Accepted {
            at: wall_clock(),
            session: assignment.session.clone(),
            controller: assignment.controller.clone(),
            result_url: assignment.result_url.clone(),
            challenge: assignment.challenge.clone(),
            name: assignment.task.name().to_owned(),
            version: assignment.task.version().to_owned(),
            machine: machine.to_owned(),
        })
    }

    /// Notes that its machine is about to be started.
    pub(super) fn started(&mut self, assignment: &Assignment) -> Result<()> {
        match &mut self.outbox {
            Some(outbox) => outbox.reached(&assignment.session, Stage::Started),
            None => Ok(()),
        }
    }

    /// A task is given back: we were told to stop.
    pub(super) fn interrupted(&mut self, assignment: &Assignment) -> Result<()> {
        if Controllers::offers_again(&assignment.result_url) {
            return self.given_back(&assignment.session);
        }
        let why = "the agent was told to stop";
        let result = explained(&assignment.task, self.interruption(), why);
        self.store(assignment, assignment.task.machine(), result, None, None)
    }

    /// Gives back what the former agent had under way when it died.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub(super) fn recover(&mut self) -> Result<()> {
        let unfinished = match &mut self.outbox {
            Some(outbox) => std::mem::take(&mut outbox.unfinished),
            None => return Ok(()),
        };
        for Unfinished { accepted, .. } in unfinished {
            let Accepted {
                name,
                version,
                machine,
                controller,
                ..
            } = &accepted;
            diag::warning(format_args!(
                "{name}/{version} on {machine} for {controller} was under way when the agent ended"
            ))
            .info("its controller is told, and may hand it out again")
            .emit();
            if Controllers::offers_again(&accepted.result_url) {
                self.given_back(&accepted.session)?;
                continue;
            }
            let task = TaskManifest::minimal(name, version, machine);
            let why = "the agent ended while the task was under way";
            let result = explained(&task, self.interruption(), why);
            let machine = machine.clone();
            let assignment = Assignment {
                controller: accepted.controller,
                session: accepted.session,
                challenge: accepted.challenge,
                result_url: accepted.result_url,
                upload_urls: Vec::new(),
                agent_checksum: None,
                task,
            };
            self.store(&assignment, &machine, result, None, None)?;
        }
        self.hold_stored()
    }

    /// The status that makes a controller hand out a task again.
    fn interruption(&self) -> ResultStatus {
        if self.options.legacy_request {
            ResultStatus::Abort
        } else {
            ResultStatus::Interrupt
        }
    }

    /// A task that its controller will offer again by itself.
    fn given_back(&mut self, session: &str) -> Result<()> {
        match &mut self.outbox {
            Some(outbox) => outbox.reached(session, Stage::Sent),
            None => Ok(()),
        }
    }

    /// Tasks of directories whose results are stored must not be offered again
    /// before these are delivered.
    fn hold_stored(&mut self) -> Result<()> {
        let Some(outbox) = &self.outbox else {
            return Ok(());
        };
        for stored in outbox.waiting()? {
            self.controllers.hold(&stored.envelope.result_url);
        }
        Ok(())
    }
}
