//! What is owed to a controller: a finished result that could neither be stored
//! nor sent. It is kept in memory and tried again in each turn, and no work is
//! asked for until it is settled; so there is hardly ever more than one.
//!
//! Its journal entry is open all that time: if the agent ends before, the next
//! one gives the task back.

use super::Agent;
use super::artifacts::Member;
use crate::controller::address::UploadTarget;
use crate::controller::url::masked;
use crate::diag;
use crate::error::{Error, Result};
use crate::manifest::ResultRequest;
use crate::store::Accepted;

/// See the module.
#[derive(Debug)]
pub(super) struct Debt {
    pub(super) task: Accepted,
    /// Signed in the first attempt in which that can be done.
    pub(super) request: ResultRequest,
}

impl Agent {
    /// Stores a result, or sends it where the disk does not take it, or keeps it.
    ///
    /// # Errors
    ///
    /// The first thing that failed, even if the result is safe all the same.
    pub(super) fn settle(&mut self, mut debt: Debt, members: Vec<Member>) -> Result<()> {
        let mut faults = Vec::new();
        if let Err(error) = self.pay(&mut debt, members, &mut faults) {
            faults.push(error);
            // Without a store, what cannot be sent is lost: these are trials.
            if self.outbox.is_some() {
                self.debts.push(debt);
            }
        }
        let mut faults = faults.into_iter();
        let first = faults.next().map_or(Ok(()), Err);
        for error in faults {
            diag::failure(&error).emit();
        }
        first
    }

    /// Tries again what is owed, and reports; how much of it is left.
    pub(super) fn settle_debts(&mut self) -> usize {
        for debt in std::mem::take(&mut self.debts) {
            if let Err(error) = self.settle(debt, Vec::new()) {
                diag::failure(&error).emit();
            }
        }
        self.debts.len()
    }

    /// Says what is still owed when the agent ends.
    pub(super) fn lament(&self) {
        for Debt { task, .. } in &self.debts {
            diag::error(format_args!(
                "the result of {}/{} on {} could neither be stored nor sent",
                task.name, task.version, task.machine
            ))
            .info("the task is given back at the next start")
            .emit();
        }
    }

    /// One attempt. `Ok` is that nothing is owed any more; what went wrong on the
    /// way is in `faults`.
    fn pay(
        &mut self,
        debt: &mut Debt,
        mut members: Vec<Member>,
        faults: &mut Vec<Error>,
    ) -> Result<()> {
        if debt.request.challenge.is_none() {
            debt.request.challenge = self.sign(debt.task.challenge.as_deref())?;
        }
        let (task, request) = (&debt.task, &debt.request);
        let text = match self.fitting(request) {
            Ok(text) => text,
            // It will be no better the next time.
            Err(error) => {
                faults.push(error);
                return self.forget(task, faults);
            }
        };
        let mut artifacts: Vec<_> = members
            .iter_mut()
            .map(|member| member.artifact(request.challenge.clone()))
            .collect();
        if self.outbox.is_some() {
            match self.put(task, &text, &mut artifacts) {
                Ok(()) => return Ok(()),
                Err(error) => faults.push(error),
            }
            // They are the larger part by far, and must not cost the result.
            if !artifacts.is_empty() && self.put(task, &text, &mut []).is_ok() {
                return Ok(());
            }
        }
        let url = &task.result_url;
        let target = UploadTarget::parse(url).map_err(Error::new)?;
        match self.controllers.upload(&target, text.as_bytes()) {
            Ok(()) => self.forget(task, faults),
            Err(failure) => {
                let is_final = failure.is_final();
                let what = format!("unable to upload result to {}", masked(url));
                let error = failure.into_error(&what);
                if !is_final || self.outbox.is_none() {
                    return Err(error);
                }
                faults.push(error);
                self.forget(task, faults)
            }
        }
    }

    /// Nobody need be told of a task any more.
    fn forget(&mut self, task: &Accepted, faults: &mut Vec<Error>) -> Result<()> {
        if let Some(outbox) = &mut self.outbox
            && let Err(error) = outbox.dropped(&task.session)
        {
            faults.push(error);
        }
        Ok(())
    }
}
