//! A guest run: a machine, its tap, the redirect and the TFTP server that serves
//! it, from boot until nothing of it is left.
//!
//! Bootstrap and build are the same run with other limits. Its phases are
//! *startup* (until the first request), *work* (until the upload that the caller
//! waits for) and, for a bootstrap, *shutdown* (until the guest has powered
//! off). One poll waits for the guest's requests, QEMU's exit, QMP and signals
//! together, so that whatever ends a phase ends it at once.

mod directory;
mod limit;
mod phase;
mod refusals;
mod room;
mod wait;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;

use crate::error::{Context as _, Error, Result};
use crate::machine::{Accel, Purpose, Spec, VirtualMachine};
use crate::manifest::MachineManifest;
use crate::network::{Bridge, Mac, Netfilter, Redirect, Strategy, Tap, Target};
use crate::settings::{Hold, RedirectKind};
use crate::sys::poll;
use crate::sys::process::Credentials;
use crate::tftp::{self, Map, TftpServer};
use crate::watch::Watch;

pub use directory::Directory;
pub use phase::{Ended, GuestPhase, Step, Why};
pub use wait::Upload;

use refusals::Refusals;

/// How long QEMU may take from its start until the guest runs.
const START: Duration = Duration::from_secs(60);

/// How long the tap and the rules of an agent that was killed may take to go. The
/// kernel removes them last, some 10 ms after the lock is free and the sweep sees
/// neither that agent nor its QEMU any more.
const GONE: Duration = Duration::from_secs(2);
/// When to look again.
const AGAIN: Duration = Duration::from_millis(5);

/// How many files a guest may upload in a run: it has a handful to say, and may
/// repeat itself a little.
const UPLOADS: u64 = 64;

/// How many requests a guest may make, in a burst and per second: a toolchain of
/// hundreds of files passes at once, and one of thousands is a little slower.
const REQUESTS: tftp::Rate = tftp::Rate {
    burst: 1024,
    per_second: 128,
};

/// The settings that all guests of the process share.
#[derive(Clone, Debug)]
pub struct GuestSettings {
    /// The agent's name, `<toolchain>-<instance>`, for its rules and directories.
    pub owner: String,
    /// Which of the agents for this toolchain we are, from 1.
    pub instance: u16,
    /// The bridge that guests are attached to.
    pub bridge: String,
    /// The name of our tap on it.
    pub tap: String,
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
    /// How long a failed guest is kept for inspection.
    pub hold: Hold,
}

/// The settings of one run.
#[derive(Debug)]
pub struct GuestRun<'a> {
    /// The machine; its `mac` is set.
    pub machine: &'a MachineManifest,
    /// The snapshot to boot.
    pub directory: &'a Path,
    /// The purpose of the run.
    pub purpose: Purpose,
    /// The files that the guest can read, and the place of its uploads.
    pub map: Map,
    /// The largest upload, in octets.
    pub upload_limit: u64,
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
    hold: Hold,
    /// Where its uploads go.
    uploads: PathBuf,
    refusals: Refusals,
    /// The warning about too many requests was given.
    floods: bool,
    watch: &'a Watch,
}

impl<'a> Guest<'a> {
    /// Starts a guest: server, tap, redirect, QEMU, in this order, so that its
    /// first packet finds everything in place.
    ///
    /// # Errors
    ///
    /// When the host lacks something, with the remedy; nothing is left behind.
    pub fn boot(config: &GuestSettings, boot: GuestRun<'_>, watch: &'a Watch) -> Result<Guest<'a>> {
        let bridge = Bridge::probe(&config.bridge)?;
        let mac = own_mac(mac(boot.machine, None)?, config.instance);
        let Link {
            redirect,
            tap,
            mut server,
        } = Link::open(config, &boot, mac, &bridge)?;
        let spec = spec(config, &boot, tap.name(), mac);
        let peers = redirect.peers();
        server.set_accept(Box::new(move |peer| peers.admits(peer)));
        let uploads = boot.map.put_root().map(Path::to_owned).unwrap_or_default();
        server.set_map(boot.map);
        let machine = VirtualMachine::start(&spec, tap.fd(), Instant::now() + START)?;
        // QEMU has it now: the kernel takes it away when QEMU ends, which needs
        // milliseconds, in which the agent does not wait.
        tap.close();
        let (label, directory, hold) = (spec.label, spec.directory, config.hold);
        Ok(Guest {
            machine,
            redirect,
            server,
            label,
            directory,
            hold,
            uploads,
            refusals: Refusals::default(),
            floods: false,
            watch,
        })
    }

    /// Has QEMU end, without waiting for it: [`Guest::close`] does.
    pub fn quit(&mut self) {
        self.machine.quit(Instant::now());
    }

    /// Forces the guest down, if it still runs, and removes everything that was
    /// made for it.
    ///
    /// # Errors
    ///
    /// The first one of doing so; the rest is done all the same.
    pub fn close(self) -> Result<()> {
        let Guest {
            mut machine,
            redirect,
            server,
            ..
        } = self;
        let down = machine.force_down().map(drop);
        drop(machine);
        let removed = redirect.close();
        drop(server);
        down.and(removed)
    }
}

