//! The connection of a guest with the agent.

use std::time::{Duration, Instant};

use nix::libc;

use super::{GuestRun, GuestSettings, limits};
use crate::error::{Context as _, Error, Result};
use crate::manifest::MachineManifest;
use crate::network::{Bridge, Mac, Redirect, Strategy, Tap, Target};
use crate::settings::RedirectKind;
use crate::sys::poll;
use crate::tftp::TftpServer;

/// The time for the tap and the rules of a killed agent to go. The kernel removes
/// them last, some 10 ms after it has freed the lock.
const TAP_RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// The interval of attempts to create the tap until then.
const TAP_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The guest's connection: tap, redirect, server.
pub(super) struct Link {
    // Dropped in this order.
    pub(super) redirect: Redirect,
    pub(super) tap: Tap,
    pub(super) server: TftpServer,
}

impl Link {
    /// Makes the connection by the strategy that works on this host. Waits for the tap
    /// of a killed agent to go.
    pub(super) fn open(
        config: &GuestSettings,
        boot: &GuestRun<'_>,
        mac: Mac,
        bridge: &Bridge,
    ) -> Result<Link> {
        let until = Instant::now() + TAP_RELEASE_TIMEOUT;
        let make = |strategy: Strategy| loop {
            match Link::make(config, boot, mac, bridge, strategy) {
                Err(error) if is_taken(&error) && Instant::now() < until => {
                    poll::wait(&mut [], Some(Instant::now() + TAP_RETRY_INTERVAL))
                        .context(|| "unable to wait for a tap to go")?;
                }
                result => return result,
            }
        };
        let probed = || make(Redirect::probe(config.redirect, bridge)?);
        match config.redirect {
            // A probe takes as long as the attempt, so it follows a failure only: it
            // finds the reason and another strategy.
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
                mac: fixed_mac(boot.machine, mac),
                server: address,
                owner: &config.owner,
                netfilter: &config.netfilter,
                group: &config.group,
            },
        )?;
        Ok(Link {
            redirect,
            tap,
            server,
        })
    }
}

/// Whether a tap, rules or an address of this agent exist already.
fn is_taken(error: &Error) -> bool {
    matches!(
        error.errno(),
        Some(libc::EBUSY | libc::EEXIST | libc::EADDRINUSE)
    )
}

/// The address that the guest is sure to use. Options of its machine may give it
/// another one.
fn fixed_mac(machine: &MachineManifest, mac: Mac) -> Option<Mac> {
    let substituted = |options: Vec<String>| options.iter().any(|o| o.contains("mac=?"));
    if machine
        .options()
        .is_some_and(|options| !substituted(options))
    {
        return None;
    }
    Some(mac)
}
