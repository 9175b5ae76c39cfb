//! One turn: results are sent, machines offered, a task performed.

use std::rc::Rc;
use std::time::Duration;

use super::ask::Asked;
use super::setup;
use super::work::{Agent, compose};
use super::world::World;
use crate::breaker::{Breaker, Gate};
use crate::cli::{self, Dump};
use crate::error::{Class, Error, Result};
use crate::machines::{Enumeration, Machine, OfferedMachines, toolchain};
use crate::manifest::{MachineKind, MachineManifest, Style, TaskManifest};
use crate::status::{self, Idle};

/// The end of a turn.
#[derive(Debug)]
pub(super) enum Turn {
    /// A task was performed: the next one may be waiting.
    Worked,
    /// There was no task, and the template of a machine was made.
    Prepared,
    /// There was nothing to do; why, and the numbers behind it.
    Idle(Idle, String),
    /// All machines are broken, as was reported.
    Broken(String),
    /// The host lacks something that guests need.
    NotReady(Error),
    /// Something failed, for this reason, and was reported.
    Failed(String),
    /// The text that the operator asked for is printed.
    Dumped,
}

/// The machines that are offered.
enum Offer {
    Machines(OfferedMachines),
    /// None, because.
    Nothing(Idle, String),
    /// None, since all machines are broken.
    Broken(String),
}

impl<W: World> Agent<W> {
    pub(super) fn turn(&mut self) -> Result<Turn> {
        let drained = || Turn::Idle(Idle::Drained, String::new());
        self.world.sweep();
        let waiting = self.flush(false)?;
        if self.world.stop().is_some() {
            return Ok(drained());
        }
        let unsaved = self.delivery.unsaved();
        if unsaved > 0 {
            let detail = format!("{unsaved} can be neither stored nor sent");
            return Ok(Turn::Idle(Idle::ResultsWaiting, detail));
        }
        if self.world.take_retry() {
            self.resting.clear();
            self.resting_machines.clear();
            self.breaker = Breaker::new(self.options.breaker);
            self.probe_anew = true;
        }
        let gate = self.breaker.gate(self.world.now().uptime);
        if let Gate::Open(until) = gate {
            return Ok(Turn::Idle(Idle::BreakerOpen, self.breaker_detail(until)));
        }
        let probed = self.world.probe(self.probe_anew);
        let reserve = |()| setup::reserve_display(&self.options, &mut self.display);
        if let Err(error) = probed.and_then(reserve) {
            // The agent is up, and waits for the host.
            self.world.watch().ready();
            return Ok(match self.world.stop() {
                Some(_) => drained(),
                None => Turn::NotReady(error),
            });
        }
        self.probe_anew = false;
        self.world.watch().enter(status::Phase::Enumerating, None);
        let machines = match self.offer(gate) {
            // Found out by the first bootstrap.
            Err(error) if error.class() == Class::Config => {
                self.world.watch().ready();
                return Ok(Turn::NotReady(error));
            }
            Err(error) => return Err(error),
            Ok(Offer::Machines(machines)) => machines,
            Ok(Offer::Nothing(reason, detail)) => return Ok(Turn::Idle(reason, detail)),
            Ok(Offer::Broken(detail)) => return Ok(Turn::Broken(detail)),
        };
        if self.world.stop().is_some() {
            return Ok(drained());
        }
        self.world
            .watch()
            .enter(status::Phase::Asking, Some(self.options.request_timeout));
        let asked = self.ask(&machines)?;
        if matches!(asked, Asked::Nothing(Idle::NoTask, _)) && self.world.prepare(&machines.build) {
            return Ok(Turn::Prepared);
        }
        // Other agents may use the machines that no task is for.
        drop(machines);
        match asked {
            Asked::Task(assignment, ..) if self.options.dump == Some(Dump::Task) => {
                self.world.courier().release(&assignment.result_url);
                dump(&assignment.task)
            }
            Asked::Task(assignment, machines, number) => {
                let turn = self.build(*assignment, &machines)?;
                if let Some(number) = number {
                    match turn {
                        // The controller would hand out the task again at once.
                        Turn::Idle(Idle::HostFull, ref why) => self.rest(number, why),
                        _ => drop(self.resting.remove(&number)),
                    }
                }
                Ok(turn)
            }
            Asked::Nothing(Idle::TaskDeclined, why) if self.options.fake_request.is_some() => {
                Ok(Turn::Failed(why))
            }
            Asked::Nothing(Idle::ControllersDown, _) if waiting > 0 => {
                let detail = format!("{waiting} to be sent");
                Ok(Turn::Idle(Idle::ResultsWaiting, detail))
            }
            Asked::Nothing(reason, detail) => Ok(Turn::Idle(reason, detail)),
        }
    }

    fn breaker_detail(&self, until: Duration) -> String {
        let (count, why) = self.breaker.faults();
        let left = until.saturating_sub(self.world.now().uptime).as_secs();
        format!("{count} failures in a row, the last one: {why}; next try in {left} s")
    }

