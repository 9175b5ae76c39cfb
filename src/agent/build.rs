//! One task: accepted, performed, delivered.

use std::time::{Duration, Instant};

use super::policy::{BreakerGets, Consequences, ControllerGets, MachineGets, TaskEnd};
use super::turn::Turn;
use super::work::{Agent, compose};
use super::world::{Room as _, World};
use crate::cli::{self, Dump};
use crate::controller::Assignment;
use crate::delivery::TaskRecord;
use crate::diag::{self, Scope, TaskScope};
use crate::error::{Error, Result};
use crate::interactive;
use crate::ledger::{ClaimState, HostClaim, Wanted, Work};
use crate::machines::TaskMachines;
use crate::manifest::{
    MachineManifest, ResultRules, ResultStatus, Style, TaskManifest, accept_checksums,
    agent_checksum, failure_result, normalize,
};
use crate::perform::{BuildEnd, BuildFailure, BuildStage, FailedSide, HeldGuest, Performed};
use crate::status::{self, Laps, Subject};
use crate::trace;

/// How long the agent may go on sending when it was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The results of the steps after a build: the host faults among them.
#[derive(Default)]
struct Faults(Vec<Error>);

impl Faults {
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            diag::failure(&error).emit();
            self.0.push(error);
        }
    }
}

impl<W: World> Agent<W> {
    /// Accepts a task, performs it, and delivers the result.
    pub(super) fn build(
        &mut self,
        mut assignment: Assignment,
        machines: &TaskMachines,
    ) -> Result<Turn> {
        let record = TaskRecord::new(&assignment, self.delivery.stamp(self.world.now()));
        let about = format!("{}/{}", record.name, record.version);
        let _scope = Scope::new(TaskScope {
            package: about.clone(),
            machine: record.machine.clone(),
            session: record.session.clone(),
        });
        self.world.watch().subject(Subject {
            machine: Some(record.machine.clone()),
            auxiliary: machines
                .auxiliary
                .iter()
                .map(|one| one.machine.manifest.name().to_owned())
                .collect(),
            task: Some(about.clone()),
            session: Some(record.session.clone()),
            controller: Some(record.controller.clone()),
            login: self.login(&assignment.task),
        });
        let turn = self.build_in_scope(&mut assignment, &record, machines);
        self.world.watch().subject(Subject::default());
        turn
    }

    /// The way for a user to the guest of an interactive task, which is reported.
    fn login(&self, task: &TaskManifest) -> Option<String> {
        let breakpoint = task.interactive()?;
        let login = interactive::login(&self.options).ok()?;
        diag::info(format_args!(
            "the build is interactive and stops at {breakpoint}: a user may log in at {login}"
        ))
        .emit();
        Some(login)
    }

