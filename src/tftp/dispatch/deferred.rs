//! Requests that are answered later, by another server.
//!
//! A guest that is stopped when it asks for its task, and restored later, waits for the
//! answer. Its request does not come again before its client's time is over, which
//! may take seconds.

use std::net::SocketAddrV4;
use std::time::Instant;

use super::Dispatcher;
use crate::sys::udp::Route;
use crate::tftp::event::{DeferredRequest, Served};
use crate::tftp::map::Name;
use crate::tftp::packet::{Kind, Request};
use crate::tftp::wire::Wire;

impl<W: Wire> Dispatcher<W> {
    /// Whether a request is for a deferred file. It gets no answer then.
    pub(super) fn defers(&mut self, peer: SocketAddrV4, octets: &[u8]) -> bool {
        let Ok(request) = Request::parse(octets) else {
            return false;
        };
        let is_deferred = |name: Name| self.map.is_deferred(name.as_str());
        let defers = request.kind == Kind::Get && Name::parse(&request.name).is_ok_and(is_deferred);
        if defers {
            let octets = octets.to_vec();
            let request = DeferredRequest { peer, octets };
            self.events.push_back(Served::Deferred(request));
        }
        defers
    }

    /// Answers a request that was deferred, and returns the event of it. The filter of
    /// peers is not asked: the kernel may not know the guest yet.
    pub fn resume(&mut self, now: Instant, request: &DeferredRequest) -> Option<Served> {
        let peer = request.peer;
        self.start(now, Route { peer, from: None }, &request.octets);
        self.event()
    }
}

/// Whether packets can be sent to `peer`.
pub(super) fn is_station(peer: SocketAddrV4) -> bool {
    let ip = peer.ip();
    peer.port() != 0 && !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast()
}
