//! The bootstrap of a machine: a snapshot is booted, installs the toolchain, uploads a
//! manifest of what it installed, and is shut down cleanly.
//!
//! The caller makes the snapshot, and keeps or removes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::guest::{self, Directory, Ended, Guest, GuestPhase, GuestRun, Step, Why};
use crate::machine::Purpose;
use crate::manifest::{
    BootstrapManifest, BootstrappedMachine, MachineManifest, Style, ToolchainManifest,
};
use crate::snapshot::Snapshot;
use crate::status;
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
    /// Versions to record in place of running the guest.
    pub fake: Option<Vec<(String, String)>>,
}

/// The outcome of a bootstrap.
#[derive(Debug)]
pub enum Bootstrapped {
    /// The manifest, which is in the snapshot now.
    Done(Box<BootstrappedMachine>),
    /// The guest failed; it was reported, with the evidence.
    Failed(Error),
    /// The agent was told to stop.
    Stopped,
}

/// Bootstraps the snapshot of the machine that `machine` describes, and writes its new
/// `manifest`. A guest without an address of its own gets `previous_mac`.
///
/// # Errors
///
/// Failures of the host: its disk, QEMU, the network.
pub fn bootstrap(
    config: &BootstrapSettings,
    machine: &MachineManifest,
    previous_mac: Option<&str>,
    snapshot: &Snapshot,
    watch: &Watch,
) -> Result<Bootstrapped> {
    let mut machine = machine.clone();
    let reported = if let Some(versions) = &config.fake {
        machine.set_mac(FAKE_MAC);
        BootstrapManifest::new(versions.iter().map(|(p, v)| (p.as_str(), v.as_str())))
    } else {
        let mac = guest::mac(&machine, previous_mac)?;
        machine.set_mac(&mac.to_string());
        watch.subject(status::Subject {
            machine: Some(machine.name().to_owned()),
            ..status::Subject::default()
        });
        let step = attempts(config, &machine, snapshot, watch);
        watch.subject(status::Subject::default());
        match step? {
            Step::Done(manifest) => manifest,
            Step::Ended(Ended {
                why: Why::Stopped, ..
            }) => return Ok(Bootstrapped::Stopped),
            Step::Ended(ended) => {
                return Ok(Bootstrapped::Failed(Error::new(format!(
                    "unable to bootstrap {}: {ended}",
                    snapshot.path().display()
                ))));
            }
        }
    };
    let manifest = BootstrappedMachine {
        machine,
        toolchain: ToolchainManifest::new(&config.toolchain_id),
        bootstrap: reported,
    };
    write(&manifest, snapshot.path())?;
    Ok(Bootstrapped::Done(Box::new(manifest)))
}

/// Runs the guest; once more if it never made a request.
fn attempts(
    config: &BootstrapSettings,
    machine: &MachineManifest,
    snapshot: &Snapshot,
    watch: &Watch,
) -> Result<Step<BootstrapManifest>> {
    let directory = Directory::create(&config.tftp.join("bootstrap").join(&config.guest.owner))?;
    let mut left = config.retries;
    loop {
        let step = run(
            config,
            machine,
            snapshot,
            directory.path(),
            left == 0,
            watch,
        )?;
        match &step {
            Step::Ended(ended) if ended.never_asked() && left > 0 => {
                left -= 1;
                diag::warning(format_args!(
                    "bootstrap startup timeout for machine {}, trying again",
                    snapshot.path().display()
                ))
                .emit();
            }
            _ => {
                directory.close()?;
                return Ok(step);
            }
        }
    }
}

fn run(
    config: &BootstrapSettings,
    machine: &MachineManifest,
    snapshot: &Snapshot,
    uploads: &Path,
    last: bool,
    watch: &Watch,
) -> Result<Step<BootstrapManifest>> {
    let map = Map::new()
        .get(config.tftp.join("toolchain").join(&config.toolchain))
        .get(config.tftp.join("toolchains").join(&config.toolchain))
        .put(uploads);
    let booted = Guest::boot(
        &config.guest,
        GuestRun {
            machine,
            directory: snapshot.path(),
            purpose: Purpose::Bootstrap,
            map,
            upload_limit: MAX_MANIFEST_BYTES,
        },
        watch,
    )?;
    let mut guest = match booted {
        Step::Done(guest) => guest,
        Step::Ended(ended) => return Ok(Step::Ended(ended)),
    };
    let step = converse(config, &mut guest, watch);
    if let Ok(Step::Ended(ended)) = &step
        && (last || !ended.never_asked())
    {
        guest.report_and_hold(&format!("bootstrap {}", ended.title()), ended)?;
    }
    guest.close()?;
    step
}

fn converse(
    config: &BootstrapSettings,
    guest: &mut Guest<'_>,
    watch: &Watch,
) -> Result<Step<BootstrapManifest>> {
    watch.enter(status::Phase::Booting, Some(config.startup));
    if let Step::Ended(ended) = guest.await_request(config.startup)? {
        return Ok(Step::Ended(ended));
    }
    watch.enter(status::Phase::Bootstrapping, Some(config.work));
    let upload = match guest.await_upload(&MANIFESTS, config.work)? {
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
                format!("invalid bootstrap manifest: {error}"),
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
    std::fs::write(&path, text).context(|| format!("unable to write manifest {}", path.display()))
}
