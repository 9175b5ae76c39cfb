//! A guest run: a machine, its tap, the redirect and the TFTP server that serves
//! it, from boot until nothing of it is left.
//!
//! Bootstrap and build are the same run with other limits. Its phases are
//! *startup* (until the first request), *work* (until the upload that the caller
//! waits for) and, for a bootstrap, *shutdown* (until the guest has powered
//! off). One poll waits for the guest's requests, QEMU's exit, QMP and signals
//! together, so that whatever ends a phase ends it at once.

mod beside;
mod by_hand;
mod directory;
mod displace;
mod failure;
mod idle;
mod keep_state;
mod limit;
mod link;
mod phase;
mod reboots;
mod refusals;
mod resume;
mod space;
mod template;
mod wait;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cgroup::Cgroups;
use crate::error::{Context as _, Result};
use crate::evidence::EvidenceStore;
use crate::interactive::VncAddress;
use crate::machine::{Accel, Memory, Purpose, ShutdownReason, Spec, VirtualMachine};
use crate::machine::{firmware, tpm};
use crate::manifest::{MachineManifest, TaskManifest};
use crate::network::{Bridge, Mac, Netfilter, Redirect};
use crate::platform::Architecture;
use crate::settings::{Hold, RedirectKind};
use crate::sys::process::Credentials;
use crate::tftp::{self, Map, TftpServer, Upload};
use crate::watch::Watch;

pub use by_hand::run_on_terminal;
pub use directory::Directory;
pub use displace::Displacement;
pub use keep_state::{RECORD, StateLimits, remove_oldest_state};
pub use phase::{Ended, GuestPhase, Step, Why};
pub use resume::run_again;
pub use template::command_line;

use failure::{GuestProfile, PendingEvidence};
use keep_state::Recorded;
use link::Link;
use refusals::Refusals;

/// How long QEMU may take from its start until the guest runs.
const QEMU_START_TIMEOUT: Duration = Duration::from_secs(60);

/// The maximum number of uploads in a run. A worker makes a handful, and may repeat
/// some.
const MAX_UPLOADS: u64 = 64;

/// The maximum rate of requests: a toolchain of hundreds of files passes at once, and
/// one of thousands takes a little longer.
const REQUEST_RATE: tftp::Rate = tftp::Rate {
    burst: 1024,
    per_second: 128,
};

/// The settings that all guests of the process share.
#[derive(Clone, Debug)]
pub struct GuestSettings {
    /// The agent's name, `<toolchain>-<instance>`, for its rules and directories.
    pub owner: String,
    /// The number of this agent among those for the toolchain, from 1.
    pub instance: u16,
    /// The bridge that guests are attached to.
    pub bridge: String,
    /// The name of the tap on it.
    pub tap: String,
    /// The taps of the other guests of the task.
    pub group: Vec<String>,
    /// How guests reach the TFTP server.
    pub redirect: RedirectKind,
    /// The owner of the redirect rules.
    pub netfilter: Netfilter,
    /// The directory for sockets and the console log.
    pub run_dir: PathBuf,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// The accelerator.
    pub accel: Accel,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in kB.
    pub ram_kb: u64,
    /// The user of QEMU; `None` is the agent's own.
    pub user: Option<Credentials>,
    /// The place of the cgroups of guests; `None`: they have none.
    pub cgroups: Option<Cgroups>,
    /// The TCP address of its display; `None`: a socket in the run directory.
    pub display: Option<VncAddress>,
    /// How the guest of a task makes room for one of higher priority, if it does.
    pub displacement: Option<Displacement>,
    /// A guest that is idle for so long is ended; `None`: its other limits end it.
    pub idle_limit: Option<Duration>,
    /// How long a failed guest is kept for inspection.
    pub hold: Hold,
    /// Where the evidence of a failed guest goes.
    pub evidence: EvidenceStore,
    /// The limits of the states of failed guests, if they are kept.
    pub keep_state: Option<StateLimits>,
}

