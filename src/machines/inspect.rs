//! The state of one machine, from its link and manifests. Inspecting changes nothing.

use std::path::{Path, PathBuf};

use nix::libc;

use super::remedies;
use super::tree::MachineDir;
use super::{AuxiliaryMachine, Machine, MachinesSettings, auxiliary};
use crate::error::{Error, Result, word};
use crate::machine::{files, firmware, tpm};
use crate::manifest::reuse::{self, BootstrapReason, Reuse};
use crate::manifest::{BootstrappedMachine, MachineKind, MachineManifest, Role};
use crate::platform::Architecture;

/// How many times a link is followed that the operator changes meanwhile.
const MAX_LINK_CHANGES: u32 = 10;

/// The state of a machine.
#[derive(Debug)]
pub enum Inspection {
    /// Its copy can be used.
    Ready(Box<Machine>),
    /// It serves build machines.
    Auxiliary(Box<AuxiliaryMachine>),
    /// It has no current copy.
    NeedsBootstrap(NeededBootstrap),
    /// It is not used, for this reason, which is no fault.
    Ignored(String),
    /// The operator has removed its link.
    Retired,
}

/// The reason and the input of a bootstrap.
#[derive(Debug)]
pub struct NeededBootstrap {
    /// The reason.
    pub why: BootstrapReason,
    /// The subvolume of the current revision.
    pub revision: PathBuf,
    /// Whether the operator has given it a MAC address.
    pub has_fixed_mac: bool,
    /// The MAC address of the former copy.
    pub previous_mac: Option<String>,
}

/// Inspects a machine.
pub fn inspect(machine: &MachineDir, settings: &MachinesSettings) -> Result<Inspection> {
    let Some((revision, current)) = current(machine)? else {
        return Ok(Inspection::Retired);
    };
    let guest = Architecture::of(current.name(), current.options().as_deref(), &settings.qemu);
    if Architecture::of_program(&settings.qemu).is_some_and(|other| other != guest) {
        let (guest, qemu) = (guest.name(), settings.qemu.display());
        let why = format!("its guest is {guest}, and --qemu is {qemu}");
        return Ok(Inspection::Ignored(why));
    }
    if current.role() == Role::Auxiliary {
        let ram_kb = settings.auxiliary_ram_kb;
        if ram_kb == 0 {
            let why = "its role is auxiliary, and there is no --auxiliary-ram";
            return Ok(Inspection::Ignored(why.to_owned()));
        }
        require_suitable(&current, &revision, ram_kb, "--auxiliary-ram")?;
        auxiliary::require_offerable(&current, &revision)?;
        require_usable(&current, &revision, settings)?;
        let scratch = machine.copy(&settings.toolchain);
        let machine = AuxiliaryMachine::new(current, revision, scratch);
        return Ok(Inspection::Auxiliary(Box::new(machine)));
    }
    require_suitable(&current, &revision, settings.ram_kb, "--ram")?;
    let has_fixed_mac = current.mac().is_some();
    let target = machine.copy(&settings.toolchain);
    let (why, previous_mac) = match copy(&target, settings)? {
        Err(why) => (why, None),
        Ok(copy) => {
            match reuse::judge(
                current.id(),
                &settings.toolchain_id,
                &settings.versions,
                &copy,
            ) {
                Reuse::Yes => {
                    let machine = Machine::new(copy, target, has_fixed_mac);
                    return Ok(Inspection::Ready(Box::new(machine)));
                }
                Reuse::Newer(package) => {
                    let why = format!("its {package} is newer than expected");
                    return Ok(Inspection::Ignored(why));
                }
                Reuse::No(why) => (why, copy.machine.mac().map(str::to_owned)),
            }
        }
    };
    require_usable(&current, &revision, settings)?;
    Ok(Inspection::NeedsBootstrap(NeededBootstrap {
        why,
        revision,
        has_fixed_mac,
        previous_mac,
    }))
}

/// The current revision and its manifest; `None` without a link.
fn current(machine: &MachineDir) -> Result<Option<(PathBuf, MachineManifest)>> {
    let mut revision = machine.current()?;
    for _ in 0..MAX_LINK_CHANGES {
        let Some(path) = revision else {
            return Ok(None);
        };
        match files::machine_manifest(&machine.name, &path, &path) {
            // The operator may have switched to another revision and deleted this one.
            Err(error) if is_missing(&error) => {
                revision = machine.current()?;
                if revision.as_ref() == Some(&path) {
                    return Err(match path.exists() {
                        true => error,
                        false => error.hint(remedies::link(machine, Some(&path))),
                    });
                }
            }
            manifest => return manifest.map(|manifest| Some((path, manifest))),
        }
    }
    Err(Error::new(format!(
        "unable to use machine {}: its link changes all the time",
        machine.name
    )))
}

/// The manifest of the bootstrapped copy, or why there is none.
fn copy(
    target: &Path,
    settings: &MachinesSettings,
) -> Result<Result<BootstrappedMachine, BootstrapReason>> {
    let text = match files::manifest(target, target) {
        Ok(text) => text,
        Err(error) if is_missing(&error) => {
            return Ok(Err(match target.exists() {
                false => BootstrapReason::Missing,
                true => BootstrapReason::Unreadable("its manifest is missing".to_owned()),
            }));
        }
        Err(error) => return Err(error),
    };
    let path = target.join("manifest");
    let copy = match BootstrappedMachine::parse(&text, &path.to_string_lossy()) {
        Ok(copy) => copy,
        Err(error) => {
            let why = format!("invalid bootstrapped machine manifest: {error}");
            return Ok(Err(BootstrapReason::Unreadable(why)));
        }
    };
    Ok(match require_usable(&copy.machine, target, settings) {
        Ok(()) => Ok(copy),
        Err(error) => Err(BootstrapReason::Unreadable(error.to_string())),
    })
}

/// Requires the files of the machine in `subvolume`, and what they need of this host.
fn require_usable(
    machine: &MachineManifest,
    subvolume: &Path,
    settings: &MachinesSettings,
) -> Result<()> {
    files::require_disk(subvolume, machine)?;
    firmware::of(machine, subvolume, &settings.qemu)?;
    tpm::of(machine, subvolume, &settings.qemu).map(drop)
}

/// Requires that a machine can be run on this host.
fn require_suitable(
    machine: &MachineManifest,
    revision: &Path,
    ram_kb: u64,
    option: &str,
) -> Result<()> {
    let name = machine.name();
    let unable = |why: &str| Error::new(format!("unable to use machine {name}: {why}"));
    if machine.kind() != MachineKind::Kvm {
        let path = revision.join("manifest");
        let remedy = format!("correct it: sed -i 's/^type:.*/type: kvm/' {}", word(&path));
        return Err(unable("only machines of type kvm are supported").hint(remedy));
    }
    match machine.ram_minimum() {
        Some(minimum) if minimum > ram_kb => {
            let why =
                format!("it needs {minimum} kB of memory, and guests have {ram_kb} kB ({option})");
            Err(unable(&why).hint(format!("give guests more: {option} {minimum}")))
        }
        _ => Ok(()),
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(
        error.errno(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ESTALE)
    )
}
