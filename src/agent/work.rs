//! The loop: turn after turn, until there is a reason to stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::ask::Resting;
use super::pauses::Pauses;
use super::setup;
use super::turn::Turn;
use super::world::World;
use crate::breaker::Breaker;
use crate::cli::{Options, Turns};
use crate::controller::Shuffle;
use crate::delivery::{Delivery, UnfinishedTask};
use crate::diag;
use crate::error::{Class, Context as _, Result};
use crate::manifest::SerializeError;
use crate::network::NetworkClaim;
use crate::status::Idle;
use crate::watch::Stop;

/// Advice for a host that lacks something.
const SEE_CHECK: &str = "see all that this host lacks: bbot-agent --check [options]";

/// Exit status after `SIGHUP`: the supervisor is to start the agent again.
const RESTART: u8 = 3;

/// How long a machine is not offered after a guest that made no request: the first and
/// the longest pause.
const FIRST_MACHINE_PAUSE: Duration = Duration::from_secs(5 * 60);
const MAX_MACHINE_PAUSE: Duration = Duration::from_secs(3600);

/// An agent for one toolchain and instance. It holds what cannot be read again from
/// the disk.
#[derive(Debug)]
pub struct Agent<W> {
    pub(super) options: Options,
    pub(super) world: W,
    pub(super) delivery: Delivery,
    pub(super) breaker: Breaker,
    /// Controllers that are not asked for a while, by number.
    pub(super) resting: BTreeMap<usize, Resting>,
    /// Machines that are not offered for a while, because their guests failed before they
    /// had a task.
    pub(super) resting_machines: Pauses,
    /// Draws the machines of a request that cannot have all.
    pub(super) shuffle: Shuffle,
    /// The version of the toolchain that controllers are told.
    pub(super) toolchain_version: String,
    /// Whether the host is examined anew before the next request for work.
    pub(super) probe_anew: bool,
    /// The claim of the port at which users look at guests.
    pub(super) display: Option<NetworkClaim>,
    /// Counts turns, and spreads pauses.
    pub(super) turns: u32,
}

impl<W: World> Agent<W> {
    /// An agent in `world`.
    pub fn new(options: Options, world: W, delivery: Delivery) -> Agent<W> {
        Agent {
            breaker: Breaker::new(options.breaker),
            resting: BTreeMap::new(),
            resting_machines: Pauses::new(FIRST_MACHINE_PAUSE, MAX_MACHINE_PAUSE),
            toolchain_version: options.toolchain_ver.clone().unwrap_or_default(),
            options,
            world,
            delivery,
            shuffle: Shuffle::seeded(),
            probe_anew: true,
            display: None,
            turns: 0,
        }
    }

    /// Keeps the machines that are not offered for a while in the directory `state`.
    pub fn keep(&mut self, state: &Path) {
        self.resting_machines.keep(state.join("resting"));
    }

    /// Gives back the tasks that were under way when the former agent ended.
    pub fn recover(&mut self, unfinished: Vec<UnfinishedTask>) {
        for UnfinishedTask { task, started } in unfinished {
            let state = if started { "being built" } else { "accepted" };
            diag::warning(format_args!("{task} was {state} when the agent ended"))
                .info(format_args!(
                    "it is {} {}",
                    task.way_back(),
                    task.controller
                ))
                .emit();
            // A task that cannot be given back (without its key, for instance) does
            // not keep the agent from starting: its controller times out.
            let why = "the agent ended while the task was performed";
            diag::report(self.give_back(&task, why));
        }
    }

    /// Turn after turn. Returns the exit status.
    pub fn work(&mut self) -> Result<u8> {
        loop {
            let turn = self.turn();
            self.turns = self.turns.wrapping_add(1);
            if let Some(status) = self.stopped() {
                return Ok(status);
            }
            let once = self.options.turns != Turns::Endless;
            let (reason, detail) = match turn {
                Ok(Turn::Dumped) => return Ok(0),
                Ok(Turn::Worked | Turn::Prepared) if once => return Ok(0),
                Ok(Turn::Worked | Turn::Prepared) => continue,
                Ok(Turn::Idle(Idle::ControllersDown | Idle::ResultsWaiting, _)) if once => {
                    return Ok(Class::Unavailable.exit_code());
                }
                Ok(Turn::Idle(..)) if once => return Ok(0),
                Ok(Turn::Failed(_) | Turn::Broken(_)) if once => {
                    return Ok(Class::Failure.exit_code());
                }
                Err(error) if once => return Err(error),
                Ok(Turn::NotReady(error)) if once => return Err(error.hint(SEE_CHECK)),
                Ok(Turn::Idle(reason, detail)) => (reason, detail),
                Ok(Turn::Failed(why)) => (Idle::Failed, why),
                Ok(Turn::Broken(detail)) => (Idle::NoMachines, detail),
                Ok(Turn::NotReady(error)) => {
                    let detail = error.to_string();
                    diag::failure(&error.hint(SEE_CHECK)).emit();
                    (Idle::HostNotReady, detail)
                }
                Err(error) => {
                    diag::failure(&error).emit();
                    (Idle::Failed, error.to_string())
                }
            };
            let pause = setup::jitter(self.options.poll_interval, self.turns.wrapping_mul(7919));
            self.world.idle(reason, &detail, pause);
            if let Some(status) = self.stopped() {
                return Ok(status);
            }
        }
    }

    /// Reports what is lost with the end of the agent.
    pub fn end(&self) {
        self.delivery.report_unsaved();
    }

    /// The exit status, if a signal asked for the end.
    fn stopped(&self) -> Option<u8> {
        match self.world.stop()? {
            Stop::Restart => Some(RESTART),
            Stop::Drain | Stop::Terminate | Stop::Hurry => Some(0),
        }
    }
}

/// A manifest as text.
pub(super) fn compose(text: std::result::Result<String, SerializeError>) -> Result<String> {
    text.context(|| "unable to compose a manifest")
}
