//! Asking the controllers for a task that this agent can do.

use std::rc::Rc;
use std::time::Duration;

use super::policy::TaskEnd;
use super::work::Agent;
use super::world::World;
use crate::backoff::Backoff;
use crate::cli;
use crate::controller::Assignment;
use crate::controller::failure::FailureClass;
use crate::delivery::TaskRecord;
use crate::diag;
use crate::error::{Context as _, Result};
use crate::interactive;
use crate::ledger::{Shortage, Wanted, Work};
use crate::machines::{OfferedMachines, TaskMachines};
use crate::manifest::{InteractiveMode, Style, TaskManifest, TaskRequest};
use crate::priority::Priority;
use crate::status::Idle;

/// The largest task request in bytes that controllers take (brep's default).
const MAX_REQUEST_BYTES: usize = 102_400;

/// The longest time for which a controller is not asked.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A controller that is not asked for a while.
#[derive(Clone, Debug)]
pub(super) struct Resting {
    backoff: Backoff,
    until: Duration,
    why: String,
}

/// The answer of the controllers together.
pub(super) enum Asked {
    /// A task, its machines, and the number of its controller, unless it is one by hand.
    Task(Box<Assignment>, TaskMachines, Option<usize>),
    /// No task, because; with details.
    Nothing(Idle, String),
}

impl<W: World> Agent<W> {
    /// Asks the controllers in turn until one has a task that can be done. A task
    /// that cannot be done is given back, and the next controller is asked.
    pub(super) fn ask(&mut self, machines: &OfferedMachines) -> Result<Asked> {
        if let Some(path) = &self.options.fake_request {
            let task = TaskManifest::parse(
                &cli::input(path, self.world.watch().fd())?,
                &path.to_string_lossy(),
            )
            .context(|| "invalid task manifest")?;
            return Ok(self.fake(task, machines));
        }
        let request = self.request(machines)?;
        let host = self.world.host()?;
        let (mut answered, mut declined, mut failed) = (0, None, None);
        let (mut may_be_asked, mut kept) = (false, None);
        for number in self.world.controllers().order() {
            if self.world.courier().must_stop() {
                break;
            }
            let priority = self.world.controllers().priority(number);
            let wanted = self.wanted(priority);
            if let Some(shortage) = host.keeps_from_asking(&wanted) {
                kept.get_or_insert(shortage);
                continue;
            }
            may_be_asked = true;
            let now = self.world.now().uptime;
            if let Some(resting) = self.resting.get(&number)
                && now < resting.until
            {
                let why = &resting.why;
                let name = self.world.controllers().name(number);
                failed.get_or_insert_with(|| format!("{name}: {why}"));
                continue;
            }
            match self.world.ask(number, &request) {
                Ok(assignment) => {
                    answered += 1;
                    let Some(assignment) = assignment else {
                        self.resting.remove(&number);
                        continue;
                    };
                    match self.acceptable(&assignment, machines) {
                        Ok(machines) => {
                            let assignment = Box::new(assignment);
                            return Ok(Asked::Task(assignment, machines, Some(number)));
                        }
                        Err(why) => {
                            self.decline(&assignment, &why);
                            // Controllers hand such a task out again at once.
                            self.rest(number, &why);
                            declined = Some(why);
                        }
                    }
                }
                Err(failure) if failure.class() == FailureClass::Stopped => break,
                Err(failure) => {
                    if takes_time(failure.class()) {
                        self.rest(number, &failure.to_string());
                    }
                    let name = self.world.controllers().name(number);
                    failed.get_or_insert_with(|| format!("{name}: {failure}"));
                    let what = format!("unable to request task from {name}");
                    diag::failure(&failure.into_error(&what)).emit();
                }
            }
        }
        Ok(match (declined, kept) {
            (Some(why), _) => Asked::Nothing(Idle::TaskDeclined, why),
            (None, Some(shortage)) if !may_be_asked => Asked::Nothing(
                match shortage {
                    Shortage::Priority(..) => Idle::HigherPriority,
                    _ => Idle::HostFull,
                },
                shortage.to_string(),
            ),
            (None, Some(shortage)) if answered > 0 => {
                let detail = format!("only controllers of higher priority are asked: {shortage}");
                Asked::Nothing(Idle::NoTask, detail)
            }
            (None, _) if answered == 0 => {
                Asked::Nothing(Idle::ControllersDown, failed.unwrap_or_default())
            }
            (None, _) => Asked::Nothing(Idle::NoTask, String::new()),
        })
    }

