//! The real world: this host, its guests, its controllers.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::guests::{GuestHost, is_trial};
use super::room::{TaskRoom, displacement};
use super::setup;
use super::templates::Prepared;
use super::world::World;
use crate::cli::{Options, Turns};
use crate::controller::address::UploadTarget;
use crate::controller::failure::Failure;
use crate::controller::{Assignment, Controllers};
use crate::delivery::{Courier, Deliverer, Now};
use crate::diag;
use crate::error::{Class, Error, Result, word};
use crate::guest;
use crate::ledger::{HostClaim, HostView};
use crate::lock::Lock;
use crate::machine::program;
use crate::machines::backoff::FAILED_BOOTSTRAPS;
use crate::machines::low_space::{self, LowVolumes};
use crate::machines::{Enumeration, Machine, Machines, MachinesSettings, TaskMachines};
use crate::manifest::TaskRequest;
use crate::network::{Bridge, Redirect, Strategy};
use crate::perform::{
    BuildEnd, BuildFailure, BuildStage, FailedSide, Job, Performed, Remains, perform,
};
use crate::settings::{AccelChoice, RedirectKind};
use crate::status::{Idle, Laps, Phase};
use crate::sweep;
use crate::warm;
use crate::watch::Watch;

/// How long the agent waits for the first attempt to send a result.
const DELIVERY_WAIT: Duration = Duration::from_secs(10);

/// This host.
#[derive(Debug)]
pub(super) struct Host<'w> {
    options: &'w Options,
    watch: &'w Watch,
    machines: Machines,
    controllers: Controllers,
    guests: GuestHost<'w>,
    lock: Option<Lock>,
    /// The process that sends results, while there are any.
    deliverer: Option<Deliverer>,
    /// Whether requests of guests are redirected by `nf_tables`, once that was found out.
    redirects_by_nft: Option<bool>,
}

impl<'w> Host<'w> {
    pub(super) fn new(options: &'w Options, watch: &'w Watch, lock: Option<Lock>) -> Result<Self> {
        Ok(Host {
            options,
            watch,
            machines: Machines::new(MachinesSettings::new(options)),
            controllers: Controllers::new(
                &options.controllers,
                &setup::controllers(options),
                watch,
            )?,
            guests: GuestHost::new(options, watch, lock.is_some()),
            lock,
            deliverer: None,
            redirects_by_nft: None,
        })
    }

    /// Keeps the warnings that were given once, failed bootstraps, and the pauses between
    /// attempts to make templates, in the directory `state`.
    pub(super) fn keep(&mut self, state: &Path) {
        // A person at a terminal has not read what a former agent has said.
        let repeats = io::stderr().is_terminal();
        self.controllers.keep_notes(state.join("notes"), repeats);
        self.machines.keep(state.join(FAILED_BOOTSTRAPS), repeats);
        self.guests.pauses.keep(state.join("templates"));
    }

    /// Keeps other agents from a task whose result is stored.
    pub(super) fn hold_task(&mut self, target: &UploadTarget) {
        self.controllers.hold(target);
    }

    /// Why auxiliary machines are not offered, if there is a reason: the guests of a task
    /// reach each other by the rules of nf_tables.
    fn keeps_from_auxiliary(&mut self) -> Result<Option<String>> {
        let options = self.options;
        if self.redirects_by_nft.is_none() {
            let strategy = Redirect::probe(options.redirect, &Bridge::probe(&options.bridge)?)?;
            self.redirects_by_nft = Some(strategy == Strategy::Nft);
        }
        let unable = self.redirects_by_nft == Some(false);
        Ok(unable.then(|| {
            "auxiliary machines are not offered: they need the redirect by nf_tables (--redirect)"
                .to_owned()
        }))
    }

    /// The volumes without space for a task. The states of failed guests make room first.
    fn low_volumes(&self) -> Result<LowVolumes> {
        let min_free = self.options.min_free;
        let least = |total| min_free.of(total);
        loop {
            let low = low_space::low(&self.options.machines, least, self.watch)?;
            let is_low = |path: &Path| low.volumes.iter().any(|volume| path.starts_with(volume));
            if low.volumes.is_empty() || !guest::remove_oldest_state(&self.guests.evidence, is_low)?
            {
                return Ok(low);
            }
        }
    }

    fn try_perform(
        &mut self,
        assignment: &Assignment,
        machines: &TaskMachines,
        laps: &mut Laps,
    ) -> Result<Performed<Remains<'w>>> {
        let machine = &machines.build;
        let guest = self.guests.settings()?;
        let name = machine.manifest.machine.name();
        let mut config = setup::perform(self.options, guest, name, assignment.priority);
        if assignment.task.interactive().is_some() {
            setup::for_user(&mut config, self.options);
        } else if self.lock.is_some() {
            config.guest.displacement = Some(displacement(self.options)?);
        }
        let job = Job {
            task: &assignment.task,
            machine: &machine.manifest,
            directory: &machine.dir,
            auxiliary: &setup::auxiliary(self.options, machines),
        };
        Ok(perform(&config, &job, laps, self.watch))
    }
}

/// Whether a directory was removed that an agent makes when it starts; if so, reports it.
fn has_lost_a_directory(options: &Options, lock: &Lock) -> bool {
    let state = setup::state(options);
    let directory = match lock.is_there() {
        true if state.is_dir() => return false,
        true => state,
        false => setup::run_dir(options),
    };
    diag::error(format_args!(
        "directory {} was removed",
        directory.display()
    ))
    .info("the agent ends, and makes it when it is started again")
    .emit();
    true
}

impl<'w> World for Host<'w> {
    type Guest = Remains<'w>;
    type Room = TaskRoom;

