//! The whole agent in a world that a test plays: time is a number, and machines,
//! guests and controllers follow a script, so that days pass in milliseconds. The
//! assertions are about the agent as a whole: the share of its time, who was asked
//! how often, what each controller got and when, what the status said.

mod bootstraps;
mod controllers;
mod faults;
mod machines;
mod record;
mod results;
mod script;
mod several;
mod shared;

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::iter;
use std::rc::Rc;
use std::time::Duration;

use bbot_agent::agent::{Agent, World, setup};
use bbot_agent::cli::{self, Invocation, Options};
use bbot_agent::controller::address::UploadTarget;
use bbot_agent::controller::failure::{Failure, FailureClass};
use bbot_agent::controller::{Assignment, Controllers};
use bbot_agent::delivery::{Courier, Delivery, Now, StoredArtifact};
use bbot_agent::error::{Error, Result};
use bbot_agent::ledger::{HostClaim, HostView};
use bbot_agent::machines::{Enumeration, Machine, Machines, MachinesSettings, TaskMachines};
use bbot_agent::manifest::{
    ResultManifest, ResultRequest, ResultStatus, Style, TaskManifest, TaskRequest,
};
use bbot_agent::perform::{BuildEnd, BuildFailure, BuildStage, FailedSide, HeldGuest, Performed};
use bbot_agent::status::{Idle, Laps};
use bbot_agent::watch::{Stop, Watch};

use crate::support::TempDir;
use record::{Record, Sent};
use shared::SharedRoom;

pub use machines::BootstrapCourse;
use machines::ScriptedBootstraps;
pub use script::{Course, CourseEnd, Offers, Script, failed, out_of_reach, success};

pub const MINUTE: u64 = 60;
pub const HOUR: u64 = 3600;
pub const DAY: u64 = 24 * HOUR;

/// A host, its controllers, and a clock that only moves when something takes time.
struct Play {
    script: Script,
    /// The controllers as they are on the command line; they are never connected to.
    controllers: Controllers,
    record: Rc<RefCell<Record>>,
    watch: Watch,
    machines: Machines,
    sessions: u64,
    end: u64,
}

/// A guest that has ended.
struct Held {
    record: Rc<RefCell<Record>>,
    seconds: u64,
}

impl HeldGuest for Held {
    fn hold(&mut self) -> Result<()> {
        self.record.borrow_mut().now += std::mem::take(&mut self.seconds);
        Ok(())
    }

