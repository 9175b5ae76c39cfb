//! Which machines this host has, and what each of them needs.
//!
//! An enumeration looks at every machine directory: link, manifest of the
//! current revision, manifest of our bootstrapped copy. When nothing changed it
//! reads a few small files for each machine and writes nothing. What is missing
//! or stale is bootstrapped on the way.
//!
//! One broken machine, volume or manifest stops neither the others nor the
//! agent: it is reported once per change, and a failed bootstrap is tried again
//! with growing pauses ([`trouble`]).

mod glance;
pub mod room;
pub mod tree;
pub mod trouble;
pub mod verdict;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::bootstrap::{self, Bootstrapped};
use crate::diag;
use crate::error::{Error, Result};
use crate::manifest::{
    BootstrapManifest, BootstrappedMachine, MachineHeader, MachineKind, MachineManifest,
    ToolchainManifest,
};
use crate::snapshot::{self, Snapshot};
use crate::trace;
use crate::watch::{Wake, Watch};

use nix::libc;

use glance::Glance;
use tree::{MachineDir, Places};
use trouble::Troubles;
use verdict::{Age, BootstrapReason, Verdict};

/// How often a machine that changes under us is looked at again, a second apart
/// each time.
const RETRIES: u32 = 10;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

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
}

impl Machine {
    fn new(manifest: BootstrappedMachine, dir: PathBuf) -> Machine {
        Machine {
            offer: Rc::new(manifest.machine.for_request(false)),
            manifest,
            dir,
        }
    }

    /// A machine that there is nothing of but its manifest.
    #[must_use]
    pub fn fake(machine: MachineManifest, toolchain_id: &str, dir: PathBuf) -> Machine {
        let manifest = BootstrappedMachine {
            machine,
            toolchain: ToolchainManifest::new(toolchain_id),
            bootstrap: BootstrapManifest::default(),
        };
        Machine::new(manifest, dir)
    }
}

/// The machines of a host, from one enumeration to the next.
#[derive(Debug)]
pub struct Machines {
    config: MachinesSettings,
    glance: Glance,
    troubles: Troubles,
}

/// The result of an enumeration.
#[derive(Debug, Default)]
pub struct Enumeration {
    /// The machines that are ready, in directory order.
    pub ready: Vec<Rc<Machine>>,
    /// How many have something wrong with them.
    pub broken: usize,
    /// How many wait for a bootstrap that was not to be made now.
    pub waiting: usize,
    /// A line for each volume that was left out for lack of space.
    pub full: Vec<String>,
}

/// The state of one machine.
enum Look {
    Ready(Box<Machine>),
    /// There is a reason not to use it, which is no fault.
    Ignored,
    /// It would have to be bootstrapped, but not now.
    Waiting,
    /// A bootstrap failed, and is not tried again yet.
    Resting,
    /// It changed while we looked at it.
    Again(Error),
}

impl Machines {
    /// No machines yet.
    #[must_use]
    pub fn new(config: MachinesSettings) -> Machines {
        Machines {
            config,
            glance: Glance::default(),
            troubles: Troubles::default(),
        }
    }

    /// Enumerates the machines, but for those on the volumes `low`, bootstrapping
    /// those that need it with `bootstrap`; `None`: none is bootstrapped now.
    /// Ends early when the watch says so.
    ///
    /// # Errors
    ///
    /// When the machines directory itself cannot be read.
    pub fn enumerate(
        &mut self,
        bootstrap: Option<&bootstrap::BootstrapSettings>,
        low: &HashSet<PathBuf>,
        watch: &Watch,
    ) -> Result<Enumeration> {
        let Places { found, broken } = tree::places(&self.config.root)?;
        let mut result = Enumeration {
            ready: Vec::with_capacity(found.len()),
            broken: broken.len(),
            ..Enumeration::default()
        };
        for (volume, error) in broken {
            self.complain(&volume, &error);
        }
        self.glance.begin();
        for place in found {
            if watch.must_stop() {
                return Ok(result);
            }
            if low.contains(&*place.volume) {
                continue;
            }
            if let Some(machine) = self.glance.unchanged(&place, &self.config) {
                result.ready.push(machine);
                continue;
            }
            match self.examine(&place, bootstrap, watch) {
                Ok(Look::Ready(machine)) => result.ready.push(Rc::from(machine)),
                Ok(Look::Waiting) => result.waiting += 1,
                Ok(Look::Resting) => result.broken += 1,
                Ok(Look::Ignored) => {}
                Ok(Look::Again(error)) | Err(error) => {
                    result.broken += 1;
                    self.complain(&place.dir(), &error);
                }
            }
        }
        self.glance.end();
        self.troubles.settle();
        Ok(result)
    }

