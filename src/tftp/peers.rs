//! The peers of transfers that are under way or over.
//!
//! A repeated request is a duplicate, a delayed copy, or the request of a client that
//! has restarted on the same port, as the firmware of a machine does after a reset. The
//! request does not tell which. If its transfer makes progress, it was a copy. If not,
//! the peer is probed: it gets the first packet of a second transfer, and the transfer
//! that its next packet belongs to goes on.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::active::{ActiveTransfer, Shared};
use super::packet::{Kind, Packet};
use super::transfer::{Input, Linger, Reply};
use super::wire::Wire;

/// Ends of transfers that are remembered.
const MAX_ENDED: usize = 256;
/// A transfer may be given up for another one after so long without progress; and
/// before its first progress after so long.
const STALL: Duration = Duration::from_secs(5);
const UNANSWERED_STALL: Duration = Duration::from_secs(1);
/// The time for progress before the peer is probed. It is longer than the usual pause of
/// a peer, because some fail on the first packet of another transfer, and shorter than
/// the timeout of boot ROMs. Until the answer to the probe nothing is retransmitted: a
/// peer that has restarted takes a block from the middle of the file for an error.
const RESTART_PROBE_DELAY: Duration = Duration::from_millis(1200);
const RESTART_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of a peer.
#[derive(Debug)]
pub(super) enum Peer {
    /// Its transfer.
    Active(Box<ActivePeer>),
    /// The end of its last one.
    Over(Linger),
}

/// A peer whose transfer is under way.
#[derive(Debug)]
pub(super) struct ActivePeer {
    pub(super) transfer: ActiveTransfer,
    /// The request as it came, to know it when it comes again.
    pub(super) request: Vec<u8>,
    restart: Restart,
    /// The end of the peer's last transfer, until this one moves on: the request of
    /// this one may be a late duplicate.
    before: Option<Linger>,
}

/// Whether the peer has begun anew.
#[derive(Debug)]
enum Restart {
    /// The request has not come again since the transfer moved on.
    Unlikely,
    /// It has. The peer is probed at this time, unless the transfer moves on.
    Suspected(Instant),
    /// The peer was probed, and has until this time to answer. There is no second
    /// transfer if the request would be refused now; the first one goes on.
    Probed(Instant, Option<Box<ActiveTransfer>>),
}

impl ActivePeer {
    pub(super) fn new(
        transfer: ActiveTransfer,
        request: &[u8],
        before: Option<Linger>,
    ) -> ActivePeer {
        ActivePeer {
            transfer,
            request: request.to_vec(),
            restart: Restart::Unlikely,
            before,
        }
    }

