//! The part of the host that starts guests.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::pauses::Pauses;
use super::setup;
use super::templates::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::bootstrap::{self, BootstrapOrder, BootstrapSettings, Bootstrapped};
use crate::cgroup::{self, Cgroups};
use crate::cli::Options;
use crate::delivery::Now;
use crate::diag;
use crate::error::Result;
use crate::evidence::EvidenceStore;
use crate::guest;
use crate::ledger::{HostLedger, Work};
use crate::lock;
use crate::machine::{Accel, accel};
use crate::machines::Bootstrapper;
use crate::network::Netfilter;
use crate::qemu_version;
use crate::trace;
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
    pub(super) evidence: EvidenceStore,
    /// The place of their cgroups, if one was delegated.
    cgroups: Option<Cgroups>,
    /// The ledger of the host; trial runs have none.
    pub(super) ledger: Option<HostLedger>,
    /// The pauses between attempts to make templates, by the copy of the machine.
    pub(super) pauses: Pauses,
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
            cgroups: has_guests.then(divide_cgroup).flatten(),
            ledger: has_guests.then(|| setup::ledger(options)),
            pauses: Pauses::new(FIRST_PAUSE, LONGEST_PAUSE),
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
        let (options, cgroups) = (self.options, self.cgroups.as_ref());
        setup::guest(options, accel, &self.netfilter, &self.evidence, cgroups)
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

/// Divides the cgroup that was delegated to the agent, if one was.
fn divide_cgroup() -> Option<Cgroups> {
    let Some(delegated) = cgroup::delegated() else {
        trace!(3, "divide_cgroup", "no cgroup is delegated");
        return None;
    };
    trace!(3, "divide_cgroup", "cgroups: {}", cgroup::uses(&delegated));
    let remedy = cgroup::remedy(&delegated);
    match Cgroups::divide(delegated) {
        Ok(cgroups) => Some(cgroups),
        Err(error) => {
            diag::warning(error)
                .info("guests run without cgroups and limits of their own")
                .info(remedy)
                .emit();
            None
        }
    }
}

/// Whether no guest is started.
pub(super) fn is_trial(options: &Options) -> bool {
    options.fake_build || options.fake_machine.is_some() || options.fake_bootstrap
}
