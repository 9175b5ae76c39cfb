//! From the options to the settings that each module wants.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bootstrap;
use crate::cgroup::Cgroups;
use crate::cli::{self, Options};
use crate::controller;
use crate::delivery::{DelivererSettings, DeliverySettings, RetryLimits};
use crate::error::{Context as _, Result};
use crate::evidence::{self, EvidenceStore};
use crate::guest;
use crate::interactive;
use crate::ledger::{self, Capacity, HostLedger};
use crate::lock;
use crate::machine::Accel;
use crate::machines::TaskMachines;
use crate::manifest::{InteractiveMode, MachineHeader};
use crate::network::{Netfilter, NetworkClaim, tap_name};
use crate::perform::{self, AuxiliaryJob, Fake};
use crate::priority::Priority;
use crate::settings::Hold;
use crate::sweep;
use crate::sys::process::Credentials;
use crate::sys::procfs;
use crate::warm;
use crate::watch::Watch;

/// The largest upload of a guest, in bytes: a result before it is cut to size, or an
/// archive of artifacts.
const MAX_UPLOAD_BYTES: u64 = 512 << 20;

/// The time between the end of an interactive build and the expiry of its result.
const DELIVERY_MARGIN: Duration = Duration::from_secs(600);

/// `<toolchain>-<instance>`, which names this agent among those of the host.
pub fn owner(options: &Options) -> String {
    format!("{}-{}", options.toolchain_name, options.instance)
}

/// The directory of this agent below `--run-dir`.
pub fn run_dir(options: &Options) -> PathBuf {
    lock::directory(&options.run_dir, &options.toolchain_name, options.instance)
}

/// The directory of this agent below `--state`.
pub fn state(options: &Options) -> PathBuf {
    options.state.join(owner(options))
}

/// The part of the host that is for guests.
pub fn capacity(options: &Options) -> Capacity {
    let most = Some(options.instance_max).filter(|most| *most > 0);
    Capacity {
        // A host that does not tell its memory is left to the operator.
        ram_kb: options
            .host_ram
            .unwrap_or_else(|| procfs::total_memory_kb().map_or(u64::MAX, ledger::default_ram_kb)),
        cpus: options.host_cpu.unwrap_or_else(hardware_threads),
        instances: most,
    }
}

/// The hardware threads that this process may use.
pub fn hardware_threads() -> u32 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(threads).unwrap_or(u32::MAX)
}

/// The ledger of the host. Trial runs start no guests and have none.
pub fn ledger(options: &Options) -> HostLedger {
    HostLedger::open(options.run_dir.clone(), owner(options), capacity(options))
}

/// The evidence of failed guests.
pub fn evidence(options: &Options) -> EvidenceStore {
    EvidenceStore::new(&state(options), options.keep_failures)
}

/// The settings of all guests. `accel` is the result of `--accel` on this host,
/// `netfilter` owns the rules of all redirects, `cgroups` the place of the guests' cgroups.
pub fn guest(
    options: &Options,
    accel: Accel,
    netfilter: &Netfilter,
    evidence: &EvidenceStore,
    cgroups: Option<&Cgroups>,
) -> Result<guest::GuestSettings> {
    Ok(guest::GuestSettings {
        owner: owner(options),
        instance: options.instance,
        bridge: options.bridge.clone(),
        tap: tap_name(&options.toolchain_name, u32::from(options.instance), 0),
        group: Vec::new(),
        redirect: options.redirect,
        netfilter: netfilter.clone(),
        run_dir: run_dir(options),
        qemu: options.qemu.clone(),
        accel,
        cpus: options.cpu,
        ram_kb: options.ram,
        user: user(options)?,
        cgroups: cgroups.cloned(),
        display: None,
        displacement: None,
        idle_limit: Some(options.idle_limit).filter(|limit| !limit.is_zero()),
        hold: options.hold,
        evidence: evidence.clone(),
        keep_state: options.keep_state.map(|bytes| guest::StateLimits {
            bytes,
            min_free: options.min_free,
        }),
    })
}

/// The user of QEMU, if it is not that of the agent.
pub fn user(options: &Options) -> Result<Option<Credentials>> {
    options
        .vm_user
        .as_deref()
        .map(crate::user::credentials)
        .transpose()
}

/// The places that the agent leaves things in.
pub fn sweep(options: &Options) -> sweep::SweepSettings {
    sweep::SweepSettings {
        machines: options.machines.clone(),
        tftp: options.tftp.clone(),
        run_dir: run_dir(options),
        failed: evidence::directory(&state(options)),
        toolchain: options.toolchain_name.clone(),
        owner: owner(options),
        instance: options.instance,
        warm: options.warm.clone(),
    }
}

/// The settings of bootstraps.
pub fn bootstrap(options: &Options, guest: guest::GuestSettings) -> bootstrap::BootstrapSettings {
    bootstrap::BootstrapSettings {
        guest,
        tftp: options.tftp.clone(),
        toolchain: options.toolchain_name.clone(),
        toolchain_id: options.toolchain_id.clone(),
        startup: options.bootstrap_startup,
        work: options.bootstrap_timeout,
        shutdown: options.bootstrap_shutdown,
        retries: options.bootstrap_retries,
        reboots: options.bootstrap_reboots,
        fake: options
            .fake_bootstrap
            .then(|| options.bootstrap_versions.clone()),
    }
}

