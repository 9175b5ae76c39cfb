//! Auxiliary machines, and the machines of one task.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Machine;
use crate::error::{Error, Result, word};
use crate::manifest::{MachineHeader, MachineManifest, TaskManifest, check_auxiliary_name};
use crate::network::MacClaim;

/// A machine that serves build machines. It is not bootstrapped: a task gets a snapshot
/// of its revision.
#[derive(Clone, Debug)]
pub struct AuxiliaryMachine {
    /// Its manifest.
    pub manifest: MachineManifest,
    /// Its header for controllers.
    pub offer: Rc<MachineHeader>,
    /// The subvolume of its current revision.
    pub dir: PathBuf,
    /// The claim of the MAC address that the operator has given it.
    pub(super) claim: Option<Rc<MacClaim>>,
}

impl AuxiliaryMachine {
    /// The machine with the manifest `manifest` in the subvolume `dir`.
    pub fn new(manifest: MachineManifest, dir: PathBuf) -> AuxiliaryMachine {
        AuxiliaryMachine {
            offer: Rc::new(manifest.for_request()),
            manifest,
            dir,
            claim: None,
        }
    }
}

/// Requires that a machine can be offered as an auxiliary one.
pub(super) fn require_offerable(machine: &MachineManifest, revision: &Path) -> Result<()> {
    let manifest = word(&revision.join("manifest"));
    let unable = |why: &str| Error::new(format!("unable to use machine {}: {why}", machine.name()));
    check_auxiliary_name(machine.name()).map_err(|why| {
        unable(&why).hint(format!(
            "rename its directory, subvolume and link, and correct {manifest}"
        ))
    })?;
    match (machine.ram_minimum(), machine.ram_maximum()) {
        (Some(minimum), Some(maximum)) if minimum > maximum => {
            let why = "its ram-minimum is larger than its ram-maximum";
            Err(unable(why).hint(format!("correct them in {manifest}")))
        }
        _ => Ok(()),
    }
}

/// The machines that controllers are offered.
#[derive(Clone, Debug, Default)]
pub struct OfferedMachines {
    /// The machines that tasks are performed in, in directory order.
    pub build: Vec<Rc<Machine>>,
    /// The auxiliary machines, in directory order.
    pub auxiliary: Vec<Rc<AuxiliaryMachine>>,
}

impl OfferedMachines {
    /// Their headers.
    pub fn headers(&self) -> Vec<Rc<MachineHeader>> {
        let build = self.build.iter().map(|machine| &machine.offer);
        let auxiliary = self.auxiliary.iter().map(|machine| &machine.offer);
        build.chain(auxiliary).map(Rc::clone).collect()
    }

    /// The machines of a task; an error is a clause.
    pub fn of_task(&self, task: &TaskManifest) -> Result<TaskMachines, String> {
        let name = task.machine();
        let mut build = self.build.iter();
        let build = build.find(|machine| machine.manifest.machine.name() == name);
        let build = build.ok_or_else(|| format!("machine {name} was not offered"))?;
        let needs = task.auxiliary_machines()?.into_iter();
        let auxiliary = needs.map(|need| {
            let mut machines = self.auxiliary.iter();
            match machines.find(|machine| machine.manifest.name() == need.machine) {
                Some(machine) => Ok((need.environment, Rc::clone(machine))),
                None => Err(format!(
                    "auxiliary machine {} was not offered",
                    need.machine
                )),
            }
        });
        Ok(TaskMachines {
            build: Rc::clone(build),
            auxiliary: auxiliary.collect::<Result<_, _>>()?,
        })
    }
}

/// The machines of one task.
#[derive(Clone, Debug)]
pub struct TaskMachines {
    /// The machine that it is performed in.
    pub build: Rc<Machine>,
    /// The auxiliary machines, each with the name of its environment.
    pub auxiliary: Vec<(String, Rc<AuxiliaryMachine>)>,
}
