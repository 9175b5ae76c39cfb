//! TFTP requests of one guest to one server: strategies behind one guard.

use std::io;
use std::net::SocketAddrV4;
use std::net::UdpSocket;
use std::sync::Arc;

use super::{Bridge, Mac, Netfilter, PORT, SERVER, Tap, nft};
use crate::diag;
use crate::error::{Class, Context as _, Error, Result};
use crate::settings::RedirectKind;
use crate::sys::net::{Control, InterfaceName};
use crate::trace;

/// How it is done on this host, found out by [`Redirect::probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Rules of `nf_tables`, which the kernel removes with the agent.
    Nft,
    /// The server is bound to 196.254.111.222:69: one agent per bridge.
    None,
}

impl Strategy {
    /// Where the server is to be bound: port 0 where any will do.
    pub fn server_address(self, bridge: &Bridge) -> SocketAddrV4 {
        match self {
            Strategy::Nft => SocketAddrV4::new(bridge.address, 0),
            Strategy::None => SocketAddrV4::new(SERVER, PORT),
        }
    }

    /// Its name as an option value.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Nft => "nft",
            Strategy::None => "none",
        }
    }
}

/// Whose requests go where.
#[derive(Debug)]
pub struct Target<'a> {
    /// The bridge that the tap is a port of.
    pub bridge: &'a Bridge,
    /// The guest's tap.
    pub tap: &'a Tap,
    /// The guest's hardware address, if it is sure to use that one: then frames
    /// with another are dropped.
    pub mac: Option<Mac>,
    /// The server: what [`Strategy::server_address`] became when bound.
    pub server: SocketAddrV4,
    /// The agent's name (toolchain and instance), noted with the rules.
    pub owner: &'a str,
    /// The owner of the rules.
    pub netfilter: &'a Netfilter,
    /// The taps of the other guests of the task, which reach this one. Needs
    /// [`Strategy::Nft`].
    pub group: &'a [String],
}

/// The redirect of a guest's TFTP requests, removed when this goes.
///
/// While it stands, only the guest on the tap reaches the server; see
/// [`Redirect::peers`] for where the kernel cannot see to that.
#[derive(Debug)]
#[must_use = "the redirect is removed when this is dropped"]
pub struct Redirect {
    rules: Option<nft::Tables>,
    server: SocketAddrV4,
    peers: Arc<Peers>,
}

impl Redirect {
    /// Finds out how `kind` can be done here, before anything is started.
    pub fn probe(kind: RedirectKind, bridge: &Bridge) -> Result<Strategy> {
        match kind {
            RedirectKind::Nft => probe_nft(bridge),
            RedirectKind::None => probe_none(bridge),
            RedirectKind::Auto => {
                let nft = match probe_nft(bridge) {
                    Err(error) if error.class() == Class::Permission => return Err(error),
                    Err(error) => error,
                    found => return found,
                };
                probe_none(bridge).map_err(|none| {
                    let mut error = Error::new("unable to redirect TFTP requests of guests")
                        .with_class(Class::Config);
                    for reason in [&nft, &none] {
                        error = error.hint(reason.to_string());
                        for hint in reason.hints() {
                            error = error.hint(hint);
                        }
                    }
                    error
                })
            }
        }
    }