/// The settings of builds.
pub fn perform(
    options: &Options,
    mut guest: guest::GuestSettings,
    machine: &str,
    priority: Priority,
) -> perform::BuildSettings {
    if priority.f {
        guest.cpus = hardware_threads();
    }
    // A template is for the usual number of processors.
    let may_start_warm = guest.cpus == options.cpu && warm::covers(&options.warm, machine);
    perform::BuildSettings {
        guest,
        tftp: options.tftp.clone(),
        startup: options.build_startup,
        work: options.build_timeout,
        auxiliary: options.bootstrap_auxiliary,
        retries: options.build_retries,
        upload_limit: MAX_UPLOAD_BYTES,
        result_limit: options.result_limit,
        fake: if options.fake_build {
            Some(Fake::Build)
        } else {
            options.fake_machine.is_some().then_some(Fake::Machine)
        },
        warm: may_start_warm.then_some(options.warm_age),
    }
}

/// Changes the settings of builds to those of an interactive one: a user looks at it,
/// and only the controller's limit ends it.
pub fn for_user(config: &mut perform::BuildSettings, options: &Options) {
    let booting = config.startup * (config.retries + 1);
    let before = options
        .result_expiry
        .saturating_sub(DELIVERY_MARGIN + booting);
    config.work = before.max(DELIVERY_MARGIN);
    config.guest.idle_limit = None;
    config.guest.hold = Hold::For(Duration::ZERO);
    config.guest.display = interactive::display(options);
    if config.guest.display.is_some() {
        // The guest of a template has its display at the socket.
        config.warm = None;
    }
}

/// Finds out whether interactive builds can have their display, and claims its port for as
/// long as the agent runs: controllers and users are told it before there is a guest.
/// `held` is the claim.
pub fn reserve_display(options: &Options, held: &mut Option<NetworkClaim>) -> Result<()> {
    interactive::probe(options)?;
    let Some(display) = interactive::display(options) else {
        return Ok(());
    };
    if held.is_some() || options.interactive == InteractiveMode::No {
        return Ok(());
    }
    *held = NetworkClaim::display(display.address.port())?;
    match held {
        Some(_) => Ok(()),
        None => Err(display.claimed()),
    }
}

/// The auxiliary machines of a task.
pub fn auxiliary<'m>(options: &Options, machines: &'m TaskMachines) -> Vec<AuxiliaryJob<'m>> {
    let instance = u32::from(options.instance);
    let machines = machines.auxiliary.iter().enumerate();
    machines
        .map(|(index, needed)| AuxiliaryJob {
            environment: &needed.environment,
            machine: &needed.machine.manifest,
            revision: &needed.machine.dir,
            scratch: &needed.machine.scratch,
            ram_kb: needed.ram_kb,
            tap: tap_name(&options.toolchain_name, instance, index + 1),
        })
        .collect()
}

/// The settings of templates.
pub fn warm(options: &Options, guest: guest::GuestSettings) -> warm::WarmSettings {
    warm::WarmSettings {
        guest,
        startup: options.build_startup,
        age: options.warm_age,
    }
}

/// The settings of deliveries.
pub fn delivery(options: &Options) -> DeliverySettings {
    DeliverySettings {
        result_limit: options.result_limit,
        legacy: options.legacy_request,
        retry: RetryLimits {
            expiry: options.result_expiry,
            ..RetryLimits::default()
        },
    }
}

/// The settings of deliveries beside the agent's work.
pub fn deliverer(options: &Options) -> DelivererSettings {
    DelivererSettings {
        state: state(options),
        retry: delivery(options).retry,
        http: controllers(options),
        verbose: options.verbose,
        systemd: options.systemd_daemon,
    }
}

/// The machine that `--fake-machine` describes.
pub fn fake_machine(path: &Path, watch: &Watch) -> Result<MachineHeader> {
    MachineHeader::parse(&cli::input(path, watch.fd())?, &path.to_string_lossy())
        .context(|| "invalid machine header manifest")
}

/// The settings of HTTP requests.
pub fn controllers(options: &Options) -> controller::http::Settings {
    controller::http::Settings {
        connect_timeout: options.connect_timeout,
        request_timeout: options.request_timeout,
        connect_retries: options.request_retries,
        ca_file: options.ca_file.clone(),
        proxy: options.proxy.clone(),
    }
}

/// A pause of about `length`: a tenth more or less, so that agents that were
/// started together do not ask together for ever. `seed` is any number.
pub fn jitter(length: Duration, seed: u32) -> Duration {
    // 90 to 110 hundredths.
    length / 100 * (90 + seed % 21)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_tenth_more_or_less() {
        let minute = Duration::from_secs(60);
        let all: Vec<_> = (0..100).map(|seed| jitter(minute, seed)).collect();
        assert_eq!(all.iter().min(), Some(&Duration::from_secs(54)));
        assert_eq!(all.iter().max(), Some(&Duration::from_secs(66)));
    }
}