    fn complain(&mut self, place: &Path, error: &Error) {
        if self.troubles.complain(place, &error.to_string()) {
            diag::failure(error).emit();
        }
    }

    fn examine(
        &mut self,
        place: &MachineDir,
        bootstrap: Option<&bootstrap::BootstrapSettings>,
        watch: &Watch,
    ) -> Result<Look> {
        // What was broken the last time already is not being switched just now.
        let mut left = if self.troubles.knows(&place.dir()) {
            0
        } else {
            RETRIES
        };
        loop {
            match self.look(place, bootstrap, watch)? {
                Look::Again(_) if left > 0 && !watch.must_stop() => {
                    left -= 1;
                    if watch.pause(RETRY_PAUSE) == Wake::Signal && watch.must_stop() {
                        return Ok(Look::Ignored);
                    }
                }
                look => return Ok(look),
            }
        }
    }

    fn look(
        &mut self,
        place: &MachineDir,
        bootstrap: Option<&bootstrap::BootstrapSettings>,
        watch: &Watch,
    ) -> Result<Look> {
        let target = place.bootstrapped(&self.config.toolchain);
        let Some(revision) = place.current()? else {
            trace!(
                3,
                "look",
                "skipping {}: no subvolume link",
                place.dir().display()
            );
            retire(&target)?;
            return Ok(Look::Ignored);
        };
        let machine = match tree::manifest(&revision) {
            Ok(text) => text,
            // The link was there, so the revision was being switched.
            Err(error) if is_missing(&error) => return Ok(Look::Again(error)),
            Err(error) => return Err(error),
        };
        let machine = parse_machine(&machine, &revision)?;
        if machine.kind() != MachineKind::Kvm {
            return Err(Error::new(format!(
                "unable to use machine {}: only machines of type kvm are supported",
                revision.display()
            )));
        }

        let (verdict, stored) = self.judge(&machine, &target)?;
        let why = match verdict {
            Verdict::Reuse => {
                return Ok(stored.map_or(Look::Ignored, |manifest| {
                    Look::Ready(Box::new(Machine::new(manifest, target)))
                }));
            }
            Verdict::Newer(package) => {
                trace!(
                    3,
                    "look",
                    "ignoring {}: its {package} is newer than expected",
                    target.display()
                );
                return Ok(Look::Ignored);
            }
            Verdict::Bootstrap(why) => why,
        };
        trace!(
            3,
            "look",
            "{} is to be bootstrapped: {why}",
            target.display()
        );

        if self
            .troubles
            .resting(&place.dir(), &revision, Instant::now())
        {
            return Ok(Look::Resting);
        }
        let Some(config) = bootstrap else {
            return Ok(Look::Waiting);
        };
        let rest = &mut |length| watch.rest(length);
        let scratch = match Snapshot::scratch_in_turn(&revision, &target, rest) {
            Ok(Some(scratch)) => scratch,
            Ok(None) => return Ok(Look::Ignored),
            Err(error) if is_missing(&error) => return Ok(Look::Again(error)),
            Err(error) => return Err(error),
        };
        let previous = stored.as_ref().and_then(|stored| stored.machine.mac());
        self.bootstrap(place, &revision, &machine, previous, scratch, config, watch)
    }

