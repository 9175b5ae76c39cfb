//! The part of the host that starts guests.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::setup;
use crate::bootstrap::{self, BootstrapOrder, BootstrapSettings, Bootstrapped};
use crate::cli::Options;
use crate::delivery::Now;
use crate::diag;
use crate::error::Result;
use crate::evidence::EvidenceStore;
use crate::guest;
use crate::ledger::{HostLedger, Work};
use crate::lock;
use crate::machine::{Accel, accel};
use crate::machines::{Bootstrapper, Machine};
use crate::network::Netfilter;
use crate::perform::TASKS;
use crate::qemu_version;
use crate::snapshot;
use crate::status::{self, Subject};
use crate::trace;
use crate::warm::{self, Made, TemplateState};
use crate::watch::Watch;

/// How long a guest may take to show that KVM works.
const KVM_PROBE: Duration = Duration::from_secs(10);

/// The part of the host that starts guests.
#[derive(Debug)]
pub(super) struct GuestHost<'w> {
    pub(super) options: &'w Options,
    pub(super) watch: &'w Watch,
    /// The result of `--accel` on this host, once it was needed.
    pub(super) accel: Option<Accel>,
    /// Whether a guest was needed: from then on, a look at the host includes QEMU's
    /// version and the accelerator. An idle turn starts no process for them.
    pub(super) is_needed: bool,
    /// The owner of the rules of redirects, from the first guest on.
    netfilter: Netfilter,
    /// The evidence of failed guests.
    evidence: EvidenceStore,
    /// The ledger of the host; trial runs have none.
    pub(super) ledger: Option<HostLedger>,
}

impl<'w> GuestHost<'w> {
    pub(super) fn new(options: &'w Options, watch: &'w Watch, has_lock: bool) -> GuestHost<'w> {
        let has_guests = has_lock && !is_trial(options);
        GuestHost {
            options,
            watch,
            accel: None,
            is_needed: false,
            netfilter: Netfilter::default(),
            evidence: setup::evidence(options),
            ledger: has_guests.then(|| setup::ledger(options)),
        }
    }

    /// The settings of guests. Trial runs start none, so that the host is not asked
    /// what it can do.
    pub(super) fn settings(&mut self) -> Result<guest::GuestSettings> {
        let accel = if is_trial(self.options) {
            Accel::Tcg
        } else {
            self.is_needed = true;
            self.find_accel()?
        };
        setup::guest(self.options, accel, &self.netfilter, &self.evidence)
    }

    /// Examines QEMU and finds the accelerator, which takes up to a second, once.
    pub(super) fn find_accel(&mut self) -> Result<Accel> {
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
pub(super) enum Prepared {
    /// Nothing was to be done.
    Nothing,
    /// It is to be made, and cannot be for now.
    Later(String),
    /// It was made, or found to be impossible.
    Template,
}

impl GuestHost<'_> {
    /// Makes the template of a machine, if it has none that is valid.
    pub(super) fn prepare(&mut self, machine: &Machine) -> Result<Prepared> {
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
        let name = machine.manifest.machine.name();
        let _claim = match self.claim(Work::Template, name)? {
            Ok(claim) => claim,
            Err(shortage) => {
                return Ok(Prepared::Later(format!(
                    "no template of {shown}: it waits for {shortage}"
                )));
            }
        };
        self.watch.subject(Subject {
            machine: Some(name.to_owned()),
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
        let _claim = match self.claim(Work::Bootstrap, order.name)? {
            Ok(claim) => claim,
            Err(shortage) => return Ok(Bootstrapped::NoRoom(shortage.to_string())),
        };
        bootstrap::bootstrap(&settings, order, versions, self.watch)
    }
}

/// Whether no guest is started.
pub(super) fn is_trial(options: &Options) -> bool {
    options.fake_build || options.fake_machine.is_some() || options.fake_bootstrap
}