    fn memory_peak(&self) -> Option<u64> {
        None
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Play {
    fn second(&self) -> u64 {
        self.record.borrow().now
    }

    fn pass(&self, seconds: u64) {
        let second = self.second() + seconds;
        self.record.borrow_mut().now = second;
        self.script.host.pass_to(second);
    }

    /// The number of the controller that a result goes to.
    fn of(target: &UploadTarget) -> usize {
        let url = target.to_url();
        let (_, number) = url.rsplit_once('=').unwrap();
        number.parse().unwrap()
    }
}

impl Courier for Play {
    fn send_result(
        &mut self,
        target: &UploadTarget,
        text: &[u8],
    ) -> std::result::Result<(), Failure> {
        let request = ResultRequest::parse(text, "").unwrap();
        let (at, controller) = (self.second(), Play::of(target));
        let taken = (self.script.takes)(controller, at);
        if taken.is_ok() && request.result.status == ResultStatus::Interrupt {
            (self.script.given_back)(controller);
        }
        self.record.borrow_mut().sent.push(Sent {
            at,
            controller,
            session: request.session,
            status: request.result.status,
            taken: taken.is_ok(),
        });
        taken
    }

    fn send_artifact(
        &mut self,
        _: &StoredArtifact,
        _: &str,
    ) -> std::result::Result<String, Failure> {
        unreachable!("guests of the play upload no artifacts")
    }

    fn release(&mut self, _: &UploadTarget) {}

    fn must_stop(&self) -> bool {
        false
    }
}

impl World for Play {
    type Guest = Held;
    type Room = SharedRoom;

    fn now(&self) -> Now {
        let now = Duration::from_secs(self.second());
        Now {
            uptime: now,
            wall: now,
        }
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }

    fn stop(&self) -> Option<Stop> {
        (self.second() >= self.end).then_some(Stop::Terminate)
    }

    fn sweep(&mut self) {}

    fn probe(&mut self, anew: bool) -> Result<()> {
        let now = self.second();
        if anew {
            self.record.borrow_mut().probes.push(now);
        }
        match (self.script.lacks)(now) {
            Some(what) => Err(Error::new(what)),
            None => Ok(()),
        }
    }

    fn take_retry(&mut self) -> bool {
        let due = self.script.retry_at.is_some_and(|at| self.second() >= at);
        if due {
            self.script.retry_at = None;
            self.machines.retry();
        }
        due
    }

    fn enumerate(&mut self) -> Result<Enumeration> {
        let mut bootstrapper = ScriptedBootstraps {
            record: Rc::clone(&self.record),
            course: &mut self.script.bootstraps,
        };
        self.machines
            .enumerate(&HashSet::new(), &mut bootstrapper, &self.watch)
    }

    fn deliver_beside(&mut self, _: bool) -> bool {
        false
    }

    fn note(&mut self, _: &str, text: Option<String>) {
        let mut record = self.record.borrow_mut();
        let given = text.filter(|text| !record.notes.contains(text));
        record.notes.extend(given);
    }

    fn controllers(&mut self) -> &mut Controllers {
        &mut self.controllers
    }

    fn courier(&mut self) -> &mut dyn Courier {
        self
    }

    fn host(&mut self) -> Result<HostView> {
        Ok(self.script.host.view())
    }

    fn make_room(&mut self, claim: HostClaim) -> Result<std::result::Result<SharedRoom, String>> {
        if let Some(why) = self.script.no_room {
            return Ok(Err(why.to_owned()));
        }
        Ok(self.script.host.claim(claim))
    }

    fn ask(
        &mut self,
        number: usize,
        request: &TaskRequest,
    ) -> std::result::Result<Option<Assignment>, Failure> {
        let now = self.second();
        let mut record = self.record.borrow_mut();
        record.asked.push((now, number));
        let toolchain = request.toolchain.as_ref();
        record.toolchain_version = toolchain.map(|(_, version)| version.clone());
        drop(record);
        let text = request.to_text(Style::OLD).unwrap();
        let size = text.len();
        assert!(size <= 102_400, "{size}");
        self.record.borrow_mut().request = text;
        let (machine, lines) = match (self.script.controllers[number])(now) {
            Offers::Task(machine, lines) => (machine, lines),
            Offers::Nothing => return Ok(None),
            Offers::TaskIn(seconds, machine) => {
                self.pass(seconds);
                (machine, "")
            }
            Offers::Refuses => return Err(out_of_reach()),
            Offers::Hangs(seconds) => {
                self.pass(seconds);
                return Err(Failure::new(FailureClass::Timeout, "timed out connecting"));
            }
        };
        let is_offered = request.machines.iter().any(|m| m.name() == machine);
        if lines.is_empty() && !is_offered {
            return Ok(None);
        }
        self.sessions += 1;
        let session = self.sessions.to_string();
        let text = format!(": 1\nname: p\nversion: 1\nmachine: {machine}\n{lines}");
        self.record
            .borrow_mut()
            .handed_out
            .push((now, session.clone()));
        Ok(Some(Assignment {
            controller: self.controllers.name(number),
            session,
            priority: self.controllers.priority(number),
            result_url: UploadTarget::parse(&format!("http://c{number}/?c={number}")).unwrap(),
            ..Assignment::fake(TaskManifest::parse(text.as_bytes(), "").unwrap())
        }))
    }

    fn prepare(&mut self, _: &[Rc<Machine>]) -> bool {
        let (now, is_due) = (self.second(), self.script.templates > 0);
        if is_due {
            self.script.templates -= 1;
            self.record.borrow_mut().templates.push(now);
            self.pass(MINUTE);
        }
        is_due
    }

    fn perform(
        &mut self,
        assignment: &Assignment,
        machines: &TaskMachines,
        _: &mut Laps,
    ) -> Performed<Held> {
        let task = &assignment.task;
        let (name, now) = (machines.build.manifest.machine.name(), self.second());
        let course = (self.script.guests)(name, now);
        let built = (now, name.to_owned(), course.seconds);
        self.record.borrow_mut().built.push(built);
        for one in &machines.auxiliary {
            let name = one.machine.manifest.name().to_owned();
            let named = (one.environment.clone(), name);
            self.record.borrow_mut().auxiliary.push(named);
        }
        self.pass(course.seconds);
        let end = match course.end {
            CourseEnd::Result(status) => {
                BuildEnd::Result(ResultManifest::new(task.name(), task.version(), status))
            }
            CourseEnd::Failed(side, stage) => BuildEnd::Failed(BuildFailure {
                side,
                stage,
                why: "the script says so".to_owned(),
                auxiliary: None,
            }),
            CourseEnd::AuxiliaryFailed(name) => BuildEnd::Failed(BuildFailure {
                side: FailedSide::Guest,
                stage: BuildStage::BeforeTask,
                why: "the script says so".to_owned(),
                auxiliary: Some(name.to_owned()),
            }),
        };
        Performed {
            end,
            artifacts: None,
            guest: Some(Held {
                record: Rc::clone(&self.record),
                seconds: course.hold,
            }),
        }
    }

    fn idle(&mut self, reason: Idle, detail: &str, length: Duration) {
        let (now, seconds) = (self.second(), length.as_secs());
        let idle = (now, seconds, reason, detail.to_owned());
        self.record.borrow_mut().idle.push(idle);
        self.pass(seconds);
    }
}

fn options(words: &[&str]) -> Options {
    let words = words.iter().chain(&["http://c/"]).map(OsString::from);
    match cli::parse(words, &|_| None).unwrap() {
        Invocation::Run(options) => *options,
        other => panic!("{other:?}"),
    }
}

/// Plays the script from the second `from` to the second `until`.
pub fn play_from(state: &TempDir, script: Script, words: &[&str], from: u64, until: u64) -> Record {
    let options = options(words);
    let root = state.path().join("machines");
    machines::make(&root, &script);
    let settings = MachinesSettings {
        root,
        ..MachinesSettings::new(&options)
    };
    let record = Rc::new(RefCell::new(Record {
        now: from,
        ..Record::default()
    }));
    let (delivery, unfinished) =
        Delivery::open(state.path(), setup::delivery(&options), None).unwrap();
    let watch = Watch::start().unwrap();
    let priorities = script
        .priorities
        .iter()
        .map(|p| format!("{p}="))
        .chain(iter::repeat(String::new()));
    let arguments: Vec<_> = (0..script.controllers.len())
        .zip(priorities)
        .map(|(n, p)| format!("{p}http://c{n}/"))
        .collect();
    let play = Play {
        controllers: Controllers::new(&arguments, &setup::controllers(&options), &watch).unwrap(),
        machines: {
            let mut machines = Machines::new(settings);
            machines.keep(state.path().join("bootstraps"), false);
            machines
        },
        record: Rc::clone(&record),
        watch,
        sessions: from,
        end: until,
        script,
    };
    let mut agent = Agent::new(options, play, delivery);
    agent.recover(unfinished);
    agent.work().unwrap();
    drop(agent);
    Rc::into_inner(record).unwrap().into_inner()
}

/// Plays a script for some seconds.
pub fn play(script: Script, words: &[&str], seconds: u64) -> Record {
    play_from(&TempDir::in_memory(), script, words, 0, seconds)
}