    /// The guests of a task: the room that they need at most.
    pub(super) fn wanted(&self, priority: Priority) -> Wanted {
        Wanted {
            work: Work::Task,
            ram_kb: self.options.ram + self.options.auxiliary_ram,
            cpus: self.options.cpu,
            priority,
        }
    }

    /// The task of `--fake-request`.
    fn fake(&self, task: TaskManifest, machines: &OfferedMachines) -> Asked {
        let assignment = Assignment::fake(task);
        match self.acceptable(&assignment, machines) {
            Ok(machines) => Asked::Task(Box::new(assignment), machines, None),
            Err(why) => {
                diag::error(format_args!("unable to accept task: {why}")).emit();
                Asked::Nothing(Idle::TaskDeclined, why)
            }
        }
    }

    /// The machines of a task, or why the agent does not do the task.
    fn acceptable(
        &self,
        assignment: &Assignment,
        machines: &OfferedMachines,
    ) -> Result<TaskMachines, String> {
        let task = &assignment.task;
        task.check_mode(self.options.interactive)?;
        if assignment.challenge.is_some() && self.delivery.fingerprint().is_none() {
            return Err("it has a challenge, and the agent has no key (--auth-key)".to_owned());
        }
        machines.of_task(task, self.options.auxiliary_ram)
    }

    /// Gives a task back that the agent does not do.
    fn decline(&mut self, assignment: &Assignment, why: &str) {
        let record = TaskRecord::new(assignment, self.delivery.stamp(self.world.now()));
        diag::error(format_args!("unable to accept task {record}: {why}"))
            .info(format_args!(
                "it is {} {}",
                record.way_back(),
                record.controller
            ))
            .emit();
        self.conclude_for_host(TaskEnd::NotAcceptable.consequences(), why);
        for done in [
            self.delivery.accept(&record),
            self.give_back(&record, why),
            self.flush(true).map(drop),
        ] {
            diag::report(done);
        }
    }

    /// Does not ask a controller for a while, because of `why`.
    pub(super) fn rest(&mut self, number: usize, why: &str) {
        // Half of the pause between turns: after the first failure the next turn
        // asks again.
        let first = self.options.poll_interval / 2;
        let resting = self.resting.entry(number).or_insert(Resting {
            backoff: Backoff::new(first, LONGEST_PAUSE),
            until: Duration::ZERO,
            why: String::new(),
        });
        why.clone_into(&mut resting.why);
        let pause = resting.backoff.failed();
        resting.until = self.world.now().uptime + pause;
    }

    fn request(&mut self, machines: &OfferedMachines) -> Result<TaskRequest> {
        let options = &self.options;
        let agent = interactive::agent_name(options)?;
        let interactive = match options.interactive {
            InteractiveMode::No => None,
            mode => Some((mode, interactive::login(options)?)),
        };
        let mut request = TaskRequest {
            agent,
            toolchain: (!options.legacy_request).then(|| {
                (
                    options.toolchain_name.clone(),
                    self.toolchain_version.clone(),
                )
            }),
            interactive,
            fingerprint: self.delivery.fingerprint().map(str::to_owned),
            auxiliary_ram: options.auxiliary_ram,
            machines: machines.headers(),
        };
        let all = request.machines.len();
        self.limit(&mut request)?;
        let note = (request.machines.len() < all).then(|| {
            format!(
                "a request offers some of the {all} machines, drawn anew each time: \
                 controllers take {MAX_REQUEST_BYTES} bytes"
            )
        });
        self.world.note("task request", note);
        Ok(request)
    }

    /// Leaves as many machines in a request as controllers take, drawn anew each time.
    fn limit(&mut self, request: &mut TaskRequest) -> Result<()> {
        let size = |request: &TaskRequest| {
            let text = request.to_text(Style::OLD);
            text.context(|| "unable to write task request")
                .map(|text| text.len())
        };
        if size(request)? <= MAX_REQUEST_BYTES {
            return Ok(());
        }
        let all = std::mem::take(&mut request.machines);
        let without = size(request)?;
        let mut sum = without;
        for number in self.shuffle.order(&vec![Priority::default(); all.len()]) {
            let machines = vec![Rc::clone(&all[number])];
            let with = TaskRequest {
                machines,
                ..request.clone()
            };
            let of_machine = size(&with)? - without;
            if sum + of_machine <= MAX_REQUEST_BYTES {
                sum += of_machine;
                request.machines.push(Rc::clone(&all[number]));
            }
        }
        Ok(())
    }
}

/// Whether a failure may have taken the time of the controllers after it.
fn takes_time(class: FailureClass) -> bool {
    matches!(
        class,
        FailureClass::Name | FailureClass::Connect | FailureClass::Tls | FailureClass::Timeout
    )
}
