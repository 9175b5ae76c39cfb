//! The machines of this host: which can be offered, and which need a bootstrap.
//!
//! An enumeration reads the link and the manifests of every machine and writes
//! nothing. Machines whose copy is missing or stale are bootstrapped afterwards, so
//! that the agent knows then whether other machines could build meanwhile:
//!
//! - A machine whose bootstrap failed is tried again after pauses that grow to an hour
//!   ([`backoff`]).
//! - While other machines can build, failed bootstraps take at most a fifth of the
//!   agent's time. A machine that has not failed does not wait for that, but for a turn
//!   if another one has just failed.
//!
//! A broken machine, volume or manifest stops neither the others nor the agent, and is
//! reported once per change.

mod auxiliary;
pub mod backoff;
mod claims;
pub mod inspect;
pub mod low_space;
pub mod remedies;
pub mod toolchain;
pub mod tree;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::bootstrap::{BootstrapOrder, Bootstrapped};
use crate::cli::Options;
use crate::delivery::BootFile;
use crate::diag;
use crate::error::{Class, Error, Result};
use crate::manifest::reuse::Age;
use crate::manifest::{
    BootstrapManifest, BootstrappedMachine, MachineHeader, MachineManifest, ToolchainManifest,
};
use crate::network::NetworkClaim;
use crate::snapshot;
use crate::trace;
use crate::watch::Watch;

pub use auxiliary::{AuxiliaryMachine, NeededMachine, OfferedMachines, TaskMachines};
use backoff::BootstrapBackoff;
use inspect::{Inspection, NeededBootstrap};
use tree::{MachineDir, MachineDirs};

/// After a failed bootstrap the next one waits for this many times its length while
/// other machines can build.
const BUILD_SHARE: u32 = 4;

/// The machines to look for, and the checks of their copies.
#[derive(Clone, Debug)]
pub struct MachinesSettings {
    /// `<machines>`.
    pub root: PathBuf,
    /// The name of the toolchain.
    pub toolchain: String,
    /// Its id; empty matches any.
    pub toolchain_id: String,
    /// Versions that bootstrapped machines must report, by package.
    pub versions: Vec<(String, String)>,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// The memory of guests (`--ram`), in kB.
    pub ram_kb: u64,
    /// The memory of the auxiliary machines of a task (`--auxiliary-ram`), in kB; 0: there
    /// are none.
    pub auxiliary_ram_kb: u64,
    /// The number of the agent, which is a part of its guests' MAC addresses.
    pub instance: u16,
}

impl MachinesSettings {
    /// The settings from the options.
    pub fn new(options: &Options) -> MachinesSettings {
        MachinesSettings {
            root: options.machines.clone(),
            toolchain: options.toolchain_name.clone(),
            toolchain_id: options.toolchain_id.clone(),
            versions: options.bootstrap_versions.clone(),
            qemu: options.qemu.clone(),
            ram_kb: options.ram,
            auxiliary_ram_kb: match options.legacy_request {
                true => 0,
                false => options.auxiliary_ram,
            },
            instance: options.instance,
        }
    }
}

/// A machine that tasks can be performed in.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The manifest of its copy.
    pub manifest: BootstrappedMachine,
    /// Its header for controllers.
    pub offer: Rc<MachineHeader>,
    /// The bootstrapped copy.
    pub dir: PathBuf,
    /// Whether its MAC address is one that the operator has given it.
    has_fixed_mac: bool,
    /// The claim of that address.
    claim: Option<Rc<NetworkClaim>>,
}

impl Machine {
    fn new(manifest: BootstrappedMachine, dir: PathBuf, has_fixed_mac: bool) -> Machine {
        Machine {
            offer: Rc::new(manifest.machine.for_request()),
            manifest,
            dir,
            has_fixed_mac,
            claim: None,
        }
    }

    /// A machine without a copy.
    pub fn fake(machine: MachineManifest, toolchain_id: &str, dir: PathBuf) -> Machine {
        let manifest = BootstrappedMachine {
            machine,
            toolchain: ToolchainManifest::new(toolchain_id),
            bootstrap: BootstrapManifest::default(),
        };
        Machine::new(manifest, dir, false)
    }
}

/// Makes copies of machines, and has the clock for the pauses between attempts.
pub trait Bootstrapper {
    /// The time since the start of the host.
    fn uptime(&self) -> Duration;

    /// Makes a copy.
    ///
    /// # Errors
    ///
    /// Failures of the host. One of [`Class::Config`] would befall every machine.
    fn bootstrap(
        &mut self,
        order: &BootstrapOrder<'_>,
        versions: &[(String, String)],
    ) -> Result<Bootstrapped>;
}

