//! The real world: this host, its guests, its controllers.

use std::io::{self, IsTerminal as _};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::setup;
use super::world::World;
use crate::bootstrap::{self, BootstrapOrder, BootstrapSettings, Bootstrapped};
use crate::cli::{Options, Turns};
use crate::controller::address::UploadTarget;
use crate::controller::failure::Failure;
use crate::controller::{Assignment, Controllers};
use crate::delivery::{ControllerCourier, Courier, Deliverer, Now, StoredArtifact};
use crate::diag;
use crate::error::{Class, Error, Result, word};
use crate::evidence::EvidenceStore;
use crate::guest;
use crate::lock::{self, Lock};
use crate::machine::program::{self, INSTALL};
use crate::machine::{Accel, accel};
use crate::machines::low_space::{self, LowVolumes};
use crate::machines::{
    Bootstrapper, Enumeration, Machine, Machines, MachinesSettings, TaskMachines,
};
use crate::manifest::{TaskManifest, TaskRequest};
use crate::network::{Bridge, Netfilter, Redirect};
use crate::perform::{
    BuildEnd, BuildFailure, BuildStage, FailedSide, Job, Performed, Remains, TASKS, perform,
};
use crate::qemu_version;
use crate::settings::{AccelChoice, RedirectKind};
use crate::snapshot;
use crate::status::{self, Idle, Laps, Phase, Subject};
use crate::sweep;
use crate::trace;
use crate::warm::{self, Made, TemplateState};
use crate::watch::Watch;

/// How long a guest may take to show that KVM works.
const KVM_PROBE: Duration = Duration::from_secs(10);

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
}

/// The part of the host that starts guests.
#[derive(Debug)]
struct GuestHost<'w> {
    options: &'w Options,
    watch: &'w Watch,
    /// The result of `--accel` on this host, once it was needed.
    accel: Option<Accel>,
    /// Whether a guest was needed: from then on, a look at the host includes QEMU's
    /// version and the accelerator. An idle turn starts no process for them.
    is_needed: bool,
    /// The owner of the rules of redirects, from the first guest on.
    netfilter: Netfilter,
    /// The evidence of failed guests.
    evidence: EvidenceStore,
}

impl GuestHost<'_> {
    /// The settings of guests. Trial runs start none, so that the host is not asked
    /// what it can do.
    fn settings(&mut self) -> Result<guest::GuestSettings> {
        let accel = if is_trial(self.options) {
            Accel::Tcg
        } else {
            self.is_needed = true;
            self.find_accel()?
        };
        setup::guest(self.options, accel, &self.netfilter, &self.evidence)
    }

    /// Examines QEMU and finds the accelerator, which takes up to a second, once.
    fn find_accel(&mut self) -> Result<Accel> {
        if let Some(accel) = self.accel {
            return Ok(accel);
        }
        let options = self.options;
        qemu_version::require(&options.qemu, self.watch)?;
        let user = setup::user(options)?;
        let deadline = Instant::now() + KVM_PROBE;
        let wait = &mut |fds: &[BorrowedFd<'_>], deadline| self.watch.wait(fds, deadline);
        let user = user.as_ref();
        let (accel, why) = accel::resolve(options.accel, &options.qemu, user, deadline, wait)?;
        if let Some(why) = why {
            diag::warning(format_args!("emulating guests, which is slow: {why}")).emit();
        }
        self.accel = Some(accel);
        Ok(accel)
    }

    /// The settings of bootstraps.
    fn bootstrap_settings(&mut self) -> Result<BootstrapSettings> {
        let options = self.options;
        if !is_trial(options) {
            bootstrap::require_toolchain(&options.tftp, &options.toolchain_name)?;
        }
        let guest = self.settings()?;
        Ok(setup::bootstrap(self.options, guest))
    }
}

/// The outcome of a look at the template of a machine.
enum Prepared {
    /// Nothing was to be done.
    Nothing,
    /// It is to be made, and cannot be for now.
    Later(String),
    /// It was made, or found to be impossible.
    Template,
}

impl GuestHost<'_> {
    /// Makes the template of a machine, if it has none that is valid.
    fn prepare(&mut self, machine: &Machine) -> Result<Prepared> {
        let settings = setup::warm(self.options, self.settings()?);
        let why = match warm::look(&settings, &machine.manifest, &machine.dir)? {
            TemplateState::Ready(_) | TemplateState::Unable => return Ok(Prepared::Nothing),
            TemplateState::Missing => "is missing".to_owned(),
            TemplateState::Stale(why) => why,
        };
        let shown = machine.dir.display();
        trace!(3, "prepare", "the template of {shown} {why}");
        // The memory is on the disk, and all of it may be in use.
        let space = snapshot::space(&machine.dir)?;
        let least = self.options.min_free.of(space.total) + self.options.ram * 1024;
        if space.available < least {
            return Ok(Prepared::Later(format!(
                "no template of {shown}: {} are free, {} wanted (--min-free and --ram)",
                status::bytes(space.available),
                status::bytes(least)
            )));
        }
        self.watch.subject(Subject {
            machine: Some(machine.manifest.machine.name().to_owned()),
            ..Subject::default()
        });
        let made = warm::make(
            &settings,
            &machine.manifest,
            &machine.dir,
            &TASKS,
            self.watch,
        );
        self.watch.subject(Subject::default());
        match made? {
            Made::Done => diag::info(format_args!("made template of {shown}")).emit(),
            Made::Unable(why) => {
                diag::warning(format_args!("{shown} cannot start warm: {why}")).emit();
            }
            Made::Stopped => return Ok(Prepared::Nothing),
        }
        Ok(Prepared::Template)
    }
}

