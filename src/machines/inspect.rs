//! The state of one machine, from its link and manifests. Inspecting changes nothing.

use std::path::{Path, PathBuf};

use nix::libc;

use super::tree::{self, MachineDir};
use super::{Machine, MachinesSettings};
use crate::error::{Error, Result};
use crate::manifest::reuse::{self, BootstrapReason, Reuse};
use crate::manifest::{BootstrappedMachine, MachineKind, MachineManifest, Role};

/// How many times a link is followed that the operator changes meanwhile.
const MAX_LINK_CHANGES: u32 = 10;

/// The state of a machine.
#[derive(Debug)]
pub enum Inspection {
    /// Its copy can be used.
    Ready(Box<Machine>),
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
    /// The MAC address of the former copy.
    pub previous_mac: Option<String>,
}

/// Inspects a machine.
///
/// # Errors
///
/// When the machine is broken.
pub fn inspect(machine: &MachineDir, settings: &MachinesSettings) -> Result<Inspection> {
    let Some((revision, current)) = current(machine)? else {
        return Ok(Inspection::Retired);
    };
    let memory = unsuitable(&current, settings.ram_kb);
    if current.role() == Role::Auxiliary {
        return Ok(Inspection::Ignored("its role is auxiliary".to_owned()));
    }
    if let Some(why) = memory {
        return Err(Error::new(format!(
            "unable to use machine {}: {why}",
            machine.name
        )));
    }
    let target = machine.copy(&settings.toolchain);
    let (why, previous_mac) = match copy(&target)? {
        Err(why) => (why, None),
        Ok(copy) => {
            match reuse::judge(
                current.id(),
                &settings.toolchain_id,
                &settings.versions,
                &copy,
            ) {
                Reuse::Yes => {
                    return Ok(Inspection::Ready(Box::new(Machine::new(copy, target))));
                }
                Reuse::Newer(package) => {
                    let why = format!("its {package} is newer than expected");
                    return Ok(Inspection::Ignored(why));
                }
                Reuse::No(why) => (why, copy.machine.mac().map(str::to_owned)),
            }
        }
    };
    Ok(Inspection::NeedsBootstrap(NeededBootstrap {
        why,
        revision,
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
        match tree::machine_manifest(&machine.name, &path) {
            // The operator may have switched to another revision and deleted this one.
            Err(error) if is_missing(&error) => {
                revision = machine.current()?;
                if revision.as_ref() == Some(&path) {
                    return Err(error);
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
fn copy(target: &Path) -> Result<Result<BootstrappedMachine, BootstrapReason>> {
    let text = match tree::manifest(target) {
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
    Ok(
        BootstrappedMachine::parse(&text, &path.to_string_lossy()).map_err(|error| {
            BootstrapReason::Unreadable(format!("invalid bootstrapped machine manifest: {error}"))
        }),
    )
}

/// Why a machine cannot be run on this host, if it cannot.
#[must_use]
pub fn unsuitable(machine: &MachineManifest, ram_kb: u64) -> Option<String> {
    if machine.kind() != MachineKind::Kvm {
        return Some("only machines of type kvm are supported".to_owned());
    }
    let minimum = machine.ram_minimum().filter(|minimum| *minimum > ram_kb)?;
    Some(format!(
        "it needs {minimum} kB of memory, and guests have {ram_kb} kB (--ram)"
    ))
}

fn is_missing(error: &Error) -> bool {
    matches!(
        error.errno(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ESTALE)
    )
}
