//! The peers of transfers that are under way or over.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::packet::Kind;
use super::transfer::Linger;

/// Ends of transfers that are remembered.
const LINGER_MOST: usize = 256;
/// A transfer may be given up for another one after so long without progress; and
/// before its first progress after so long.
const STALLED: Duration = Duration::from_secs(5);
const VAIN: Duration = Duration::from_secs(1);

/// The state of a peer.
#[derive(Debug)]
pub(super) enum Peer {
    /// Its transfer.
    Active(Box<Exchange>),
    /// The end of its last one.
    Over(Linger),
}

/// All peers, by address and port.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: HashMap<SocketAddrV4, Peer>,
    active: usize,
    /// How many of them send windows of blocks.
    windows: usize,
}

impl Peers {
    /// How many transfers are under way.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Whether there is one transfer under way, in which one packet at a time
    /// comes in.
    pub(super) fn one_by_one(&self) -> bool {
        self.active == 1 && self.windows == 0
    }

    /// How many transfers of one address are under way.
    pub(super) fn active_of(&self, address: &Ipv4Addr) -> usize {
        self.known
            .iter()
            .filter(|(peer, known)| peer.ip() == address && matches!(known, Peer::Active(_)))
            .count()
    }

    /// The state of `peer`.
    pub(super) fn get_mut(&mut self, peer: &SocketAddrV4) -> Option<&mut Peer> {
        self.known.get_mut(peer)
    }

    /// The transfers under way.
    pub(super) fn transfers(&mut self) -> impl Iterator<Item = (SocketAddrV4, &mut Exchange)> {
        self.known
            .iter_mut()
            .filter_map(|(peer, known)| match known {
                Peer::Active(exchange) => Some((*peer, &mut **exchange)),
                Peer::Over(_) => None,
            })
    }

    /// Notes a transfer. One of the same peer that was under way is dropped.
    pub(super) fn begin(&mut self, peer: SocketAddrV4, exchange: Exchange) {
        self.forget(peer);
        self.windows += usize::from(sends_windows(&exchange));
        self.active += 1;
        self.known.insert(peer, Peer::Active(Box::new(exchange)));
    }

    /// Takes the transfer of a peer away.
    pub(super) fn forget(&mut self, peer: SocketAddrV4) -> Option<Box<Exchange>> {
        match self.known.remove(&peer) {
            Some(Peer::Active(exchange)) => {
                self.active -= 1;
                self.windows -= usize::from(sends_windows(&exchange));
                Some(exchange)
            }
            _ => None,
        }
    }

    /// The transfer to give up when there are too many, be it of one address or
    /// in all: one that never got an answer first, then the one that waits for
    /// its peer longest. `None` if all of them are moving or have just begun: who
    /// asks for too much is refused, rather than served at the cost of what it has
    /// asked for before.
    pub(super) fn stalled(&self, now: Instant, of: Option<&Ipv4Addr>) -> Option<SocketAddrV4> {
        self.known
            .iter()
            .filter_map(|(peer, known)| match known {
                Peer::Active(exchange) if of.is_none_or(|address| peer.ip() == address) => {
                    let begun = exchange.has_begun();
                    let progress = exchange.last_progress();
                    let patience = if begun { STALLED } else { VAIN };
                    let stalled = now.saturating_duration_since(progress) >= patience;
                    stalled.then_some((begun, progress, *peer))
                }
                _ => None,
            })
            .min()
            .map(|(_, _, peer)| peer)
    }

    /// Remembers the end of a transfer, in place of the oldest such memory if
    /// there are too many.
    pub(super) fn remember(&mut self, now: Instant, peer: SocketAddrV4, linger: Linger) {
        self.forget(peer);
        if self.known.len() - self.active >= LINGER_MOST {
            self.known
                .retain(|_, known| !matches!(known, Peer::Over(over) if over.until() <= now));
        }
        if self.known.len() - self.active >= LINGER_MOST {
            let oldest = self
                .known
                .iter()
                .filter_map(|(peer, known)| match known {
                    Peer::Over(over) => Some((over.until(), *peer)),
                    Peer::Active(_) => None,
                })
                .min();
            if let Some((_, oldest)) = oldest {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(peer, Peer::Over(linger));
    }
}

/// Whether the peer may send several packets in a row.
fn sends_windows(exchange: &Exchange) -> bool {
    exchange.kind == Kind::Put && exchange.terms.window > 1
}