impl Bootstrapper for GuestHost<'_> {
    fn uptime(&self) -> Duration {
        Now::read().uptime
    }

    fn bootstrap(
        &mut self,
        order: &BootstrapOrder<'_>,
        versions: &[(String, String)],
    ) -> Result<Bootstrapped> {
        let lock = self.options.toolchain_lock.as_deref();
        let lock = lock.map(lock::toolchain).transpose()?;
        if let Some(None) = lock {
            return Ok(Bootstrapped::Busy);
        }
        let settings = self.bootstrap_settings()?;
        bootstrap::bootstrap(&settings, order, versions, self.watch)
    }
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
            guests: GuestHost {
                options,
                watch,
                accel: None,
                is_needed: false,
                netfilter: Netfilter::default(),
                evidence: setup::evidence(options),
            },
            lock,
            deliverer: None,
        })
    }

    /// Keeps the warnings that were given once, and failed bootstraps, in the directory
    /// `state`.
    pub(super) fn keep(&mut self, state: &Path) {
        // A person at a terminal has not read what a former agent has said.
        let repeats = io::stderr().is_terminal();
        self.controllers.keep_notes(state.join("notes"), repeats);
        self.machines.keep(state.join("bootstraps"), repeats);
    }

    /// Keeps other agents from a task whose result is stored.
    pub(super) fn hold_task(&mut self, target: &UploadTarget) {
        self.controllers.hold(target);
    }

    fn courier(&mut self) -> ControllerCourier<'_> {
        ControllerCourier {
            controllers: &mut self.controllers,
            watch: self.watch,
        }
    }

    fn try_perform(
        &mut self,
        task: &TaskManifest,
        machines: &TaskMachines,
        laps: &mut Laps,
    ) -> Result<Performed<Remains<'w>>> {
        let machine = &machines.build;
        let guest = self.guests.settings()?;
        let name = machine.manifest.machine.name();
        let config = setup::perform(self.options, guest, name);
        let job = Job {
            task,
            machine: &machine.manifest,
            directory: &machine.dir,
        };
        Ok(perform(&config, &job, laps, self.watch))
    }
}

impl Courier for Host<'_> {
    fn send_result(&mut self, target: &UploadTarget, text: &[u8]) -> Result<(), Failure> {
        self.courier().send_result(target, text)
    }

    fn send_artifact(
        &mut self,
        artifact: &StoredArtifact,
        session: &str,
    ) -> Result<String, Failure> {
        self.courier().send_artifact(artifact, session)
    }

    fn release(&mut self, target: &UploadTarget) {
        self.courier().release(target);
    }

    fn must_stop(&self) -> bool {
        self.watch.must_stop()
    }
}

impl<'w> World for Host<'w> {
    type Guest = Remains<'w>;

    fn now(&self) -> Now {
        Now::read()
    }

    fn watch(&self) -> &Watch {
        self.watch
    }

    fn sweep(&mut self) {
        if self.lock.is_some() && !super::is_fake(self.options) {
            sweep::sweep(&setup::sweep(self.options), self.lock.as_ref());
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
                .hint(format!("install it: {INSTALL}"))
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
        }
        retry
    }

    fn enumerate(&mut self) -> Result<Enumeration> {
        let min_free = self.options.min_free;
        let LowVolumes { volumes, lines } = low_space::low(
            &self.options.machines,
            |total| min_free.of(total),
            self.watch,
        )?;
        let mut found = self
            .machines
            .enumerate(&volumes, &mut self.guests, self.watch)?;
        found.full = lines;
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
            if let Err(error) = deliverer.await_round(DELIVERY_WAIT, self.watch) {
                diag::failure(&error).emit();
            }
        }
        true
    }

    fn note(&mut self, subject: &str, text: Option<String>) {
        self.controllers.note(subject, text);
    }

    fn order(&mut self) -> Vec<usize> {
        self.controllers.order()
    }

    fn controller(&self, number: usize) -> String {
        self.controllers.name(number)
    }

    fn ask(&mut self, number: usize, request: &TaskRequest) -> Result<Option<Assignment>, Failure> {
        self.controllers.ask(number, request)
    }

    fn perform(
        &mut self,
        task: &TaskManifest,
        machines: &TaskMachines,
        laps: &mut Laps,
    ) -> Performed<Remains<'w>> {
        self.try_perform(task, machines, laps)
            .unwrap_or_else(|error| {
                diag::failure(&error).emit();
                Performed::of(BuildEnd::Failed(BuildFailure {
                    side: FailedSide::Host,
                    stage: BuildStage::BeforeTask,
                    why: error.to_string(),
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

/// Whether no guest is started.
fn is_trial(options: &Options) -> bool {
    options.fake_build || options.fake_machine.is_some() || options.fake_bootstrap
}