    /// Compares the bootstrapped copy, if there is one, with what is wanted.
    fn judge(
        &self,
        machine: &MachineManifest,
        target: &Path,
    ) -> Result<(Verdict, Option<BootstrappedMachine>)> {
        let text = match tree::manifest(target) {
            Ok(text) => text,
            Err(error) if is_missing(&error) => {
                let why = match target.exists() {
                    false => BootstrapReason::Missing,
                    true => BootstrapReason::Unreadable("its manifest is missing".to_owned()),
                };
                return Ok((Verdict::Bootstrap(why), None));
            }
            Err(error) => return Err(error),
        };
        let path = target.join("manifest");
        let stored = match BootstrappedMachine::parse(&text, &path.to_string_lossy()) {
            Ok(stored) => stored,
            // What we can make anew is no reason to stop.
            Err(error) => {
                let why = BootstrapReason::Unreadable(format!(
                    "invalid bootstrapped machine manifest: {error}"
                ));
                return Ok((Verdict::Bootstrap(why), None));
            }
        };
        let verdict = verdict::judge(
            machine.id(),
            &self.config.toolchain_id,
            &self.config.versions,
            verdict::Stored {
                machine_id: stored.machine.id(),
                toolchain_id: stored.toolchain.id(),
                bootstrap: &stored.bootstrap,
            },
        );
        Ok((verdict, Some(stored)))
    }
}

impl Machines {
    /// Bootstraps `scratch` and puts it in place of the former copy.
    #[allow(clippy::too_many_arguments)]
    fn bootstrap(
        &mut self,
        place: &MachineDir,
        revision: &Path,
        machine: &MachineManifest,
        previous_mac: Option<&str>,
        scratch: Snapshot,
        config: &bootstrap::BootstrapSettings,
        watch: &Watch,
    ) -> Result<Look> {
        let target = place.bootstrapped(&self.config.toolchain);
        let outcome = bootstrap::bootstrap(config, machine, previous_mac, &scratch, watch)
            .and_then(|outcome| self.settle(outcome, scratch, &target));
        if let Ok(Look::Ready(_) | Look::Ignored) = outcome {
            return outcome;
        }
        let pause = self.troubles.failed(&place.dir(), revision, Instant::now());
        trace!(
            2,
            "bootstrap",
            "next attempt at {} in {} s",
            place.dir().display(),
            pause.as_secs()
        );
        outcome
    }

    fn settle(&self, outcome: Bootstrapped, scratch: Snapshot, target: &Path) -> Result<Look> {
        let manifest = match outcome {
            Bootstrapped::Done(manifest) => manifest,
            Bootstrapped::Failed(error) => {
                scratch.close()?;
                return Err(error);
            }
            Bootstrapped::Stopped => {
                scratch.close()?;
                return Ok(Look::Ignored);
            }
        };
        match verdict::age(&manifest.bootstrap, &self.config.versions) {
            Age::Older(package) => {
                scratch.close()?;
                Err(Error::new(format!(
                    "unable to use {}: it was bootstrapped with an older {package} than expected",
                    target.display()
                ))
                .hint("the toolchain that guests are offered and --bootstrap-version disagree"))
            }
            Age::Newer(package) => {
                scratch.keep(target)?;
                diag::warning(format_args!(
                    "ignoring {}: it was bootstrapped with a newer {package} than expected",
                    target.display()
                ))
                .emit();
                Ok(Look::Ignored)
            }
            Age::Same => {
                scratch.keep(target)?;
                diag::info(format_args!("bootstrapped {}", target.display())).emit();
                let machine = Machine::new(*manifest, target.to_owned());
                Ok(Look::Ready(Box::new(machine)))
            }
        }
    }
}

/// Deletes our copy of a machine that was retired.
fn retire(target: &Path) -> Result<()> {
    if snapshot::is_subvolume(target)? {
        diag::info(format_args!(
            "deleting {}: the machine was retired",
            target.display()
        ))
        .emit();
        snapshot::delete(target)?;
    }
    Ok(())
}

fn parse_machine(text: &[u8], revision: &Path) -> Result<MachineManifest> {
    let path = revision.join("manifest");
    MachineManifest::parse(text, &path.to_string_lossy())
        .map_err(|error| Error::new(error.to_string()))
}

fn is_missing(error: &Error) -> bool {
    matches!(
        error.errno(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ESTALE)
    )
}
