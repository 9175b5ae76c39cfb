//! Auxiliary machines, and the machines of one task.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Machine;
use crate::error::{Error, Result, word};
use crate::manifest::{MachineHeader, MachineManifest, TaskManifest, check_auxiliary_name};
use crate::network::NetworkClaim;

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
    /// The path that the names of scratch snapshots are derived from, as those of a build
    /// machine are from its copy.
    pub scratch: PathBuf,
    /// The claim of the MAC address that the operator has given it.
    pub(super) claim: Option<Rc<NetworkClaim>>,
}

impl AuxiliaryMachine {
    /// The machine with the manifest `manifest` in the subvolume `dir`.
    pub fn new(manifest: MachineManifest, dir: PathBuf, scratch: PathBuf) -> AuxiliaryMachine {
        AuxiliaryMachine {
            offer: Rc::new(manifest.for_request()),
            manifest,
            dir,
            scratch,
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

    /// The machines of a task, if the auxiliary ones have `ram_kb` of memory together; an
    /// error is a clause.
    pub fn of_task(&self, task: &TaskManifest, ram_kb: u64) -> Result<TaskMachines, String> {
        let name = task.machine();
        let mut build = self.build.iter();
        let build = build.find(|machine| machine.manifest.machine.name() == name);
        let build = build.ok_or_else(|| format!("machine {name} was not offered"))?;
        let needs = task.auxiliary_machines()?.into_iter();
        let auxiliary = needs.map(|need| {
            let mut machines = self.auxiliary.iter();
            match machines.find(|machine| machine.manifest.name() == need.machine) {
                Some(machine) => Ok(NeededMachine {
                    environment: need.environment,
                    machine: Rc::clone(machine),
                    ram_kb: 0,
                }),
                None => Err(format!(
                    "auxiliary machine {} was not offered",
                    need.machine
                )),
            }
        });
        let mut auxiliary = auxiliary.collect::<Result<Vec<_>, _>>()?;
        divide_memory(&mut auxiliary, ram_kb)?;
        Ok(TaskMachines {
            build: Rc::clone(build),
            auxiliary,
        })
    }
}

/// The machines of one task.
#[derive(Clone, Debug)]
pub struct TaskMachines {
    /// The machine that it is performed in.
    pub build: Rc<Machine>,
    /// The auxiliary machines.
    pub auxiliary: Vec<NeededMachine>,
}

/// An auxiliary machine that a task needs.
#[derive(Clone, Debug)]
pub struct NeededMachine {
    /// The name of its environment; empty for one without a name.
    pub environment: String,
    /// The machine.
    pub machine: Rc<AuxiliaryMachine>,
    /// Its memory in kB.
    pub ram_kb: u64,
}

/// Gives each machine its minimum, and divides the rest equally, up to the maximum of
/// each. An error is a clause.
fn divide_memory(machines: &mut [NeededMachine], ram_kb: u64) -> Result<(), String> {
    let minimum = |one: &NeededMachine| one.machine.manifest.ram_minimum().unwrap_or(0);
    let maximum = |one: &NeededMachine| one.machine.manifest.ram_maximum().unwrap_or(u64::MAX);
    let used = machines.iter().map(minimum).fold(0, u64::saturating_add);
    let mut rest = ram_kb.checked_sub(used).ok_or_else(|| {
        format!("its auxiliary machines need {used} kB of memory, and have {ram_kb} kB")
    })?;
    // Who has room for the least comes first: what it leaves is for the others.
    let mut order: Vec<_> = machines.iter_mut().collect();
    order.sort_by_key(|one| maximum(one).saturating_sub(minimum(one)));
    let mut left = order.len() as u64;
    for one in order {
        let room = maximum(one).saturating_sub(minimum(one));
        let share = room.min(rest / left);
        one.ram_kb = minimum(one) + share;
        rest -= share;
        left -= 1;
        if one.ram_kb < MIN_RAM_KB {
            let name = one.machine.manifest.name();
            return Err(format!(
                "{} kB of memory are left for auxiliary machine {name}: too few",
                one.ram_kb
            ));
        }
    }
    Ok(())
}

/// The minimum memory of an auxiliary machine, in kB.
const MIN_RAM_KB: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(name: &str, ram: &str) -> NeededMachine {
        let text = format!(
            ": 1\nid: {name}-1.0\nname: {name}\nsummary: x\ntype: kvm\nrole: auxiliary\n{ram}"
        );
        let manifest = MachineManifest::parse(text.as_bytes(), "f").unwrap();
        NeededMachine {
            environment: String::new(),
            machine: Rc::new(AuxiliaryMachine::new(manifest, "r".into(), "s".into())),
            ram_kb: 0,
        }
    }

    #[test]
    fn memory_is_divided_between_minimum_and_maximum() {
        let divided = |machines: &[&str], ram_kb| {
            let named = machines.iter().enumerate();
            let mut machines: Vec<_> = named
                .map(|(n, ram)| needed(&format!("a-{n}"), ram))
                .collect();
            divide_memory(&mut machines, ram_kb)?;
            Ok(machines.iter().map(|one| one.ram_kb).collect::<Vec<_>>())
        };
        let small = "ram-minimum: 100000\nram-maximum: 150000\n";
        assert_eq!(divided(&[], 0), Ok(vec![]));
        assert_eq!(divided(&["", ""], 500_000), Ok(vec![250_000, 250_000]));
        assert_eq!(divided(&["", small], 500_000), Ok(vec![350_000, 150_000]));
        assert_eq!(
            divided(&["ram-minimum: 300000\n", small], 400_000),
            Ok(vec![300_000, 100_000])
        );
        assert_eq!(
            divided(&["ram-minimum: 300000\n", small], 399_999),
            Err("its auxiliary machines need 400000 kB of memory, and have 399999 kB".to_owned())
        );
        assert_eq!(
            divided(&["", small], 100_000),
            Err("0 kB of memory are left for auxiliary machine a-0: too few".to_owned())
        );
    }
}