    fn now(&self) -> Now {
        Now::read()
    }

    fn watch(&self) -> &Watch {
        self.watch
    }

    fn sweep(&mut self) {
        let Some(lock) = self.lock.as_ref().filter(|_| !super::is_fake(self.options)) else {
            return;
        };
        if has_lost_a_directory(self.options, lock) {
            self.watch.restart();
        } else {
            sweep::sweep(&setup::sweep(self.options), Some(lock));
        }
    }

    fn probe(&mut self, anew: bool) -> Result<()> {
        let options = self.options;
        if is_trial(options) {
            return Ok(());
        }
        // These cost some system calls each.
        let bridge = Bridge::probe(&options.bridge)?;
        if options.redirect == RedirectKind::None {
            Redirect::probe(options.redirect, &bridge)?;
        }
        if !options.machines.is_dir() {
            let machines = options.machines.display();
            return Err(Error::new(format!("no machines directory {machines}"))
                .with_class(Class::Config)
                .hint(format!("make it: mkdir -p {}", word(&options.machines)))
                .hint("name another: --machines <dir>"));
        }
        if !options.tftp.is_dir() {
            return Err(
                Error::new(format!("no TFTP directory {}", options.tftp.display()))
                    .with_class(Class::Config)
                    .hint(format!("make it: mkdir -p {}", word(&options.tftp)))
                    .hint("name another: --tftp <dir>"),
            );
        }
        if program::find(&options.qemu).is_none() {
            return Err(Error::new(format!("no program {}", options.qemu.display()))
                .with_class(Class::Config)
                .hint(program::installation(&options.qemu))
                .hint("name another: --qemu <path>"));
        }
        if anew {
            setup::user(options)?;
            self.guests.accel = None;
        }
        // With `auto` the guests are emulated if there is no KVM.
        if self.guests.is_needed || options.accel == AccelChoice::Kvm {
            self.guests.find_accel()?;
        }
        Ok(())
    }

    fn take_retry(&mut self) -> bool {
        let retry = self.watch.take_retry();
        if retry {
            diag::info("trying again what failed (SIGUSR2)").emit();
            self.machines.retry();
            self.guests.pauses.clear();
        }
        retry
    }

    fn enumerate(&mut self) -> Result<Enumeration> {
        let LowVolumes { volumes, lines } = self.low_volumes()?;
        let mut found = self
            .machines
            .enumerate(&volumes, &mut self.guests, self.watch)?;
        found.full = lines;
        if !found.auxiliary.is_empty() {
            let unable = self.keeps_from_auxiliary()?;
            if unable.is_some() {
                found.auxiliary.clear();
            }
            self.controllers.note("auxiliary machines", unable);
        }
        Ok(found)
    }

    fn deliver_beside(&mut self, wait: bool) -> bool {
        // A turn by itself ends with its deliveries, and so does an agent that stops.
        if self.options.turns != Turns::Endless || self.watch.stop().is_some() {
            self.deliverer = None;
            return false;
        }
        if !self.deliverer.as_mut().is_some_and(Deliverer::is_running) {
            match Deliverer::start(&setup::deliverer(self.options)) {
                Ok(deliverer) => self.deliverer = Some(deliverer),
                Err(error) => {
                    diag::failure(&error).emit();
                    self.deliverer = None;
                    return false;
                }
            }
        }
        if wait && let Some(deliverer) = &mut self.deliverer {
            self.watch.enter(Phase::Uploading, None);
            diag::report(deliverer.await_round(DELIVERY_WAIT, self.watch));
        }
        true
    }

    fn note(&mut self, subject: &str, text: Option<String>) {
        self.controllers.note(subject, text);
    }

    fn controllers(&mut self) -> &mut Controllers {
        &mut self.controllers
    }

    fn courier(&mut self) -> &mut dyn Courier {
        &mut self.controllers
    }

    fn host(&mut self) -> Result<HostView> {
        self.guests.view()
    }

    fn make_room(&mut self, claim: HostClaim) -> Result<Result<TaskRoom, String>> {
        self.guests.make_room(&claim)
    }

    fn ask(&mut self, number: usize, request: &TaskRequest) -> Result<Option<Assignment>, Failure> {
        self.controllers.ask(number, request)
    }

    fn perform(
        &mut self,
        assignment: &Assignment,
        machines: &TaskMachines,
        laps: &mut Laps,
    ) -> Performed<Remains<'w>> {
        self.try_perform(assignment, machines, laps)
            .unwrap_or_else(|error| {
                diag::failure(&error).emit();
                Performed::of(BuildEnd::Failed(BuildFailure {
                    side: FailedSide::Host,
                    stage: BuildStage::BeforeTask,
                    why: error.to_string(),
                    auxiliary: None,
                }))
            })
    }

    fn prepare(&mut self, machines: &[Rc<Machine>]) -> bool {
        let options = self.options;
        if is_trial(options) {
            return false;
        }
        let covered =
            |machine: &&Rc<Machine>| warm::covers(&options.warm, machine.manifest.machine.name());
        for machine in machines.iter().filter(covered) {
            let prepared = self.guests.prepare(machine);
            let subject = format!("template {}", machine.dir.display());
            match prepared {
                Ok(Prepared::Nothing) => self.note(&subject, None),
                // The reason was given.
                Ok(Prepared::Resting) => {}
                Ok(Prepared::Later(why)) => self.note(&subject, Some(why)),
                Ok(Prepared::Template) => return true,
                Err(error) => self.note(&subject, Some(error.to_string())),
            }
        }
        false
    }

    fn idle(&mut self, reason: Idle, detail: &str, length: Duration) {
        let _ = self.watch.idle(reason, detail, length);
    }
}
