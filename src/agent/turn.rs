//! One turn: what is asked for, performed and delivered.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::offer::Offer;
use super::{Agent, setup};
use crate::cli::{self, Dump};
use crate::controller::Assignment;
use crate::delivery::{ControllerCourier, FinishedTask, Now, TaskRecord, no_key};
use crate::diag::{self, Scope};
use crate::error::{Context as _, Error, Result};
use crate::guest;
use crate::machine::Accel;
use crate::machines::Machine;
use crate::manifest::{
    MachineHeader, MachineKind, MachineManifest, ResultRules, ResultStatus, SerializeError, Style,
    TaskManifest, TaskRequest, accept_checksums, agent_checksum, normalize,
};
use crate::perform::{Job, Outcome, Performed, perform};
use crate::status::{self, Idle, Laps, Subject};
use crate::trace;
use crate::watch::Watch;

/// What came of a turn.
pub(super) enum Turn {
    /// A task was performed: the next one may be waiting.
    Worked,
    /// There was nothing to do; why, and the numbers behind it.
    Idle(Idle, String),
    /// Something failed, and was reported.
    Failed,
    /// What was to be printed is printed.
    Dumped,
}

impl Agent {
    pub(super) fn turn(&mut self) -> Result<Turn> {
        self.sweep();
        let waiting = self.flush()?;
        if self.watch.stop().is_some() {
            return Ok(Turn::Idle(Idle::Drained, String::new()));
        }
        let unsaved = self.delivery.unsaved();
        if unsaved > 0 {
            let detail = format!("{unsaved} can be neither stored nor sent");
            return Ok(Turn::Idle(Idle::ResultsWaiting, detail));
        }
        self.watch.enter(status::Phase::Enumerating, None);
        let machines = match self.machines_to_offer()? {
            Offer::Machines(machines) => machines,
            Offer::Nothing(reason, detail) => return Ok(Turn::Idle(reason, detail)),
        };
        if self.watch.stop().is_some() {
            return Ok(Turn::Idle(Idle::Drained, String::new()));
        }
        self.watch
            .enter(status::Phase::Asking, Some(self.options.request_timeout));
        let assignment = match self.ask(&machines)? {
            Answer::Task(assignment) => *assignment,
            Answer::Nothing(Idle::ControllersDown) if waiting > 0 => {
                let detail = format!("{waiting} to be sent");
                return Ok(Turn::Idle(Idle::ResultsWaiting, detail));
            }
            Answer::Nothing(reason) => return Ok(Turn::Idle(reason, String::new())),
        };
        let Some(machine) = machines
            .into_iter()
            .find(|machine| machine.manifest.machine.name() == assignment.task.machine())
        else {
            let task = &assignment.task;
            diag::error(format_args!(
                "task from {} for unknown machine {}",
                assignment.controller,
                task.machine()
            ))
            .emit();
            return Ok(match self.options.dump {
                Some(Dump::Task) => self.dump_task(task)?,
                _ => Turn::Idle(Idle::UnknownMachine, task.machine().to_owned()),
            });
        };
        if self.options.dump == Some(Dump::Task) {
            return self.dump_task(&assignment.task);
        }
        self.carry_out(assignment, &machine)
    }

    fn dump_task(&self, task: &TaskManifest) -> Result<Turn> {
        cli::print(compose(task.to_text(Style::TODAY))?.as_bytes())?;
        Ok(Turn::Dumped)
    }

    /// The machines, or the one that `--fake-machine` describes.
    fn machines_to_offer(&mut self) -> Result<Offer> {
        let Some(path) = &self.options.fake_machine else {
            return self.offer();
        };
        let header = MachineHeader::parse(&cli::input(path)?, &path.to_string_lossy())
            .context(|| "invalid machine header manifest")?;
        let mut machine = MachineManifest::new(&header, MachineKind::Kvm);
        machine.set_mac(crate::bootstrap::FAKE_MAC);
        let dir = self.options.machines.join(header.name());
        self.watch.ready();
        Ok(Offer::Machines(vec![Rc::new(Machine::fake(
            machine,
            &self.options.toolchain_id,
            dir,
        ))]))
    }