/// The machines of a host, from one enumeration to the next.
#[derive(Debug)]
pub struct Machines {
    settings: MachinesSettings,
    backoff: BootstrapBackoff,
    /// No bootstrap begins before this uptime while other machines can build.
    next_bootstrap: Duration,
    /// The file that keeps the two, if any.
    kept: Option<BootFile>,
}

/// The result of an enumeration.
#[derive(Debug, Default)]
pub struct Enumeration {
    /// The machines that are ready, in directory order.
    pub ready: Vec<Rc<Machine>>,
    /// The auxiliary machines, in directory order.
    pub auxiliary: Vec<Rc<AuxiliaryMachine>>,
    /// The number of machines that are broken.
    pub broken: usize,
    /// Whether a bootstrap has failed.
    has_failed_bootstrap: bool,
    /// The number of machines that another agent bootstraps, or whose MAC address a
    /// guest of another agent has.
    pub busy: usize,
    /// The part of the host that bootstraps wait for, if any does.
    pub waiting: Option<String>,
    /// A line for each volume that was left out for lack of space.
    pub full: Vec<String>,
}

impl Machines {
    /// No machines yet.
    pub fn new(settings: MachinesSettings) -> Machines {
        Machines {
            settings,
            backoff: BootstrapBackoff::default(),
            next_bootstrap: Duration::ZERO,
            kept: None,
        }
    }

    /// Keeps the failures of bootstraps in the file at `path`, for as long as the host
    /// runs, and reads those of former agents from it. With `repeats` they are reported
    /// again.
    pub fn keep(&mut self, path: PathBuf, repeats: bool) {
        let (file, kept) = BootFile::open(path);
        if let Some(kept) = kept
            && let (Some(next), Some(broken)) = (kept.get("next"), kept.get("broken"))
        {
            self.next_bootstrap = Duration::from_secs(next.as_u64().unwrap_or_default());
            self.backoff = BootstrapBackoff::from_json(broken);
            if repeats {
                self.backoff.repeat_reports();
            }
        }
        self.kept = Some(file);
    }

    /// Writes what is kept, if it has changed.
    fn save(&mut self) {
        let Some(file) = &mut self.kept else { return };
        let is_empty = self.backoff.is_empty() && self.next_bootstrap.is_zero();
        file.write(match is_empty {
            true => Vec::new(),
            false => vec![
                ("next", self.next_bootstrap.as_secs().into()),
                ("broken", self.backoff.to_json()),
            ],
        });
    }

    /// Forgets the pauses after failed bootstraps.
    pub fn retry(&mut self) {
        self.backoff.retry();
        self.next_bootstrap = Duration::ZERO;
        self.save();
    }

    /// Enumerates the machines, except those on the volumes `low`, and bootstraps those
    /// that need it. Ends early when the watch says so.
    pub fn enumerate(
        &mut self,
        low: &HashSet<PathBuf>,
        bootstrapper: &mut dyn Bootstrapper,
        watch: &Watch,
    ) -> Result<Enumeration> {
        let MachineDirs { found, broken } = tree::machine_dirs(&self.settings.root)?;
        let mut result = Enumeration::default();
        for (dir, error) in broken {
            self.note(&mut result, &dir, &error);
        }
        let mut needed = Vec::new();
        for machine in found {
            if watch.must_stop() {
                return Ok(result);
            }
            if low.contains(&*machine.volume) {
                self.backoff.keep(&machine.dir());
                continue;
            }
            if let Some(need) = self.add(&mut result, &machine) {
                needed.push((machine, need));
            }
        }
        // Those that have not failed go first, then the one that has waited longest, so that
        // none is left out.
        needed.sort_by_key(|(machine, need)| {
            let (dir, revision) = (machine.dir(), &need.revision);
            let has_failed = !self.backoff.reasons(&dir, revision).is_empty();
            (has_failed, self.backoff.retry_time(&dir, revision))
        });
        for (number, (machine, mut need)) in needed.into_iter().enumerate() {
            if watch.must_stop() {
                break;
            }
            // Another agent may have made the copy during the bootstraps before this one.
            if number > 0 {
                match self.add(&mut result, &machine) {
                    Some(now) => need = now,
                    None => continue,
                }
            }
            self.bootstrap(&mut result, &machine, &need, bootstrapper)?;
        }
        result.ready.sort_by(|a, b| a.dir.cmp(&b.dir));
        claims::claim(&mut result, self.settings.instance)?;
        self.backoff.end_enumeration();
        self.save();
        Ok(result)
    }

