//! The guest of a task makes room for a task of higher priority: it is paused or ended.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::idle::IdleTimer;
use super::limit::Limit;
use super::{Guest, GuestPhase, Why};
use crate::control::{ControlSocket, Demand, DemandAnswer, DemandOf};
use crate::diag;
use crate::error::{Context as _, Result};
use crate::ledger::{self, ClaimState};
use crate::status::Phase;
use crate::sys::poll;
use crate::trace;

/// How long QEMU may take to stop a guest that is to be paused.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How the guest of a task makes room.
#[derive(Clone, Debug)]
pub struct Displacement {
    /// Where other agents ask for it.
    pub control: ControlSocket,
    /// The directory of the agent's claim on the host.
    pub run_dir: PathBuf,
    /// Whether it is paused where that is possible (`--interrupt`).
    pub pauses: bool,
    /// When the result of the task expires.
    pub expiry: Instant,
}

impl Guest<'_> {
    /// Makes room if another agent has asked for it. Returns why the phase ends, if it
    /// does.
    pub(super) fn make_room(
        &mut self,
        phase: GuestPhase,
        time: &mut Limit,
        idle: &mut IdleTimer,
        beside: &mut [&mut Guest<'_>],
    ) -> Result<Option<Why>> {
        let Some(displacement) = self.displacement.clone() else {
            return Ok(None);
        };
        let now = Instant::now();
        let Some(DemandOf { demand, agent }) = displacement.control.next(now) else {
            return Ok(None);
        };
        // A guest that boots has lost little, and one that waits for space on the disk is
        // suspended already.
        let can_pause = demand == Demand::Pause
            && displacement.pauses
            && phase == GuestPhase::Work
            && !self.machine.is_suspended();
        let last = displacement.expiry.checked_sub(time.left(now));
        match last.filter(|last| can_pause && now < *last) {
            Some(last) => {
                let start = Instant::now();
                let why = self.pause(&displacement, &agent, last, beside)?;
                time.was_away(start.elapsed());
                idle.skip();
                if why.is_none() {
                    let left = time.left(Instant::now());
                    self.watch.enter(Phase::Building, Some(left));
                }
                Ok(why)
            }
            None => Ok(Some(Why::Interrupted(agent))),
        }
    }

    /// Keeps the guest and those beside it paused until the other agent is done, until
    /// `last` at most. Returns why the phase ends, if it does.
    fn pause(
        &mut self,
        displacement: &Displacement,
        agent: &str,
        last: Instant,
        beside: &mut [&mut Guest<'_>],
    ) -> Result<Option<Why>> {
        let start = Instant::now();
        let mut stopped = self.stop(start)?;
        for guest in beside.iter_mut() {
            stopped &= guest.stop(start)?;
        }
        if !stopped {
            return Ok(Some(Why::Interrupted(agent.to_owned())));
        }
        ledger::set_state(&displacement.run_dir, ClaimState::Paused)?;
        displacement.control.answer(&DemandAnswer::Paused);
        diag::info(format_args!("paused for a task of {agent}")).emit();
        self.watch
            .enter(Phase::Paused, Some(last.saturating_duration_since(start)));
        let why = self.await_release(&displacement.control, agent, last)?;
        if why.is_some() {
            return Ok(why);
        }
        ledger::set_state(&displacement.run_dir, ClaimState::Running)?;
        displacement.control.hang_up();
        let now = Instant::now();
        let length = now.saturating_duration_since(start);
        diag::info(format_args!("goes on after {} s", length.as_secs())).emit();
        for guest in beside {
            guest.machine.resume(now);
        }
        self.machine.resume(now);
        if self.has_agent() {
            let is_set = self.set_time()?;
            trace!(3, "pause", "the guest agent has set the clock: {is_set}");
        }
        Ok(None)
    }

    /// Stops the guest's processors. Returns whether they stand.
    fn stop(&mut self, now: Instant) -> Result<bool> {
        self.machine.suspend(now);
        self.attend(Some(now + STOP_TIMEOUT), |machine| {
            machine.is_suspended() || machine.exited().is_some()
        })?;
        Ok(self.machine.is_suspended())
    }

    /// Waits until the other agent has closed the connection. Returns why the phase ends,
    /// if it does.
    fn await_release(
        &mut self,
        control: &ControlSocket,
        agent: &str,
        last: Instant,
    ) -> Result<Option<Why>> {
        loop {
            let now = Instant::now();
            self.watch.tick(now);
            while let Some(event) = self.machine.handle(now) {
                if let Some(why) = Why::of(event) {
                    return Ok(Some(why));
                }
            }
            if self.watch.must_stop() {
                return Ok(Some(Why::Stopped));
            }
            // Others that ask meanwhile are told that it is paused for one.
            let _ = control.next(now);
            if control.is_released() {
                return Ok(None);
            }
            if now >= last {
                return Ok(Some(Why::Interrupted(agent.to_owned())));
            }
            let socket = control.socket();
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.watch.fd()];
            fds.extend(self.machine.fds());
            fds.extend(socket.fds());
            let until = [self.watch.until(Some(last)), self.machine.deadline()];
            let mut ready = vec![false; fds.len()];
            poll::readable(&fds, &mut ready, until.into_iter().flatten().min())
                .context(|| format!("unable to wait for machine {}", self.label))?;
        }
    }

    /// Tells the agent for whose task the guest has ended that there is room. The claim on
    /// the host goes first.
    pub(super) fn has_made_room(&self) {
        if let Some(displacement) = &self.displacement
            && self.is_interrupted
        {
            ledger::release(&displacement.run_dir);
            displacement.control.answer(&DemandAnswer::Interrupted);
        }
    }
}
