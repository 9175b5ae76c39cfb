//! What the agent owes its controllers: a result for every task it took, or the
//! word that it gives it back.

use std::path::Path;
use std::time::SystemTime;

use super::debt::Debt;
use super::{Agent, artifacts};
use crate::controller::Assignment;
use crate::controller::address::UploadTarget;
use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::manifest::{Cut, ResultManifest, ResultRequest, Style, fit};
use crate::outbox::{entry, interrupted};
use crate::store::{Accepted, Artifact, Unfinished, uptime};

/// How many of the logs that were cut are named.
const CUTS_SHOWN: usize = 5;

impl Agent {
    /// Sends the results that wait and are due; how many are left.
    pub(super) fn deliver(&mut self) -> Result<usize> {
        let Some(outbox) = &mut self.outbox else {
            return Ok(0);
        };
        let delivery = outbox.deliver(&mut self.controllers, uptime(), &self.watch)?;
        Ok(delivery.waiting)
    }

    /// Notes that a task was taken on, before anything is done about it.
    pub(super) fn accepted(&mut self, assignment: &Assignment) -> Result<()> {
        match &mut self.outbox {
            Some(outbox) => outbox.accepted(&entry(assignment, SystemTime::now())),
            None => Ok(()),
        }
    }

    /// Notes that its machine is about to be started.
    pub(super) fn started(&mut self, assignment: &Assignment) -> Result<()> {
        match &mut self.outbox {
            Some(outbox) => outbox.started(&assignment.session),
            None => Ok(()),
        }
    }

    /// Stores a result and its artifacts, so that nothing can take them away any
    /// more; without a store, sends the result.
    ///
    /// # Errors
    ///
    /// What of ours failed. The result is safe all the same, or is tried again.
    pub(super) fn store(
        &mut self,
        assignment: &Assignment,
        result: ResultManifest,
        agent_checksum: Option<String>,
        archive: Option<&Path>,
    ) -> Result<()> {
        let members = archive.map_or(Ok(Vec::new()), |path| artifacts::open(path, assignment));
        let (members, unread) = match members {
            Ok(members) => (members, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        let debt = Debt {
            task: entry(assignment, SystemTime::now()),
            request: ResultRequest {
                session: assignment.session.clone(),
                challenge: None,
                agent_checksum,
                result,
            },
        };
        self.settle(debt, members).and(unread)
    }

    /// Puts a result into the store, where there is one.
    pub(super) fn put(
        &mut self,
        task: &Accepted,
        text: &str,
        artifacts: &mut [Artifact<'_>],
    ) -> Result<()> {
        match &mut self.outbox {
            Some(outbox) => outbox.store(task, text.as_bytes(), artifacts, SystemTime::now()),
            None => Ok(()),
        }
    }

    /// The text of a request that the controller will take.
    pub(super) fn fitting(&self, request: &ResultRequest) -> Result<String> {
        let limit = usize::try_from(self.options.result_limit).unwrap_or(usize::MAX);
        let (text, cuts) =
            fit(request, limit, Style::OLD).context(|| "unable to compose the result request")?;
        if !cuts.is_empty() {
            let bytes: usize = cuts.iter().map(|cut| cut.bytes).sum();
            let mut record = diag::warning(format_args!(
                "{bytes} bytes of the result are left out, to keep the result below --result-limit"
            ));
            // A worker gone wild may have sent thousands of them.
            for Cut { operation, bytes } in cuts.iter().take(CUTS_SHOWN) {
                record = record.info(format_args!("{bytes} bytes of {operation}"));
            }
            record.emit();
        }
        Ok(text)
    }

    pub(super) fn sign(&self, challenge: Option<&str>) -> Result<Option<String>> {
        match (challenge, &self.key) {
            (Some(challenge), Some(key)) => key.sign(challenge.as_bytes()).map(Some),
            (Some(_), None) => Err(no_key()),
            (None, _) => Ok(None),
        }
    }

    /// A task is given back: we were told to stop, or cannot take it on.
    pub(super) fn interrupted(&mut self, assignment: &Assignment) -> Result<()> {
        self.controllers.release(&assignment.result_url);
        self.give_back(&entry(assignment, SystemTime::now()))
    }

    /// Gives back what the former agent had under way when it died, and keeps
    /// others from what it had finished.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or written.
    pub(super) fn recover(&mut self, unfinished: Vec<Unfinished>) -> Result<()> {
        for Unfinished { accepted, .. } in unfinished {
            let Accepted {
                name,
                version,
                machine,
                ..
            } = &accepted;
            diag::warning(format_args!(
                "{name}/{version} on {machine} was under way when the agent ended"
            ))
            .info(format_args!(
                "{} may hand it out again",
                accepted.controller
            ))
            .emit();
            // One that cannot be given back (the key is gone, say) is no reason
            // not to start: its controller gives up on it by itself.
            if let Err(error) = self.give_back(&accepted) {
                diag::failure(&error).emit();
            }
        }
        match &self.outbox {
            Some(outbox) => outbox.hold(&mut self.controllers),
            None => Ok(()),
        }
    }

    fn give_back(&mut self, task: &Accepted) -> Result<()> {
        if UploadTarget::parse(&task.result_url).is_ok_and(|target| target.offers_again()) {
            return match &mut self.outbox {
                Some(outbox) => outbox.dropped(&task.session),
                None => Ok(()),
            };
        }
        if task.challenge.is_some() && self.key.is_none() {
            return Err(no_key());
        }
        if self.outbox.is_some() {
            let request = interrupted(task, None, self.options.legacy_request);
            let task = task.clone();
            self.settle(Debt { task, request }, Vec::new())?;
        }
        Ok(())
    }
}

/// The error for a challenge that cannot be signed.
pub(super) fn no_key() -> Error {
    Error::new("unable to sign the challenge of the controller: there is no key")
        .hint("name a key that the controller knows: --auth-key <file>")
}
