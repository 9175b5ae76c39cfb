//! The bootstrap of a machine: a snapshot is booted, installs the toolchain, uploads a
//! manifest of what it installed, and is shut down cleanly.
//!
//! Locks keep other agents of the host from the same work and the same address.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::diag;
use crate::error::{Class, Context as _, Error, Result, word};
use crate::guest::{self, Directory, Guest, GuestPhase, GuestRun, Step, Why};
use crate::machine::{Memory, Purpose, files};
use crate::manifest::reuse::{self, Age};
use crate::manifest::{
    BootstrapManifest, BootstrappedMachine, MachineManifest, Style, ToolchainManifest,
};
use crate::network::NetworkClaim;
use crate::snapshot::Snapshot;
use crate::status;
use crate::sys::flock::{How, Locked};
use crate::tftp::Map;
use crate::trace;
use crate::watch::Watch;

/// Names that a worker may give its manifest: bbot's first name, and the current one.
const MANIFESTS: [&str; 2] = ["manifest", "bootstrap.manifest"];

/// The hardware address that fake machines have.
pub const FAKE_MAC: &str = "de:ad:be:ef:de:ad";

/// The maximum size of a bootstrap manifest, in bytes. A usual one has some lines.
const MAX_MANIFEST_BYTES: u64 = 1024 * 1024;

/// Settings of all bootstraps.
#[derive(Clone, Debug)]
pub struct BootstrapSettings {
    /// Settings of all guests.
    pub guest: guest::GuestSettings,
    /// `<tftp>`: the guest reads below `toolchain/<toolchain>`.
    pub tftp: PathBuf,
    /// The name of the toolchain.
    pub toolchain: String,
    /// Its id.
    pub toolchain_id: String,
    /// Until the first request.
    pub startup: Duration,
    /// From there to the manifest.
    pub work: Duration,
    /// From there to power off.
    pub shutdown: Duration,
    /// Further attempts with a guest that made no request.
    pub retries: u32,
    /// Reboots of a guest that are allowed.
    pub reboots: u32,
    /// Versions to record in place of running the guest.
    pub fake: Option<Vec<(String, String)>>,
}

/// A copy to make.
#[derive(Clone, Copy, Debug)]
pub struct BootstrapOrder<'a> {
    /// The name of the machine.
    pub name: &'a str,
    /// The subvolume of its current revision.
    pub revision: &'a Path,
    /// The copy to make or to replace.
    pub target: &'a Path,
    /// The MAC address of the former copy, for a guest without one of its own.
    pub previous_mac: Option<&'a str>,
    /// The reasons of earlier failures with this revision. A guest that fails for one of
    /// them again is neither reported nor held, and has one attempt.
    pub known_failures: &'a [String],
}

/// The outcome of a bootstrap.
#[derive(Debug)]
pub enum Bootstrapped {
    /// The copy, which has this manifest and these versions, is in place.
    Done(Box<BootstrappedMachine>, Age),
    /// The guest failed, or the machine has no snapshot.
    Failed {
        /// The failure, for the operator.
        error: Error,
        /// The same in each attempt that fails in this way.
        reason: String,
    },
    /// Another agent bootstraps this machine.
    Busy,
    /// The host has no room for the guest, for this reason.
    NoRoom(String),
    /// The agent was told to stop.
    Stopped,
}

/// Requires the directory of the toolchain: guests without one fail for a reason that
/// none of them can report.
///
/// # Errors
///
/// Of class [`Class::Config`], with the remedy, if there is none.
pub fn require_toolchain(tftp: &Path, toolchain: &str) -> Result<()> {
    let directories = ["toolchain", "toolchains"].map(|name| tftp.join(name).join(toolchain));
    if directories.iter().any(|directory| directory.is_dir()) {
        return Ok(());
    }
    let directory = word(&directories[0]);
    let error = Error::new(format!(
        "no toolchain directory {}",
        directories[0].display()
    ));
    Err(error.with_class(Class::Config).hint(format!(
        "put the files of the toolchain there: mkdir -p {directory} && cp -r <files> {directory}/"
    )))
}

