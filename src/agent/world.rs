//! The actions of the loop on the world. The loop itself reads no clock, opens no file
//! and starts no process, so that a test can play the world and make days pass in
//! milliseconds.

use std::rc::Rc;
use std::time::Duration;

use crate::controller::failure::Failure;
use crate::controller::{Assignment, Controllers};
use crate::delivery::{Courier, Now};
use crate::error::Result;
use crate::ledger::{HostClaim, HostView};
use crate::machines::{Enumeration, Machine, TaskMachines};
use crate::manifest::TaskRequest;
use crate::perform::{HeldGuest, Performed};
use crate::status::{Idle, Laps};
use crate::watch::{Stop, Watch};

/// The room on the host that a task has, until this goes.
pub trait Room {
    /// Has the tasks that made room go on: this one has ended, and its guest uses no
    /// processor any more.
    fn end_task(&mut self) -> Result<()>;
}

/// Host, guests and controllers.
pub trait World {
    /// The guest of a build that has ended.
    type Guest: HeldGuest;

    /// The room that a task has.
    type Room: Room;

    /// The present time.
    fn now(&self) -> Now;

    /// Where the status is published.
    fn watch(&self) -> &Watch;

    /// The stop that the operator asked for by a signal, if any.
    fn stop(&self) -> Option<Stop> {
        self.watch().stop()
    }

    /// Removes what a killed agent left behind.
    fn sweep(&mut self);

    /// Looks whether the host has what guests need. With `anew` nothing is taken
    /// from earlier looks.
    fn probe(&mut self, anew: bool) -> Result<()>;

    /// Whether the operator has asked since the last call to try again at once what
    /// failed. The pauses after failed bootstraps have ended then.
    fn take_retry(&mut self) -> bool;

    /// Lists the machines, and bootstraps those that need it.
    fn enumerate(&mut self) -> Result<Enumeration>;

    /// Has results for HTTP controllers sent beside the agent's work; with `wait` gives
    /// that a moment. Returns false if the agent is to send them itself.
    fn deliver_beside(&mut self, wait: bool) -> bool;

    /// Gives the warning `text` about `subject`, unless it was given before, by an
    /// earlier agent for instance. Without a text it is new the next time.
    fn note(&mut self, subject: &str, text: Option<String>);

    /// The controllers: their order, names and priorities.
    fn controllers(&mut self) -> &mut Controllers;

    /// The way of results to them.
    fn courier(&mut self) -> &mut dyn Courier;

    /// The host as it is now, without this agent.
    fn host(&mut self) -> Result<HostView>;

    /// Asks a controller for a task.
    fn ask(&mut self, number: usize, request: &TaskRequest) -> Result<Option<Assignment>, Failure>;

    /// Claims room for the guests of a task, and has tasks of lower priority make room if
    /// need be. Without room: what the task would wait for.
    fn make_room(&mut self, claim: HostClaim) -> Result<Result<Self::Room, String>>;

    /// Builds a task.
    fn perform(
        &mut self,
        assignment: &Assignment,
        machines: &TaskMachines,
        laps: &mut Laps,
    ) -> Performed<Self::Guest>;

    /// Makes the template of one of the machines, if one of them is to start warm and
    /// has none. Returns whether it was made or found to be impossible.
    fn prepare(&mut self, machines: &[Rc<Machine>]) -> bool;

    /// Waits between turns for `length`, or until a signal comes in.
    fn idle(&mut self, reason: Idle, detail: &str, length: Duration);
}
