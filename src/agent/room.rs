//! Room on the host for the guests of this agent, by its ledger.

use std::time::Duration;

use super::guests::GuestHost;
use crate::error::Result;
use crate::ledger::{
    Admission, ClaimGuard, ClaimState, HostClaim, HostLedger, HostView, Shortage, Work,
};
use crate::priority::Priority;

/// The room that a task has, until this goes.
#[derive(Debug)]
pub(super) struct TaskRoom {
    _claim: Option<ClaimGuard>,
}

impl GuestHost<'_> {
    /// The host as it is now, without this agent.
    pub(super) fn view(&self) -> Result<HostView> {
        self.ledger
            .as_ref()
            .map_or_else(|| Ok(HostView::default()), HostLedger::view)
    }

    /// Claims room for a guest that has no task.
    pub(super) fn claim(
        &self,
        work: Work,
        machine: &str,
    ) -> Result<Result<Option<ClaimGuard>, Shortage>> {
        let claim = HostClaim {
            owner: String::new(),
            work,
            state: ClaimState::Running,
            ram_kb: self.options.ram,
            cpus: self.options.cpu,
            priority: Priority::default(),
            machine: machine.to_owned(),
            task: None,
            accepted: None,
            is_interactive: false,
            host_ram_kb: 0,
            host_cpus: 0,
        };
        Ok(match self.enter(claim)? {
            (Admission::Waits(shortage), _) => Err(shortage),
            (_, guard) => Ok(guard),
        })
    }

    /// Claims room for the guests of a task.
    pub(super) fn make_room(&self, claim: HostClaim) -> Result<Result<TaskRoom, String>> {
        let (admission, guard) = self.enter(claim)?;
        Ok(match admission {
            Admission::Granted => Ok(TaskRoom { _claim: guard }),
            Admission::Displaces(victims) => {
                let owners: Vec<_> = victims.into_iter().map(|victim| victim.owner).collect();
                Err(format!("room that {} would make", owners.join(" and ")))
            }
            Admission::Waits(shortage) => Err(shortage.to_string()),
        })
    }

    fn enter(&self, claim: HostClaim) -> Result<(Admission, Option<ClaimGuard>)> {
        let Some(ledger) = &self.ledger else {
            return Ok((Admission::Granted, None));
        };
        let rest = &mut |length: Duration| self.watch.rest(length);
        ledger.claim(claim, rest)
    }
}