    fn build_in_scope(
        &mut self,
        assignment: &mut Assignment,
        record: &TaskRecord,
        machines: &TaskMachines,
    ) -> Result<Turn> {
        let machine = &machines.build.manifest.machine;
        let checksum = self.checksum();
        let task = &mut assignment.task;
        let theirs = assignment.agent_checksum.as_deref();
        let checksum_matches = accept_checksums(task, theirs, &checksum);
        if !self.options.trust.is_empty() {
            task.replace_trust(&self.options.trust);
        }
        let recorded = self
            .delivery
            .accept(record)
            .and_then(|()| self.delivery.start(record));
        if let Err(error) = recorded {
            return Ok(self.unable_to_start(&error, record, machine));
        }
        let claim = self.claim_of(assignment, record, machines);
        let room = self.world.make_room(claim);
        let mut room = match room {
            Ok(Ok(room)) => room,
            Ok(Err(shortage)) => {
                let why = format!("the host has no room for it: {shortage}");
                diag::warning(format_args!("the task is given back: {why}")).emit();
                return Ok(self.end_without_result(TaskEnd::NoRoom, record, &why, machine));
            }
            Err(error) => return Ok(self.unable_to_start(&error, record, machine)),
        };
        let mut laps = Laps::start(Instant::now());
        let Performed {
            end,
            artifacts,
            mut guest,
        } = self.world.perform(assignment, machines, &mut laps);
        let mut faults = Faults::default();
        let mut failed = machine;
        let (mut end, result, why) = match end {
            BuildEnd::Result(result) => (TaskEnd::Result, Some(result), String::new()),
            BuildEnd::Stopped => (TaskEnd::Stopped, None, "the agent was stopped".to_owned()),
            BuildEnd::Interrupted(agent) => {
                let why = format!("a task of {agent} has a higher priority");
                // The other agent waits for the host.
                if let Some(guest) = guest.take() {
                    faults.note(guest.close());
                }
                (TaskEnd::Interrupted, None, why)
            }
            BuildEnd::Failed(failure) => {
                let auxiliary = machines.auxiliary.iter().map(|one| &one.machine.manifest);
                let is_failed =
                    |one: &&MachineManifest| failure.auxiliary.as_deref() == Some(one.name());
                failed = { auxiliary }.find(is_failed).unwrap_or(machine);
                (self.examine(&failure), None, failure.why)
            }
        };
        let result = result.or_else(|| {
            let aborts = end.consequences().controller == ControllerGets::Abort;
            aborts.then(|| failure_result(&assignment.task, ResultStatus::Abort, &why))
        });
        if let Some(result) = result {
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
                self.world.courier().release(&record.result_url);
                cli::print(compose(result.to_text(Style::TODAY))?.as_bytes())?;
                if let Some(guest) = guest {
                    faults.note(guest.close());
                }
                return Ok(Turn::Dumped);
            }
            let status = result.status;
            let archive = artifacts.as_ref().map(|archive| archive.path.as_path());
            let checksum = (!self.options.legacy_request).then_some(checksum);
            let (now, courier) = (self.world.now(), self.world.courier());
            let finished = self
                .delivery
                .finish(record, result, checksum, archive, now, courier);
            faults.note(finished);
            faults.note(room.end_task());
            faults.note(self.flush(true).map(drop));
            laps.lap("upload", Instant::now());
            let memory_peak = guest.as_ref().and_then(HeldGuest::memory_peak);
            self.finished(record, status, &laps, memory_peak);
        } else {
            if end == TaskEnd::Stopped {
                self.world.watch().grant(STOP_GRACE);
            }
            faults.note(self.give_back(record, &why));
            faults.note(room.end_task());
            faults.note(self.flush(true).map(drop));
            let text = format!("the task is {} its controller: {why}", record.way_back());
            if matches!(end, TaskEnd::Stopped | TaskEnd::Interrupted) {
                diag::info(text).emit();
            } else {
                diag::error(text).emit();
            }
            laps.lap("upload", Instant::now());
        }
        // The controller has the result, or it is stored: now there is time.
        if let Some(guest) = &mut guest {
            faults.note(guest.hold());
            laps.lap_unless_brief("hold", Instant::now());
        }
        if let Some(guest) = guest {
            faults.note(guest.close());
            laps.lap("clean-up", Instant::now());
        }
        trace!(
            2,
            "build", "built {record} for {}: {laps}", record.controller
        );
        let why = match faults.0.first() {
            Some(error) if end == TaskEnd::Result => {
                end = TaskEnd::ResultWithHostFault;
                error.to_string()
            }
            _ => why,
        };
        if end == TaskEnd::Result {
            for one in &machines.auxiliary {
                self.resting_machines.remove(one.machine.manifest.name());
            }
        }
        Ok(self.conclude(end, &why, failed))
    }

    /// The claim of the guests of a task.
    fn claim_of(
        &self,
        assignment: &Assignment,
        record: &TaskRecord,
        machines: &TaskMachines,
    ) -> HostClaim {
        let Wanted { cpus, .. } = self.wanted(assignment.priority);
        let auxiliary = machines.auxiliary.iter().map(|one| one.ram_kb);
        let ram_kb = auxiliary.fold(self.options.ram, u64::saturating_add);
        HostClaim {
            owner: String::new(),
            work: Work::Task,
            state: ClaimState::Running,
            ram_kb,
            cpus,
            priority: assignment.priority,
            machine: record.machine.clone(),
            task: Some(format!("{}/{}", record.name, record.version)),
            accepted: Some(self.world.now().wall.as_secs()),
            is_interactive: assignment.task.interactive().is_some(),
            host_ram_kb: 0,
            host_cpus: 0,
        }
    }

    /// Gives a task back that the host could not start.
    fn unable_to_start(
        &mut self,
        error: &Error,
        record: &TaskRecord,
        machine: &MachineManifest,
    ) -> Turn {
        diag::failure(error).emit();
        let end = TaskEnd::Failed(FailedSide::Host, BuildStage::BeforeTask);
        self.end_without_result(end, record, &error.to_string(), machine)
    }

    /// Where a guest failed, looks whether the host has what guests need.
    fn examine(&mut self, failure: &BuildFailure) -> TaskEnd {
        let &BuildFailure { side, stage, .. } = failure;
        match self.world.probe(false) {
            Err(error) if side == FailedSide::Guest || stage == BuildStage::WithTask => {
                diag::failure(&error).emit();
                TaskEnd::HostLacks
            }
            _ if failure.auxiliary.is_some()
                && (side, stage) == (FailedSide::Guest, BuildStage::BeforeTask) =>
            {
                TaskEnd::AuxiliaryFailed
            }
            _ => TaskEnd::Failed(side, stage),
        }
    }

    fn end_without_result(
        &mut self,
        end: TaskEnd,
        record: &TaskRecord,
        why: &str,
        machine: &MachineManifest,
    ) -> Turn {
        let given_back = self.give_back(record, why);
        diag::report(given_back.and_then(|()| self.flush(true)));
        self.conclude(end, why, machine)
    }

    /// Applies the consequences of the end of a task to its machine, or to the auxiliary
    /// one that has failed, and to the host.
    fn conclude(&mut self, end: TaskEnd, why: &str, machine: &MachineManifest) -> Turn {
        let consequences = end.consequences();
        match consequences.machine {
            MachineGets::Cleared => {
                self.resting_machines.remove(machine.name());
            }
            MachineGets::Nothing => {}
            MachineGets::Rest => self.rest_machine(machine, end),
        }
        self.conclude_for_host(consequences, why);
        match (consequences.at_once, end) {
            (true, _) => Turn::Worked,
            (false, TaskEnd::NoRoom) => Turn::Idle(status::Idle::HostFull, why.to_owned()),
            (false, TaskEnd::Stopped) => Turn::Idle(status::Idle::Drained, String::new()),
            (false, _) => Turn::Failed(why.to_owned()),
        }
    }

    /// Applies the consequences of the end of a task to breaker and probe.
    pub(super) fn conclude_for_host(&mut self, consequences: Consequences, why: &str) {
        match consequences.breaker {
            BreakerGets::Success => {
                if self.breaker.succeeded() {
                    diag::info("tasks succeed again").emit();
                }
            }
            BreakerGets::Nothing => {}
            BreakerGets::Fault => self.host_fault(why),
        }
        self.probe_anew |= consequences.probe;
    }

    fn rest_machine(&mut self, machine: &MachineManifest, end: TaskEnd) {
        let now = self.world.now().uptime;
        let pause = self.resting_machines.add(machine.name(), machine.id(), now);
        let why = match end {
            TaskEnd::AuxiliaryFailed => "it did not come up",
            _ => "its guest made no request",
        };
        diag::warning(format_args!(
            "machine {} is not offered in the next {} s: {why}",
            machine.name(),
            pause.as_secs()
        ))
        .emit();
    }

    /// Counts a host fault, and reports when there are too many.
    fn host_fault(&mut self, why: &str) {
        if let Some(pause) = self.breaker.failed(why, self.world.now().uptime) {
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

    pub(super) fn give_back(&mut self, record: &TaskRecord, why: &str) -> Result<()> {
        let now = self.world.now();
        self.delivery
            .give_back(record, why, now, self.world.courier())
    }

    /// The agent's checksum: of everything on this side that can change a result.
    fn checksum(&self) -> String {
        let options = &self.options;
        agent_checksum([
            ("toolchain-id", options.toolchain_id.as_str()),
            ("toolchain-version", self.toolchain_version.as_str()),
        ])
    }

    /// One line for a task that has a result.
    fn finished(
        &self,
        record: &TaskRecord,
        status: ResultStatus,
        laps: &Laps,
        memory_peak: Option<u64>,
    ) {
        let memory = memory_peak.map_or(String::new(), |peak| {
            format!(", memory {}", status::bytes(peak))
        });
        diag::info(format_args!(
            "{status} in {} s ({laps}{memory})",
            laps.total().as_secs()
        ))
        .emit();
        self.world.watch().finished(status::Outcome {
            task: format!("{}/{}", record.name, record.version),
            machine: record.machine.clone(),
            status: status.word().to_owned(),
            at: Duration::ZERO,
            took: laps.total(),
            memory_peak,
        });
    }
}