    /// Adds a machine as it is now to `result`. Returns the bootstrap that it needs first.
    fn add(&mut self, result: &mut Enumeration, machine: &MachineDir) -> Option<NeededBootstrap> {
        let dir = machine.dir();
        match inspect::inspect(machine, &self.settings) {
            Ok(Inspection::Ready(ready)) => result.ready.push(Rc::from(ready)),
            Ok(Inspection::Auxiliary(found)) => result.auxiliary.push(Rc::from(found)),
            Ok(Inspection::NeedsBootstrap(need)) => return Some(need),
            Ok(Inspection::Ignored(why)) => {
                trace!(3, "inspect", "skipping {}: {why}", dir.display());
            }
            Ok(Inspection::Retired) => {
                trace!(
                    3,
                    "inspect",
                    "skipping {}: no subvolume link",
                    dir.display()
                );
                if let Err(error) = retire(&machine.copy(&self.settings.toolchain)) {
                    self.note(result, &dir, &error);
                }
            }
            Err(error) => self.note(result, &dir, &error),
        }
        None
    }

    /// Notes a broken machine, and reports it once per change.
    fn note(&mut self, result: &mut Enumeration, dir: &Path, error: &Error) {
        self.note_change(result, dir, &error.to_string(), error);
    }

    /// The same, where the text of the error differs from time to time and `reason` does
    /// not.
    fn note_change(&mut self, result: &mut Enumeration, dir: &Path, reason: &str, error: &Error) {
        result.broken += 1;
        if self.backoff.is_news(dir, reason) {
            diag::failure(error).emit();
        }
    }

    fn bootstrap(
        &mut self,
        result: &mut Enumeration,
        machine: &MachineDir,
        need: &NeededBootstrap,
        bootstrapper: &mut dyn Bootstrapper,
    ) -> Result<()> {
        let (dir, target) = (machine.dir(), machine.copy(&self.settings.toolchain));
        let start = bootstrapper.uptime();
        if self.backoff.is_resting(&dir, &need.revision, start) {
            result.broken += 1;
            return Ok(());
        }
        let shown = target.display();
        let waits = match self.backoff.reasons(&dir, &need.revision) {
            [] => result.has_failed_bootstrap,
            _ => start < self.next_bootstrap,
        };
        if waits && !result.ready.is_empty() {
            trace!(3, "bootstrap", "{shown} waits: other machines can build");
            self.backoff.keep(&dir);
            return Ok(());
        }
        trace!(
            3,
            "bootstrap", "{shown} is to be bootstrapped: {}", need.why
        );
        let order = BootstrapOrder {
            name: &machine.name,
            revision: &need.revision,
            target: &target,
            previous_mac: need.previous_mac.as_deref(),
            known_failures: self.backoff.reasons(&dir, &need.revision),
        };
        let versions = &self.settings.versions;
        let (error, reason) = match bootstrapper.bootstrap(&order, versions) {
            Ok(Bootstrapped::Done(manifest, Age::Newer(package))) => {
                drop(manifest);
                diag::warning(format_args!(
                    "ignoring {shown}: it was bootstrapped with a newer {package} than expected"
                ))
                .emit();
                return Ok(());
            }
            Ok(Bootstrapped::Done(manifest, _)) => {
                diag::info(format_args!("bootstrapped {shown}")).emit();
                result
                    .ready
                    .push(Rc::new(Machine::new(*manifest, target, need.has_fixed_mac)));
                return Ok(());
            }
            Ok(Bootstrapped::Busy) => {
                trace!(3, "bootstrap", "{shown} is in use by another agent");
                self.backoff.keep(&dir);
                result.busy += 1;
                return Ok(());
            }
            Ok(Bootstrapped::NoRoom(why)) => {
                trace!(3, "bootstrap", "{shown} waits for {why}");
                self.backoff.keep(&dir);
                result.waiting = Some(why);
                return Ok(());
            }
            Ok(Bootstrapped::Stopped) => return Ok(()),
            Ok(Bootstrapped::Failed { error, reason }) => (error, reason),
            Err(error) if error.class() == Class::Config => return Err(error),
            Err(error) => {
                let reason = error.to_string();
                (error, reason)
            }
        };
        let end = bootstrapper.uptime();
        self.next_bootstrap =
            self.next_bootstrap.max(end) + end.saturating_sub(start) * BUILD_SHARE;
        result.has_failed_bootstrap = true;
        self.note_change(result, &dir, &reason, &error);
        let pause = self.backoff.failed(&dir, &need.revision, reason, end);
        trace!(
            2,
            "bootstrap",
            "next attempt at {shown} in {} s",
            pause.as_secs()
        );
        Ok(())
    }
}

/// Deletes the copy of a machine that was retired.
fn retire(target: &Path) -> Result<()> {
    if snapshot::is_subvolume(target)? {
        let shown = target.display();
        diag::info(format_args!("deleting {shown}: the machine was retired")).emit();
        snapshot::delete(target)?;
    }
    Ok(())
}