    /// Asks the controllers, or reads what `--fake-request` names.
    fn ask(&mut self, machines: &[Rc<Machine>]) -> Result<Answer> {
        if let Some(path) = &self.options.fake_request {
            let task = TaskManifest::parse(&cli::input(path)?, &path.to_string_lossy())
                .context(|| "invalid task manifest")?;
            return Ok(Answer::Task(Box::new(Assignment::fake(task))));
        }
        let request = self.request(machines)?;
        let round = self.controllers.request(&request, &self.watch)?;
        let nobody = round.nobody_answered();
        for failed in round.failed {
            diag::failure(&failed.into_error()).emit();
        }
        Ok(match round.assignment {
            Some(assignment) => Answer::Task(Box::new(assignment)),
            None if nobody => Answer::Nothing(Idle::ControllersDown),
            None => Answer::Nothing(Idle::NoTask),
        })
    }

    fn request(&self, machines: &[Rc<Machine>]) -> Result<TaskRequest> {
        let options = &self.options;
        let agent = match &options.agent_name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        Ok(TaskRequest {
            agent,
            toolchain: (!options.legacy_request).then(|| {
                (
                    options.toolchain_name.clone(),
                    options.toolchain_ver.clone(),
                )
            }),
            fingerprint: self.delivery.fingerprint().map(str::to_owned),
            machines: machines.iter().map(|m| Rc::clone(&m.offer)).collect(),
        })
    }

    /// Takes on a task, performs it, and delivers the result.
    fn carry_out(&mut self, mut assignment: Assignment, machine: &Machine) -> Result<Turn> {
        let name = machine.manifest.machine.name().to_owned();
        let about = format!("{}/{}", assignment.task.name(), assignment.task.version());
        let _scope = Scope::new(format!("{about} on {name}"));
        let now = Now::read();
        let record = TaskRecord::new(&assignment, self.delivery.stamp(now));
        if record.challenge.is_some() && self.delivery.fingerprint().is_none() {
            let error = no_key();
            self.judge(Some(&error.to_string()));
            return Err(error);
        }
        self.watch.subject(Subject {
            machine: Some(name.clone()),
            task: Some(about.clone()),
            session: Some(assignment.session.clone()),
            controller: Some(assignment.controller.clone()),
        });
        if let Err(error) = self.delivery.accept(&record) {
            return self.decline(&record, error);
        }
        let ours = self.checksum();
        let checksum_matches = accept_checksums(
            &mut assignment.task,
            assignment.agent_checksum.as_deref(),
            &ours,
        );
        if !self.options.trust.is_empty() {
            assignment.task.replace_trust(&self.options.trust);
        }
        if let Err(error) = self.delivery.start(&record) {
            return self.decline(&record, error);
        }
        let mut laps = Laps::start(Instant::now());
        let watch = self.watch.clone();
        let performed = self.perform(&assignment.task, machine, &mut laps, &watch);
        let (outcome, fault) = match performed {
            Ok(Performed::Stopped) => {
                self.give_back(&record, "the agent was told to stop")?;
                return Ok(Turn::Failed);
            }
            Ok(Performed::Done(mut outcome)) => {
                let fault = outcome.fault.take();
                (*outcome, fault)
            }
            Err(error) => {
                diag::failure(&error).emit();
                let why = error.to_string();
                (Outcome::failed(&assignment.task, &why), Some(why))
            }
        };
        let Outcome {
            result,
            artifacts,
            remains,
            ..
        } = outcome;
        let rules = ResultRules {
            task: &assignment.task,
            checksum_matches,
            legacy: self.options.legacy_request,
        };
        let (result, notes) = normalize(result, &rules);
        for note in notes {
            diag::warning(note).emit();
        }
        if self.options.dump == Some(Dump::Result) {
            cli::print(compose(result.to_text(Style::TODAY))?.as_bytes())?;
            return Ok(Turn::Dumped);
        }
        let checksum = (!self.options.legacy_request).then_some(ours);
        let status = result.status;
        let finished = FinishedTask {
            result,
            agent_checksum: checksum,
            archive: artifacts.as_ref().map(|archive| archive.path.as_path()),
        };
        let mut courier = ControllerCourier {
            controllers: &mut self.controllers,
            watch: &self.watch,
        };
        let stored = self
            .delivery
            .finish(&record, finished, Now::read(), &mut courier);
        let delivered = self.flush().map(drop);
        laps.lap("upload", Instant::now());
        let removed = remains.map_or(Ok(()), |remains| {
            let removed = remains.close();
            laps.lap("clean-up", Instant::now());
            removed
        });
        self.finished(&about, &name, status, &laps);
        self.watch.subject(Subject::default());
        trace!(
            2,
            "carry_out", "built {about} on {name} for {}", assignment.controller
        );
        let errors = [stored, delivered, removed].map(Result::err);
        let mut errors = errors.into_iter().flatten();
        let first = errors.next();
        for error in errors {
            diag::failure(&error).emit();
        }
        let fault = fault.or_else(|| first.as_ref().map(ToString::to_string));
        self.judge(fault.as_deref());
        if let Some(error) = first {
            return Err(error);
        }
        Ok(match fault {
            Some(_) => Turn::Failed,
            None => Turn::Worked,
        })
    }

