//! Requests that come again in the midst of their transfer.
//!
//! The network may have made two of one, or held one back; or the peer has begun
//! anew, for the firmware of a machine that was reset uses the same port again.
//! The request does not tell which. If the transfer moves on, it was a duplicate;
//! if not, the peer is asked: the first packet of a new transfer is sent to it,
//! and the transfer to which its next packet belongs is the one that goes on.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::dispatch::{Core, earlier};
use super::exchange::{Exchange, Shared};
use super::map::Name;
use super::packet::Request;
use super::peers::Peer;
use super::quota::Reservation;
use super::server::Served;
use super::transfer::Input;

/// How long the transfer may take to move on before its peer is asked. Longer than
/// a peer is likely to pause, for some do not take the first packet of another
/// transfer well; shorter than a boot ROM waits before it gives up. Meanwhile, and
/// while the answer may be on its way, nothing is repeated: to a peer that has
/// begun anew, a block from the midst of the file is an error.
const AGAIN: Duration = Duration::from_millis(1200);
const ANSWER: Duration = Duration::from_secs(1);

/// The checks of a request that came again.
#[derive(Debug, Default)]
pub(super) enum Again {
    /// It has not come.
    #[default]
    No,
    /// The peer is asked at this time, unless the transfer moves on.
    At(Instant),
    /// The peer was asked by the first packet of another transfer, and answers
    /// before this time, if it does. There is no such transfer if the request
    /// would be refused by now; that is no reason to end what was granted.
    Asked(Instant, Option<Box<Exchange>>),
}

impl Again {
    /// When a transfer that is due at `due` may go about it.
    pub(super) fn put_off(&self, due: Option<Instant>) -> Option<Instant> {
        match *self {
            Again::No => due,
            Again::At(at) => Some(at),
            Again::Asked(until, _) => due.map(|due| due.max(until)),
        }
    }
}

impl Exchange {
    /// The request came again.
    pub(super) fn request_again(&mut self, shared: &mut Shared, now: Instant) {
        if !self.has_begun() {
            self.drive(shared, now, Input::RequestAgain, &[]);
            return;
        }
        match &mut self.again {
            // Once until it moves on, so that the transfer of a peer that says
            // nothing else is not put off for ever.
            Again::No => self.again = Again::At(now + AGAIN),
            Again::At(_) => {}
            Again::Asked(_, next) => {
                if let Some(asking) = next {
                    let over = asking.drive(shared, now, Input::RequestAgain, &[]);
                    if over.is_some() {
                        *next = None;
                    }
                }
            }
        }
    }

    /// If `input` is the answer to what the peer was asked, and nothing that this
    /// transfer waits for: becomes the new transfer, and returns the old one.
    pub(super) fn give_way(&mut self, input: &Input) -> Option<Exchange> {
        match &self.again {
            Again::Asked(_, Some(next)) if next.expects(input) && !self.expects(input) => {}
            _ => return None,
        }
        match std::mem::take(&mut self.again) {
            Again::Asked(_, Some(next)) => Some(std::mem::replace(self, *next)),
            _ => None,
        }
    }

    /// The event of a transfer that begins.
    pub(super) fn requested(&self) -> Served {
        Served::Requested {
            peer: self.route.peer,
            kind: self.kind,
            name: self.name.as_str().to_owned(),
        }
    }

    /// The event of a transfer whose peer has begun another one.
    pub(super) fn replaced(&self) -> Served {
        Served::Failed {
            peer: self.route.peer,
            kind: self.kind,
            name: self.name.as_str().to_owned(),
            reason: "the peer began another transfer".to_owned(),
            refusal: None,
        }
    }
}

impl Core {
    /// Asks a peer whether it has begun anew.
    pub(super) fn ask(&mut self, now: Instant, peer: SocketAddrV4) {
        let Some(Peer::Active(exchange)) = self.peers.get_mut(&peer) else {
            return;
        };
        let (route, octets) = (exchange.route, exchange.request.clone());
        let reservation = exchange.reservation().map(Reservation::challenger);
        let next = Request::parse(&octets).and_then(|request| {
            let name = Name::parse(&request.name)?;
            self.open(now, route, &octets, &request, name, reservation)
        });
        let next = next.ok().and_then(|mut next| {
            let over = next.drive(&mut self.shared, now, Input::Begin, &[]);
            over.is_none().then(|| Box::new(next))
        });
        if let Some(Peer::Active(exchange)) = self.peers.get_mut(&peer) {
            exchange.again = Again::Asked(now + ANSWER, next);
            self.due = earlier(self.due, exchange.due());
        }
    }
}
