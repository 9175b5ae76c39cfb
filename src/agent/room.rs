//! Room on the host for the guests of this agent, by its ledger.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::guests::GuestHost;
use super::setup;
use super::world::Room;
use crate::cli::Options;
use crate::control::{self, ControlSocket, Demand, DemandAnswer, PausedGuest};
use crate::diag;
use crate::error::{Error, Result};
use crate::guest;
use crate::ledger::{
    self, Admission, ClaimGuard, ClaimState, HostClaim, HostLedger, HostView, Method, Shortage,
    Victim, Work,
};
use crate::priority::Priority;
use crate::status::Phase;

/// The time for another agent to make room: its guest is ended within a second or two.
const DISPLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of attempts to find room. A task that was to make room may have ended
/// meanwhile.
const MAX_ATTEMPTS: u32 = 3;
/// The pause before another attempt. The claim of an agent that was killed is valid until
/// the kernel has freed its lock.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(200);

/// The room that a task has, until this goes.
#[derive(Debug)]
pub(super) struct TaskRoom {
    // Dropped in this order: the paused guests need the room.
    claim: Option<ClaimGuard>,
    paused: Vec<PausedGuest>,
    run_dir: PathBuf,
}

impl Room for TaskRoom {
    fn end_task(&mut self) -> Result<()> {
        let noted = match &self.claim {
            Some(_) => ledger::set_state(&self.run_dir, ClaimState::Ended),
            None => Ok(()),
        };
        self.paused.clear();
        noted
    }
}

/// How the guest of a task that begins now makes room for a task of higher priority. The
/// other agents can ask for it from now on.
pub(super) fn displacement(options: &Options) -> Result<guest::Displacement> {
    let run_dir = setup::run_dir(options);
    Ok(guest::Displacement {
        control: ControlSocket::open(&run_dir)?,
        run_dir,
        pauses: options.pauses,
        expiry: Instant::now() + options.result_expiry,
    })
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
    pub(super) fn make_room(&self, claim: &HostClaim) -> Result<Result<TaskRoom, String>> {
        let mut why = String::new();
        for _ in 0..MAX_ATTEMPTS {
            let (admission, guard) = self.enter(claim.clone())?;
            let run_dir = setup::run_dir(self.options);
            let displaced = match admission {
                Admission::Granted => Ok(Vec::new()),
                Admission::Displaces(victims) => {
                    self.watch.enter(Phase::Waiting, Some(DISPLACE_TIMEOUT));
                    let displaced: Result<_> =
                        victims.iter().map(|victim| self.displace(victim)).collect();
                    displaced.and_then(|paused| {
                        ledger::set_state(&run_dir, ClaimState::Running)?;
                        Ok(paused)
                    })
                }
                Admission::Waits(shortage) => return Ok(Err(shortage.to_string())),
            };
            match displaced {
                Ok(paused) => {
                    return Ok(Ok(TaskRoom {
                        claim: guard,
                        paused,
                        run_dir,
                    }));
                }
                Err(error) => why = error.to_string(),
            }
            drop(guard);
            if !self.watch.rest(ATTEMPT_INTERVAL) {
                break;
            }
        }
        Ok(Err(why))
    }

    /// Has the task of another agent make room.
    fn displace(&self, victim: &Victim) -> Result<PausedGuest> {
        let wanted = match victim.method {
            Method::Pause => Demand::Pause,
            Method::Interrupt => Demand::Interrupt,
        };
        let (answer, paused) = control::demand(
            &self.options.run_dir.join(&victim.owner),
            wanted,
            &setup::owner(self.options),
            Instant::now() + DISPLACE_TIMEOUT,
            &mut |fds, deadline| self.watch.wait(fds, deadline),
        )?;
        let text = match answer {
            DemandAnswer::Paused => "paused",
            DemandAnswer::Interrupted => "interrupted",
            DemandAnswer::Refused(why) => {
                let owner = &victim.owner;
                return Err(Error::new(format!("{owner} does not make room: {why}")));
            }
        };
        diag::info(format_args!("the task of {} is {text}", victim.owner)).emit();
        Ok(paused)
    }

    fn enter(&self, claim: HostClaim) -> Result<(Admission, Option<ClaimGuard>)> {
        let Some(ledger) = &self.ledger else {
            return Ok((Admission::Granted, None));
        };
        let rest = &mut |length: Duration| self.watch.rest(length);
        ledger.claim(claim, rest)
    }
}