/// The guest's connection: tap, redirect, server.
struct Link {
    // Dropped in this order.
    redirect: Redirect,
    tap: Tap,
    server: TftpServer,
}

impl Link {
    /// In the way that this host knows, once what was left has gone.
    fn open(
        config: &GuestSettings,
        boot: &GuestRun<'_>,
        mac: Mac,
        bridge: &Bridge,
    ) -> Result<Link> {
        let until = Instant::now() + GONE;
        let make = |strategy: Strategy| loop {
            match Link::make(config, boot, mac, bridge, strategy) {
                Err(error) if is_taken(&error) && Instant::now() < until => {
                    poll::wait(&mut [], Some(Instant::now() + AGAIN))
                        .context(|| "unable to wait for a tap to go")?;
                }
                result => return result,
            }
        };
        let probed = || make(Redirect::probe(config.redirect, bridge)?);
        match config.redirect {
            // The usual way is tried without asking whether it can be done: that
            // would take as long. If it cannot, whoever asks learns why, and
            // what else can.
            RedirectKind::Auto | RedirectKind::Nft => make(Strategy::Nft).or_else(|_| probed()),
            RedirectKind::None => probed(),
        }
    }

    fn make(
        config: &GuestSettings,
        boot: &GuestRun<'_>,
        mac: Mac,
        bridge: &Bridge,
        strategy: Strategy,
    ) -> Result<Link> {
        let server = TftpServer::bind(strategy.server_address(bridge), limits(boot))?;
        let address = server.local_addr()?;
        let tap = Tap::open(bridge, &config.tap)?;
        let redirect = Redirect::install(
            strategy,
            &Target {
                bridge,
                tap: &tap,
                mac: known_mac(boot.machine, mac),
                server: address,
                owner: &config.owner,
                netfilter: &config.netfilter,
            },
        )?;
        Ok(Link {
            redirect,
            tap,
            server,
        })
    }
}

/// Whether a tap, rules or an address of our own are there already.
fn is_taken(error: &Error) -> bool {
    matches!(
        error.errno(),
        Some(libc::EBUSY | libc::EEXIST | libc::EADDRINUSE)
    )
}

/// The address for a machine: its own if its manifest has one, else the one it
/// had before, else a new one.
///
/// # Errors
///
/// When one of them is not an address.
pub fn mac(machine: &MachineManifest, previous: Option<&str>) -> Result<Mac> {
    match machine.mac().or(previous) {
        Some(text) => text
            .parse()
            .context(|| format!("invalid mac in the manifest of machine {}", machine.name())),
        None => Ok(Mac::random()),
    }
}

/// The address of a machine as this instance runs it. Several instances may run
/// copies of one machine on one bridge, where no two stations may have the same
/// address; so every instance but the first counts its number into the last octets.
fn own_mac(Mac(mut octets): Mac, instance: u16) -> Mac {
    let [high, low] = instance.saturating_sub(1).to_be_bytes();
    octets[3] ^= high;
    octets[4] ^= low;
    Mac(octets)
}

/// The address that the guest is sure to use: options of its own may give it
/// another.
fn known_mac(machine: &MachineManifest, mac: Mac) -> Option<Mac> {
    let substituted = |options: Vec<String>| options.iter().any(|o| o.contains("mac=?"));
    if machine
        .options()
        .is_some_and(|options| !substituted(options))
    {
        return None;
    }
    Some(mac)
}

/// Limits of a guest, which is hostile: its requests are bounded in every way.
fn limits(boot: &GuestRun<'_>) -> tftp::ServerSettings {
    tftp::ServerSettings {
        upload_most: boot.upload_limit,
        uploads_octets_most: boot.upload_limit.saturating_mul(2),
        uploads_most: UPLOADS,
        requests: Some(REQUESTS),
        ..tftp::ServerSettings::default()
    }
}

fn spec(config: &GuestSettings, boot: &GuestRun<'_>, tap: &str, mac: Mac) -> Spec {
    Spec {
        label: boot.directory.display().to_string(),
        qemu: config.qemu.clone(),
        accel: config.accel,
        cpus: config.cpus,
        ram_kb: config.ram_kb,
        directory: boot.directory.to_owned(),
        mac,
        tap: tap.to_owned(),
        options: boot.machine.options(),
        purpose: boot.purpose,
        run_dir: config.run_dir.clone(),
        user: config.user.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_one_machine_have_addresses_of_their_own() {
        let mac = Mac([0x02, 0, 0, 0xaa, 0xbb, 0xcc]);
        assert_eq!(own_mac(mac, 1), mac);
        let all: std::collections::HashSet<_> = (1..=99).map(|n| own_mac(mac, n)).collect();
        assert_eq!(all.len(), 99);
        assert!(all.iter().all(|mac| mac.0[..3] == [0x02, 0, 0]));
    }
}