/// Bootstraps a machine, and puts the copy in place of the former one. `versions` are
/// those that the guest has to report, by package.
pub fn bootstrap(
    config: &BootstrapSettings,
    order: &BootstrapOrder<'_>,
    versions: &[(String, String)],
    watch: &Watch,
) -> Result<Bootstrapped> {
    // Another instance would make the same copy. A trial run may have no run directory.
    let _lock = match &config.fake {
        Some(_) => None,
        None => match lock_copy(config, order)? {
            None => return Ok(Bootstrapped::Busy),
            lock => lock,
        },
    };
    let rest = &mut |length| watch.rest(length);
    let snapshot = match Snapshot::scratch_in_turn(order.revision, order.target, rest) {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => return Ok(Bootstrapped::Stopped),
        // A volume that is not btrfs, or a directory in place of a subvolume, concerns
        // this machine and not the host.
        Err(error) => {
            let reason = format!("unable to snapshot {}", order.revision.display());
            return Ok(Bootstrapped::Failed { error, reason });
        }
    };
    // The manifest of the snapshot: the link may lead to another revision by now.
    let mut machine = files::machine_manifest(order.name, snapshot.path(), order.revision)?;
    // An agent for another toolchain would use the same address.
    let _claim = match machine.mac() {
        None => None,
        Some(_) => {
            let mac = guest::mac(&machine, None)?.of_instance(config.guest.instance);
            match NetworkClaim::mac(mac)? {
                None => return snapshot.close().map(|()| Bootstrapped::Busy),
                claim => claim,
            }
        }
    };
    let step = match &config.fake {
        Some(versions) => {
            machine.set_mac(FAKE_MAC);
            let versions = versions.iter().map(|(p, v)| (p.as_str(), v.as_str()));
            Step::Done(BootstrapManifest::new(versions))
        }
        None => {
            let mac = guest::mac(&machine, order.previous_mac)?;
            machine.set_mac(&mac.to_string());
            watch.subject(status::Subject {
                machine: Some(machine.name().to_owned()),
                ..status::Subject::default()
            });
            let step = attempts(config, order, &machine, &snapshot, watch);
            watch.subject(status::Subject::default());
            step?
        }
    };
    let reported = match step {
        Step::Done(reported) => reported,
        Step::Ended(ended) => {
            snapshot.close()?;
            if ended.why == Why::Stopped {
                return Ok(Bootstrapped::Stopped);
            }
            let reason = ended.to_string();
            let target = order.target.display();
            let error = Error::new(format!("unable to bootstrap {target}: {reason}"));
            return Ok(Bootstrapped::Failed { error, reason });
        }
    };
    let age = reuse::age(&reported, versions);
    if let Age::Older(package) = &age {
        snapshot.close()?;
        let reason = format!("it was bootstrapped with an older {package} than expected");
        let error = Error::new(format!(
            "unable to use {}: {reason}",
            order.target.display()
        ))
        .hint("the toolchain that guests are offered and --bootstrap-version disagree");
        return Ok(Bootstrapped::Failed { error, reason });
    }
    let manifest = BootstrappedMachine {
        machine,
        toolchain: ToolchainManifest::new(&config.toolchain_id),
        bootstrap: reported,
    };
    write(&manifest, snapshot.path())?;
    snapshot.keep(order.target)?;
    Ok(Bootstrapped::Done(Box::new(manifest), age))
}

