//! Results that are not stored yet: each is stored, or sent where the disk does not
//! take it, or kept in memory.

use super::artifacts::Artifact;
use super::{Courier, Delivery, Now, Stage, TaskRecord, first_of};
use crate::diag;
use crate::error::{Error, Result};
use crate::manifest::ResultRequest;

/// A result that is in memory only.
#[derive(Debug)]
pub(super) struct UnsavedResult {
    pub(super) task: TaskRecord,
    /// Its challenge is signed in the first attempt in which that is possible.
    pub(super) request: ResultRequest,
}

impl Delivery {
    /// Stores or sends a result; keeps it if neither is possible.
    pub(super) fn save(
        &mut self,
        mut unsaved: UnsavedResult,
        artifacts: Vec<Artifact>,
        now: Now,
        courier: &mut dyn Courier,
    ) -> Result<()> {
        let mut faults = Vec::new();
        if let Err(error) = self.try_save(&mut unsaved, artifacts, now, courier, &mut faults) {
            faults.push(error);
            // A trial run has no store and drops a result that it cannot send.
            if self.store.is_some() {
                self.unsaved.push(unsaved);
            }
        }
        first_of(faults)
    }

    /// Tries again to store or send the results that are in memory only.
    pub(super) fn save_again(&mut self, now: Now, courier: &mut dyn Courier) {
        for unsaved in std::mem::take(&mut self.unsaved) {
            diag::report(self.save(unsaved, Vec::new(), now, courier));
        }
    }

    /// Reports the results that are in memory only, at the end of the agent.
    pub fn report_unsaved(&self) {
        for UnsavedResult { task, .. } in &self.unsaved {
            diag::error(format_args!(
                "the result of {task} could neither be stored nor sent"
            ))
            .info("the task is given back at the next start")
            .emit();
        }
    }

    /// Makes one attempt. `Ok` means that nothing is left to do; errors met on the
    /// way go to `faults`.
    fn try_save(
        &mut self,
        UnsavedResult { task, request }: &mut UnsavedResult,
        mut artifacts: Vec<Artifact>,
        now: Now,
        courier: &mut dyn Courier,
        faults: &mut Vec<Error>,
    ) -> Result<()> {
        if request.challenge.is_none() {
            request.challenge = self.sign(task)?;
        }
        let text = match self.compose(request) {
            Ok(text) => text,
            // Another attempt would fail the same way.
            Err(error) => {
                faults.push(error);
                return self.close_noting(task, faults);
            }
        };
        let challenge = request.challenge.as_deref();
        match self.put(task, &text, challenge, &mut artifacts, now) {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => faults.push(error),
            None => {}
        }
        // Artifacts are much larger than the result, which may fit without them.
        if !artifacts.is_empty()
            && let Some(Ok(())) = self.put(task, &text, None, &mut [], now)
        {
            return Ok(());
        }
        match courier.send_result(&task.result_url, text.as_bytes()) {
            Ok(()) => self.close_noting(task, faults),
            Err(failure) => {
                let is_final = failure.is_final();
                let what = format!("unable to upload result to {}", task.result_url);
                let error = failure.into_error(&what);
                if !is_final || self.store.is_none() {
                    return Err(error);
                }
                faults.push(error);
                self.close_noting(task, faults)
            }
        }
    }

    /// Puts a result into the queue. `None`: there is no store.
    fn put(
        &mut self,
        task: &TaskRecord,
        text: &str,
        challenge: Option<&str>,
        artifacts: &mut [Artifact],
        now: Now,
    ) -> Option<Result<()>> {
        let store = self.store.as_mut()?;
        let (seconds, text) = (now.wall.as_secs(), text.as_bytes());
        let put = store.queue.put(
            seconds,
            task,
            text,
            challenge,
            artifacts,
            &store.books.reserve,
        );
        if put.is_ok()
            && let Err(error) = store.books.journal.reached(&task.session, Stage::Stored)
        {
            // The result is safe, and the next start corrects the journal.
            diag::failure(&error).emit();
        }
        Some(put)
    }

    fn close_noting(&mut self, task: &TaskRecord, faults: &mut Vec<Error>) -> Result<()> {
        faults.extend(self.close(task).err());
        Ok(())
    }
}