    /// Installs the redirect, before the guest starts.
    pub fn install(strategy: Strategy, target: &Target<'_>) -> Result<Redirect> {
        let tap = target.tap.kernel_name();
        let unable = || {
            format!(
                "unable to redirect TFTP requests from {tap} to {} by {}",
                target.server,
                strategy.name()
            )
        };
        trace!(
            3,
            "install",
            "udp {SERVER}:{PORT} from {tap} to {} by {}",
            target.server,
            strategy.name()
        );
        let mut peers = Peers::Any;
        if let Some(mac) = target.mac {
            target.tap.lock(mac).context(unable)?;
        }
        let group: io::Result<Vec<_>> = target
            .group
            .iter()
            .map(|name| InterfaceName::new(name))
            .collect();
        let group = group.context(unable)?;
        let rules = match strategy {
            Strategy::Nft => {
                let rules = nft::Rules {
                    bridge: target.bridge,
                    tap,
                    mark: MARK | (target.tap.index() & !MARK_MASK),
                    mac: target.mac,
                    server: target.server,
                    owner: &format!("bbot-agent {}", target.owner),
                    group: &group,
                };
                let tables = nft::Tables::install(target.netfilter, &rules).context(unable)?;
                // From now on the rules keep other guests away.
                if !group.is_empty() {
                    target.tap.open_to_group().context(unable)?;
                }
                Some(tables)
            }
            Strategy::None => {
                if let Some(mac) = target.mac {
                    peers = Peers::Station {
                        control: Control::open().context(unable)?,
                        bridge: target.bridge.name,
                        mac,
                    };
                }
                None
            }
        };
        Ok(Redirect {
            rules,
            server: target.server,
            peers: Arc::new(peers),
        })
    }

    /// The peers of the server.
    pub fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.peers)
    }

    /// Removes the redirect.
    pub fn close(mut self) -> Result<()> {
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        let unable = || format!("unable to remove the redirect to {}", self.server);
        match self.rules.take() {
            None => Ok(()),
            Some(tables) => tables.remove().context(unable),
        }
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            diag::warning(error).emit();
        }
    }
}

/// The mark of a guest's packets to the TFTP address: this, and below it the
/// number of the tap.
const MARK: u32 = 0xbb00_0000;
const MARK_MASK: u32 = 0xff00_0000;

/// The peers that a server accepts.
#[derive(Debug)]
pub enum Peers {
    /// All: the rules let only the guest through.
    Any,
    /// The station `mac` behind `bridge`.
    Station {
        /// Asks the kernel.
        control: Control,
        /// The bridge.
        bridge: InterfaceName,
        /// The guest.
        mac: Mac,
    },
}

impl Peers {
    /// Whether a packet from `peer` may come from our guest.
    ///
    /// Without rules this goes by what the neighbour table has for the address:
    /// a guest asks for its gateway before anything else, so it is there.
    pub fn admits(&self, peer: SocketAddrV4) -> bool {
        match self {
            Peers::Any => true,
            Peers::Station {
                control,
                bridge,
                mac,
            } => matches!(control.neighbour(bridge, *peer.ip()), Ok(Some(found)) if found == mac.0),
        }
    }
}

/// Installs rules that match nothing, and removes them.
fn probe_nft(bridge: &Bridge) -> Result<Strategy> {
    let unable = || "unable to redirect by nft";
    let tap = InterfaceName::new(&format!("bbp{}", std::process::id())).context(unable)?;
    let rules = nft::Rules {
        bridge,
        tap: &tap,
        mark: MARK,
        mac: Some(Mac([2, 0, 0, 0, 0, 0])),
        server: SocketAddrV4::new(SERVER, PORT),
        owner: "bbot-agent probe",
        group: &[],
    };
    nft::Tables::install(&Netfilter::default(), &rules)
        .and_then(nft::Tables::remove)
        .context(unable)
        .map_err(|error| match error.class() {
            Class::Permission => error.hint("run as root, or with the capability CAP_NET_ADMIN"),
            _ => error.with_class(Class::Config).hint(
                "the kernel must be Linux 5.12 or newer, with nf_tables for bridges \
                 (CONFIG_NF_TABLES_BRIDGE; modprobe nf_tables)",
            ),
        })?;
    Ok(Strategy::Nft)
}

/// Whether 196.254.111.222 is one of the host's addresses.
fn probe_none(bridge: &Bridge) -> Result<Strategy> {
    UdpSocket::bind((SERVER, 0))
        .context(|| format!("unable to serve without a redirect: {SERVER} is not an address here"))
        .map_err(|error| {
            error.with_class(Class::Config).hint(format!(
                "add it: ip addr add {SERVER}/32 dev {}",
                bridge.name
            ))
        })?;
    Ok(Strategy::None)
}