    /// A task that cannot be taken on is given back.
    fn decline(&mut self, record: &TaskRecord, why: Error) -> Result<Turn> {
        let text = why.to_string();
        self.judge(Some(&text));
        if let Err(error) = self.give_back(record, &text).and_then(|()| self.flush()) {
            diag::failure(&error).emit();
        }
        Err(why)
    }

    fn give_back(&mut self, record: &TaskRecord, why: &str) -> Result<()> {
        self.controllers.release(&record.result_url);
        let mut courier = ControllerCourier {
            controllers: &mut self.controllers,
            watch: &self.watch,
        };
        self.delivery
            .give_back(record, why, Now::read(), &mut courier)
    }

    /// Sends the results that are due. Returns how many wait.
    fn flush(&mut self) -> Result<usize> {
        let mut courier = ControllerCourier {
            controllers: &mut self.controllers,
            watch: &self.watch,
        };
        let flushed = self.delivery.flush(Now::read(), &mut courier)?;
        Ok(flushed.waiting)
    }

    fn perform<'w>(
        &mut self,
        task: &TaskManifest,
        machine: &Machine,
        laps: &mut Laps,
        watch: &'w Watch,
    ) -> Result<Performed<'w>> {
        let guest = self.guest_or_fake()?;
        let config = setup::perform(&self.options, guest);
        let job = Job {
            task,
            machine: &machine.manifest.machine,
            directory: &machine.dir,
        };
        perform(&config, &job, laps, watch)
    }

    /// The settings of guests; where none will be started, the host is not asked
    /// what it can do.
    pub(super) fn guest_or_fake(&mut self) -> Result<guest::Config> {
        let options = &self.options;
        if options.fake_build || options.fake_machine.is_some() || options.fake_bootstrap {
            return setup::guest(options, Accel::Tcg, &self.netfilter);
        }
        self.guest()
    }

    /// Our checksum, of all that could make a result another one.
    fn checksum(&self) -> String {
        let options = &self.options;
        let cpus = options.cpu.to_string();
        let ram = options.ram.to_string();
        agent_checksum([
            ("toolchain-id", options.toolchain_id.as_str()),
            ("toolchain-version", options.toolchain_ver.as_str()),
            ("cpu", cpus.as_str()),
            ("ram", ram.as_str()),
        ])
    }

    /// Counts failures of ours, and says when they are too many.
    fn judge(&mut self, fault: Option<&str>) {
        match fault {
            None => {
                if self.breaker.succeeded() {
                    diag::info("tasks go through again").emit();
                }
            }
            Some(why) => {
                if let Some(pause) = self.breaker.failed(why, Instant::now()) {
                    let (count, why) = self.breaker.faults();
                    diag::error(format_args!(
                        "{count} tasks in a row failed for reasons of this host"
                    ))
                    .info(format_args!("the last one: {why}"))
                    .info(format_args!(
                        "no work is asked for in the next {} s",
                        pause.as_secs()
                    ))
                    .emit();
                }
            }
        }
    }

    /// One line for a task that has ended.
    fn finished(&self, task: &str, machine: &str, status: ResultStatus, laps: &Laps) {
        diag::info(format_args!(
            "{status} in {} s ({laps})",
            laps.total().as_secs()
        ))
        .emit();
        self.watch.finished(status::Outcome {
            task: task.to_owned(),
            machine: machine.to_owned(),
            status: status.word().to_owned(),
            at: Duration::ZERO,
            took: laps.total(),
        });
    }
}

/// What the controllers have to say.
enum Answer {
    Task(Box<Assignment>),
    Nothing(Idle),
}

/// A manifest as text.
pub(super) fn compose(text: std::result::Result<String, SerializeError>) -> Result<String> {
    text.context(|| "unable to compose a manifest")
}

/// The name of this host, as controllers know it.
fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context(|| "unable to get the host name")?;
    name.into_string().map_err(|_| {
        Error::new("unable to use the host name: it is not UTF-8").hint("use --agent-name")
    })
}
