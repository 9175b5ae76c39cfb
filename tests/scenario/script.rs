//! The script of a play.

use bbot_agent::controller::failure::{Failure, FailureClass};
use bbot_agent::manifest::ResultStatus;
use bbot_agent::perform::{BuildStage, FailedSide};

use super::shared::SharedHost;
use super::{BootstrapCourse, MINUTE};

/// The answer of a controller that is asked for a task.
#[derive(Clone, Copy, Debug)]
pub enum Offers {
    /// A task for the machine, with these further lines.
    Task(&'static str, &'static str),
    /// A task for the machine, after some seconds.
    TaskIn(u64, &'static str),
    /// No task.
    Nothing,
    /// No answer before the connection times out, in seconds.
    Hangs(u64),
    /// An error at once.
    Refuses,
}

/// The course of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Seconds until it ends.
    pub seconds: u64,
    /// How it ends.
    pub end: CourseEnd,
    /// Seconds for which it is held then.
    pub hold: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum CourseEnd {
    Result(ResultStatus),
    Failed(FailedSide, BuildStage),
    AuxiliaryFailed(&'static str),
}

type Bootstraps = Box<dyn FnMut(&str, u64) -> BootstrapCourse>;
type Guests = Box<dyn FnMut(&str, u64) -> Course>;

/// The script. Each is asked with the present second.
pub struct Script {
    pub machines: Vec<&'static str>,
    /// Auxiliary machines, of 256 MiB at least.
    pub auxiliary: Vec<&'static str>,
    /// Machines without a copy: the course of their bootstraps.
    pub new_machines: Vec<&'static str>,
    pub bootstraps: Bootstraps,
    /// When the operator has failed bootstraps tried again.
    pub retry_at: Option<u64>,
    /// Of a controller: what it offers.
    pub controllers: Vec<Box<dyn FnMut(u64) -> Offers>>,
    /// Of a controller: its priority, if it has one.
    pub priorities: Vec<u32>,
    /// Whether a controller takes results.
    pub takes: Box<dyn FnMut(usize, u64) -> Result<(), Failure>>,
    /// Of a machine: the course of its guest.
    pub guests: Guests,
    /// How many templates there are to make, a minute each.
    pub templates: u32,
    /// A task that was given back to a controller.
    pub given_back: Box<dyn FnMut(usize)>,
    /// Why no task finds room, if none does.
    pub no_room: Option<&'static str>,
    /// The host that the agent shares with others.
    pub host: SharedHost,
    /// What the host lacks.
    pub lacks: Box<dyn FnMut(u64) -> Option<&'static str>>,
}

impl Script {
    /// Two machines; controllers take every result, guests succeed after a minute.
    pub fn new() -> Script {
        Script {
            machines: vec!["linux", "windows"],
            auxiliary: Vec::new(),
            new_machines: Vec::new(),
            bootstraps: Box::new(|_, _| unreachable!("all machines have copies")),
            retry_at: None,
            controllers: Vec::new(),
            priorities: Vec::new(),
            takes: Box::new(|_, _| Ok(())),
            guests: Box::new(|_, _| success(MINUTE)),
            templates: 0,
            given_back: Box::new(|_| {}),
            no_room: None,
            host: SharedHost::alone(),
            lacks: Box::new(|_| None),
        }
    }

    pub fn controller(mut self, offers: impl FnMut(u64) -> Offers + 'static) -> Script {
        self.controllers.push(Box::new(offers));
        self
    }
}

pub fn success(seconds: u64) -> Course {
    Course {
        seconds,
        end: CourseEnd::Result(ResultStatus::Success),
        hold: 0,
    }
}

pub fn failed(seconds: u64, side: FailedSide, stage: BuildStage) -> Course {
    Course {
        seconds,
        end: CourseEnd::Failed(side, stage),
        hold: 0,
    }
}

pub fn out_of_reach() -> Failure {
    Failure::new(FailureClass::Connect, "connection refused")
}