/// The settings of one run.
#[derive(Debug)]
pub struct GuestRun<'a> {
    /// The machine; its `mac` is set.
    pub machine: &'a MachineManifest,
    /// The copy of the machine, for diagnostics.
    pub label: &'a Path,
    /// The subvolume that the snapshot was taken of.
    pub source: &'a Path,
    /// The snapshot to boot.
    pub directory: &'a Path,
    /// The purpose of the run.
    pub purpose: Purpose,
    /// The task manifest of a build, for evidence.
    pub task: Option<&'a TaskManifest>,
    /// The place of the guest's memory.
    pub memory: Memory,
    /// The files that the guest can read, and the place of its uploads.
    pub map: Map,
    /// The largest upload, in octets.
    pub upload_limit: u64,
}

impl<'a> GuestRun<'a> {
    /// The run of a guest in a throw-away `directory`, a snapshot of `source`, which has no
    /// task, and no files to read or to write.
    pub fn without_task(
        machine: &'a MachineManifest,
        source: &'a Path,
        directory: &'a Path,
        memory: Memory,
    ) -> GuestRun<'a> {
        GuestRun {
            machine,
            label: source,
            source,
            directory,
            purpose: Purpose::Build,
            task: None,
            memory,
            map: Map::new(),
            upload_limit: 0,
        }
    }
}

/// A guest that runs, with all it needs.
#[derive(Debug)]
pub struct Guest<'a> {
    // Dropped in this order: the machine first, what it talks to after it.
    machine: VirtualMachine,
    redirect: Redirect,
    server: TftpServer,
    label: String,
    directory: PathBuf,
    bridge: Bridge,
    /// The hardware address of the bridge with the guest on it.
    gateway: Mac,
    hold: Hold,
    displacement: Option<Displacement>,
    /// Whether it has ended to make room.
    is_interrupted: bool,
    idle_limit: Option<Duration>,
    /// Where its uploads go.
    uploads: PathBuf,
    /// Uploads that came in beside another guest.
    uploaded: Vec<Upload>,
    refusals: Refusals,
    /// Whether the warning about too many requests was given.
    flood_reported: bool,
    evidence: EvidenceStore,
    profile: GuestProfile,
    /// Evidence that was begun.
    pending: Option<PendingEvidence>,
    /// Its state is kept if it fails.
    recorded: Option<Recorded>,
    watch: &'a Watch,
}