/// The lock of the agents for a toolchain on the bootstrap of a machine, if it is free.
/// The kernel frees it with its owner; the file stays.
fn lock_copy(config: &BootstrapSettings, order: &BootstrapOrder<'_>) -> Result<Option<Locked>> {
    // Beside the run directories of all instances.
    let name = format!("bootstrap-{}-{}.lock", config.toolchain, order.name);
    let path = config.guest.run_dir.with_file_name(name);
    let unable = || format!("unable to lock {}", path.display());
    let file = OpenOptions::new().create(true).append(true).open(&path);
    match Locked::take(file.context(unable)?, How::TryExclusive) {
        Err((_, error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err((_, error)) => Err(error).context(unable),
        Ok(lock) => Ok(Some(lock)),
    }
}

/// Runs the guest; again if it made no request, unless the machine has failed before.
fn attempts(
    config: &BootstrapSettings,
    order: &BootstrapOrder<'_>,
    machine: &MachineManifest,
    snapshot: &Snapshot,
    watch: &Watch,
) -> Result<Step<BootstrapManifest>> {
    let directory = Directory::create(&config.tftp.join("bootstrap").join(&config.guest.owner))?;
    let mut left = match order.known_failures {
        [] => config.retries,
        _ => 0,
    };
    loop {
        let guest = GuestRun {
            machine,
            label: order.target,
            source: order.revision,
            directory: snapshot.path(),
            purpose: Purpose::Bootstrap {
                reboots: config.reboots,
            },
            task: None,
            memory: Memory::Anonymous,
            map: Map::new()
                .get(config.tftp.join("toolchain").join(&config.toolchain))
                .get(config.tftp.join("toolchains").join(&config.toolchain))
                .put(directory.path()),
            upload_limit: MAX_MANIFEST_BYTES,
        };
        let step = run(config, order, guest, left == 0, watch)?;
        match &step {
            Step::Ended(ended) if ended.never_asked() && left > 0 => left -= 1,
            _ => {
                directory.close()?;
                return Ok(step);
            }
        }
    }
}

fn run(
    config: &BootstrapSettings,
    order: &BootstrapOrder<'_>,
    run: GuestRun<'_>,
    last: bool,
    watch: &Watch,
) -> Result<Step<BootstrapManifest>> {
    let mut guest = match Guest::boot(&config.guest, run, watch)? {
        Step::Done(guest) => guest,
        Step::Ended(ended) => return Ok(Step::Ended(ended)),
    };
    let step = converse(config, &mut guest, watch);
    let step = guest.with_evidence("bootstrap failure", step)?;
    if let Step::Ended(ended) = &step {
        let what = format!("bootstrap {}", ended.title());
        if ended.never_asked() && !last {
            let warning = diag::warning(format_args!(
                "{what} for machine {}, trying again",
                order.target.display()
            ));
            guest.report_attempt(&what, ended, warning);
        } else if !order.known_failures.contains(&ended.to_string()) {
            guest.report_and_hold(&what, ended)?;
        }
    }
    guest.close()?;
    Ok(step)
}

fn converse(
    config: &BootstrapSettings,
    guest: &mut Guest<'_>,
    watch: &Watch,
) -> Result<Step<BootstrapManifest>> {
    watch.enter(status::Phase::Booting, Some(config.startup));
    if let Step::Ended(ended) = guest.await_request(config.startup, &mut [])? {
        return Ok(Step::Ended(ended));
    }
    watch.enter(status::Phase::Bootstrapping, Some(config.work));
    let step = guest.await_upload(&MANIFESTS, config.work, &mut [])?;
    let upload = match step {
        Step::Done(upload) => upload,
        Step::Ended(ended) => return Ok(Step::Ended(ended)),
    };
    let text = upload.read(MAX_MANIFEST_BYTES)?;
    let manifest = match BootstrapManifest::parse(&text, &upload.name) {
        Ok(manifest) => manifest,
        Err(error) => {
            return Ok(Step::Ended(guest.ended(
                GuestPhase::Work,
                config.work,
                error.to_string(),
            )));
        }
    };
    trace!(3, "converse", "the worker has uploaded {}", upload.name);
    watch.enter(status::Phase::Bootstrapping, Some(config.shutdown));
    if let Step::Ended(ended) = guest.await_power_off(config.shutdown)? {
        return Ok(Step::Ended(ended));
    }
    Ok(Step::Done(manifest))
}

/// Replaces the machine's manifest in the snapshot by that of the copy. It is synced
/// when the snapshot is kept.
fn write(manifest: &BootstrappedMachine, snapshot: &Path) -> Result<()> {
    let path = snapshot.join("manifest");
    let text = manifest
        .to_text(Style::default())
        .context(|| "unable to compose the bootstrapped machine manifest")?;
    fs::write(&path, text).context(|| format!("unable to write manifest {}", path.display()))
}