    /// Sends the results that are due. Returns how many wait. With `wait` a new result
    /// has a moment to be sent before the agent goes on.
    pub(super) fn flush(&mut self, wait: bool) -> Result<usize> {
        let beside = self.delivery.has_deliveries()? && self.world.deliver_beside(wait);
        let now = self.world.now();
        let flushed = if beside {
            self.delivery.flush_beside(now, self.world.courier())?
        } else {
            self.delivery.flush(now, self.world.courier())?
        };
        Ok(flushed.waiting)
    }

    /// The machines to offer.
    fn offer(&mut self, gate: Gate) -> Result<Offer> {
        if self.options.fake_machine.is_some() {
            let mut machines = vec![self.fake_machine()?];
            self.world.watch().ready();
            self.agree(&mut machines)?;
            return Ok(Offer::Machines(OfferedMachines {
                build: machines,
                auxiliary: Vec::new(),
            }));
        }
        let Enumeration {
            mut ready,
            mut auxiliary,
            broken,
            busy,
            waiting,
            full,
            ..
        } = self.world.enumerate()?;
        self.world.watch().ready();
        if self.world.stop().is_some() {
            // Machines that were being bootstrapped are not missing.
            return Ok(Offer::Nothing(Idle::Drained, String::new()));
        }
        if ready.is_empty() {
            if let Some(shortage) = waiting {
                return Ok(Offer::Nothing(Idle::HostFull, shortage));
            }
            if busy > 0 {
                let detail = "they are in use by other agents".to_owned();
                return Ok(Offer::Nothing(Idle::NoMachines, detail));
            }
            return Ok(self.no_machines(broken, full.into_iter().next()));
        }
        self.world.note("machines", None);
        self.agree(&mut ready)?;
        let now = self.world.now().uptime;
        let rests = |machine: &MachineManifest| {
            let left = self
                .resting_machines
                .left(machine.name(), machine.id(), now);
            left.is_some()
        };
        ready.retain(|machine| !rests(&machine.manifest.machine));
        auxiliary.retain(|machine| !rests(&machine.manifest));
        if ready.is_empty() {
            let detail = "their guests made no request".to_owned();
            return Ok(Offer::Nothing(Idle::NoMachines, detail));
        }
        if gate == Gate::Try {
            // One machine at a time, since the fault may be with one of them; another
            // one in each turn, since there may be no task for this one.
            let index = self.turns as usize % ready.len();
            ready = vec![ready.swap_remove(index)];
        }
        Ok(Offer::Machines(OfferedMachines {
            build: ready,
            auxiliary,
        }))
    }

    /// Finds the version of the toolchain, and leaves the machines that have it.
    fn agree(&mut self, machines: &mut Vec<Rc<Machine>>) -> Result<()> {
        let options = &self.options;
        let is_sent = !options.legacy_request && options.fake_request.is_none();
        if !is_sent || options.toolchain_ver.is_some() {
            return Ok(());
        }
        let reported: Vec<_> = machines
            .iter()
            .map(|machine| (machine.manifest.machine.name(), &machine.manifest.bootstrap))
            .collect();
        let Some(version) = toolchain::newest(&reported) else {
            if super::is_fake(options) {
                // No worker has reported anything.
                env!("CARGO_PKG_VERSION").clone_into(&mut self.toolchain_version);
                return Ok(());
            }
            let name = &options.toolchain_name;
            let error = Error::new(format!("no version of toolchain {name}"))
                .with_class(Class::Config)
                .hint("no machine reports a standard version as bbot-version")
                .hint("name it: --toolchain-ver <version>");
            return Err(error);
        };
        version.clone_into(&mut self.toolchain_version);
        let difference = toolchain::difference(version, &reported);
        self.world.note("toolchain version", difference);
        machines
            .retain(|machine| toolchain::has(&machine.manifest.bootstrap, &self.toolchain_version));
        Ok(())
    }

    fn no_machines(&mut self, broken: usize, full: Option<String>) -> Offer {
        let name = &self.options.toolchain_name;
        let (text, offer) = match (full, broken) {
            (Some(full), _) => {
                let text = "no work is asked for: too little free space (--min-free)".to_owned();
                (text, Offer::Nothing(Idle::BelowFreeSpace, full))
            }
            (None, 0) => {
                let machines = self.options.machines.display();
                let text = format!("no build machines for toolchain {name} in {machines}");
                (text, Offer::Nothing(Idle::NoMachines, String::new()))
            }
            (None, broken) => {
                let text = format!("no build machines for toolchain {name}: {broken} are broken");
                (text, Offer::Broken(format!("{broken} broken")))
            }
        };
        self.world.note("machines", Some(text));
        offer
    }

    /// The machine that `--fake-machine` describes.
    fn fake_machine(&self) -> Result<Rc<Machine>> {
        let path = self.options.fake_machine.clone().unwrap_or_default();
        let header = setup::fake_machine(&path, self.world.watch())?;
        let mut machine = MachineManifest::new(&header, MachineKind::Kvm);
        machine.set_mac(crate::bootstrap::FAKE_MAC);
        let dir = self.options.machines.join(header.name());
        let id = &self.options.toolchain_id;
        Ok(Rc::new(Machine::fake(machine, id, dir)))
    }
}

fn dump(task: &TaskManifest) -> Result<Turn> {
    cli::print(compose(task.to_text(Style::TODAY))?.as_bytes())?;
    Ok(Turn::Dumped)
}