    /// When there is something to do, if nothing comes before.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.transfer.machine().due();
        match self.restart {
            Restart::Unlikely => due,
            Restart::Suspected(at) => Some(at),
            Restart::Probed(until, _) => due.map(|due| due.max(until)),
        }
    }

    /// The request came again.
    pub(super) fn request_again<W: Wire>(&mut self, shared: &mut Shared<W>, now: Instant) {
        if !self.transfer.machine().has_begun() {
            self.transfer.drive(shared, now, Input::RequestAgain, &[]);
            return;
        }
        match &mut self.restart {
            // Once until it moves on, so that the transfer of a peer that says
            // nothing else is not put off for ever.
            Restart::Unlikely => self.restart = Restart::Suspected(now + RESTART_PROBE_DELAY),
            Restart::Suspected(_) => {}
            Restart::Probed(_, challenger) => {
                let asked = challenger.as_mut();
                let end = asked.and_then(|it| it.drive(shared, now, Input::RequestAgain, &[]));
                if end.is_some() {
                    *challenger = None;
                }
            }
        }
    }

    /// Whether the peer is to be probed now.
    pub(super) fn is_to_be_probed(&self, now: Instant) -> bool {
        matches!(self.restart, Restart::Suspected(at) if now >= at)
    }

    /// The first packet of `challenger` was sent, if there is one.
    pub(super) fn probed(&mut self, now: Instant, challenger: Option<ActiveTransfer>) {
        let until = now + RESTART_ANSWER_TIMEOUT;
        self.restart = Restart::Probed(until, challenger.map(Box::new));
    }

    /// If `input` is the answer to a probe, and nothing that the transfer waits for:
    /// the challenger becomes the transfer, in place of the one that is returned.
    pub(super) fn give_way(&mut self, input: &Input) -> Option<ActiveTransfer> {
        let Restart::Probed(_, challenger) = &mut self.restart else {
            return None;
        };
        let challenger = challenger.take_if(|challenger| {
            challenger.machine().expects(input) && !self.transfer.machine().expects(input)
        })?;
        self.moved_on();
        Some(std::mem::replace(&mut self.transfer, *challenger))
    }

    /// The transfer moved on.
    pub(super) fn moved_on(&mut self) {
        self.restart = Restart::Unlikely;
        self.before = None;
    }

    /// The block whose ACK is to be sent again, if `packet` is the last block of the
    /// upload before this transfer, whose ACK was lost.
    pub(super) fn lost_ack(&mut self, now: Instant, packet: &Packet<'_>) -> Option<u64> {
        let before = self.before.as_mut()?;
        // A window may begin with any of its blocks, if others are lost; else an
        // upload begins with block 1.
        let begun = self.transfer.machine().has_begun();
        if begun || self.transfer.terms.window > 1 || matches!(packet, Packet::Data(1, _)) {
            return None;
        }
        match before.answer(now, packet) {
            Reply::Ack(number) => Some(number),
            _ => None,
        }
    }

    /// Whether the peer may send several packets in a row.
    fn sends_windows(&self) -> bool {
        self.transfer.kind() == Kind::Put && self.transfer.terms.window > 1
    }
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

    /// The peers whose transfers are under way.
    pub(super) fn transfers(&mut self) -> impl Iterator<Item = (SocketAddrV4, &mut ActivePeer)> {
        self.known
            .iter_mut()
            .filter_map(|(peer, known)| match known {
                Peer::Active(active) => Some((*peer, &mut **active)),
                Peer::Over(_) => None,
            })
    }

    /// Notes a transfer. One of the same peer that was under way is dropped.
    pub(super) fn begin(&mut self, peer: SocketAddrV4, active: ActivePeer) {
        self.forget(peer);
        self.windows += usize::from(active.sends_windows());
        self.active += 1;
        self.known.insert(peer, Peer::Active(Box::new(active)));
    }

    /// Takes the transfer of a peer away.
    pub(super) fn forget(&mut self, peer: SocketAddrV4) -> Option<ActiveTransfer> {
        match self.known.remove(&peer) {
            Some(Peer::Active(active)) => {
                self.active -= 1;
                // A challenger has the same request, and so the same terms.
                self.windows -= usize::from(active.sends_windows());
                Some(active.transfer)
            }
            _ => None,
        }
    }

    /// The transfer to give up when there are too many, of one address or in all:
    /// one that never got an answer first, then the one that waits for its peer
    /// longest. `None` if all of them are moving or have just begun: a peer that asks
    /// for too much is refused, rather than served at the cost of what it has asked
    /// for before.
    pub(super) fn stalled(&self, now: Instant, of: Option<&Ipv4Addr>) -> Option<SocketAddrV4> {
        self.known
            .iter()
            .filter_map(|(peer, known)| match known {
                Peer::Active(active) if of.is_none_or(|address| peer.ip() == address) => {
                    let machine = active.transfer.machine();
                    let (begun, progress) = (machine.has_begun(), machine.last_progress());
                    let limit = if begun { STALL } else { UNANSWERED_STALL };
                    let stalled = now.saturating_duration_since(progress) >= limit;
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
        if self.known.len() - self.active >= MAX_ENDED {
            self.known
                .retain(|_, known| !matches!(known, Peer::Over(over) if over.until() <= now));
        }
        if self.known.len() - self.active >= MAX_ENDED {
            let ended = self.known.iter().filter_map(|(peer, known)| match known {
                Peer::Over(over) => Some((over.until(), *peer)),
                Peer::Active(_) => None,
            });
            if let Some((_, oldest)) = ended.min() {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(peer, Peer::Over(linger));
    }
}