impl<'a> Guest<'a> {
    /// Starts a guest: server, tap, redirect, QEMU, in this order, so that its
    /// first packet finds everything in place. Ends only by a request to stop.
    ///
    /// # Errors
    ///
    /// When the host lacks something, with the remedy; nothing is left behind.
    pub fn boot(
        config: &GuestSettings,
        boot: GuestRun<'_>,
        watch: &'a Watch,
    ) -> Result<Step<Guest<'a>>> {
        let profile = GuestProfile::new(config, &boot);
        let begin = Instant::now();
        let bridge = Bridge::probe(&config.bridge)?;
        let mac = mac(boot.machine, None)?.of_instance(config.instance);
        let Link {
            redirect,
            tap,
            mut server,
        } = Link::open(config, &boot, mac, &bridge)?;
        let gateway = bridge.hardware_address()?;
        let spec = spec(config, &boot, tap.name(), mac)?;
        let recorded = config.keep_state.map(|limits| Recorded::new(limits, &spec));
        let recorded = recorded.transpose()?;
        let peers = redirect.peers();
        server.set_accept(Box::new(move |peer| peers.admits(peer)));
        let uploads = boot.map.put_root().map(Path::to_owned).unwrap_or_default();
        server.set_map(boot.map);
        let started = VirtualMachine::start(
            &spec,
            tap.fd(),
            Instant::now() + QEMU_START_TIMEOUT,
            &mut |fds, deadline| watch.wait(fds, deadline),
        );
        let started = match started {
            Ok(started) => started,
            Err(error) => return Err(profile.keep_start(&config.evidence, &spec, error)),
        };
        let Some(machine) = started else {
            return Ok(Step::Ended(Ended {
                phase: GuestPhase::Startup,
                limit: QEMU_START_TIMEOUT,
                elapsed: begin.elapsed(),
                why: Why::Stopped,
                refused: None,
            }));
        };
        // QEMU has its own descriptor: the kernel removes the tap when QEMU ends.
        tap.close();
        let (label, directory, hold) = (spec.label, spec.directory, config.hold);
        Ok(Step::Done(Guest {
            machine,
            redirect,
            server,
            label,
            directory,
            bridge,
            gateway,
            hold,
            displacement: config.displacement.clone(),
            is_interrupted: false,
            idle_limit: config.idle_limit,
            uploads,
            uploaded: Vec::new(),
            refusals: Refusals::default(),
            flood_reported: false,
            evidence: config.evidence.clone(),
            profile,
            pending: None,
            recorded,
            watch,
        }))
    }

    /// Whether the guest has ended itself: it was switched off or rebooted.
    pub fn ended_itself(&self) -> bool {
        matches!(
            self.machine.shutdown(),
            Some(ShutdownReason::GuestShutdown | ShutdownReason::GuestReset)
        )
    }

    /// The most memory that QEMU had at any time, in bytes, if that is known.
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        self.machine.memory_peak()
    }

    /// Tells QEMU to end, once its evidence is kept, and does not wait for it;
    /// [`Guest::close`] does.
    pub fn quit(&mut self) {
        match &mut self.pending {
            Some(pending) => pending.quits = true,
            None => self.machine.quit(Instant::now()),
        }
    }

    /// Forces the guest down, if it still runs, and removes everything that was
    /// made for it, but for its evidence.
    ///
    /// # Errors
    ///
    /// The first error; the rest is removed all the same.
    pub fn close(mut self) -> Result<()> {
        self.keep_evidence();
        let down = self.machine.force_down().map(drop);
        self.has_made_room();
        let Guest {
            machine,
            redirect,
            server,
            ..
        } = self;
        let closed = machine.close();
        let removed = redirect.close();
        drop(server);
        down.and(closed).and(removed)
    }
}

/// The address for a machine: its own if its manifest has one, else the one it
/// had before, else a new one.
pub fn mac(machine: &MachineManifest, previous: Option<&str>) -> Result<Mac> {
    match machine.mac().or(previous) {
        Some(text) => text
            .parse()
            .context(|| format!("invalid mac in the manifest of machine {}", machine.name())),
        None => Ok(Mac::random()),
    }
}

/// The limits of a guest. It may be hostile, so that every request is bounded.
fn limits(boot: &GuestRun<'_>) -> tftp::ServerSettings {
    tftp::ServerSettings {
        upload_most: boot.upload_limit,
        uploads_octets_most: boot.upload_limit.saturating_mul(2),
        uploads_most: MAX_UPLOADS,
        requests: Some(REQUEST_RATE),
        ..tftp::ServerSettings::default()
    }
}

fn spec(config: &GuestSettings, boot: &GuestRun<'_>, tap: &str, mac: Mac) -> Result<Spec> {
    Ok(Spec {
        label: boot.label.display().to_string(),
        qemu: config.qemu.clone(),
        architecture: Architecture::of(
            boot.machine.name(),
            boot.machine.options().as_deref(),
            &config.qemu,
        ),
        accel: config.accel,
        cpus: config.cpus,
        ram_kb: config
            .ram_kb
            .min(boot.machine.ram_maximum().unwrap_or(u64::MAX)),
        source: boot.source.to_owned(),
        directory: boot.directory.to_owned(),
        bridge: config.bridge.clone(),
        mac,
        tap: tap.to_owned(),
        firmware: firmware::of(boot.machine, boot.directory, &config.qemu)?,
        tpm: tpm::of(boot.machine, boot.directory, &config.qemu)?,
        options: boot.machine.options(),
        purpose: boot.purpose,
        memory: boot.memory.clone(),
        run_dir: config.run_dir.clone(),
        display: config.display.clone(),
        user: config.user.clone(),
        cgroups: config.cgroups.clone(),
    })
}
