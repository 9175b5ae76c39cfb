//! Dispatches packets to transfers, opens files for requests, enforces limits.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Instant;

use super::again::Again;
use super::exchange::{About, Exchange, Shared};
use super::map::{Map, Name};
use super::options::Terms;
use super::packet::{self, ErrorCode, Kind, Packet, Refusal, Request};
use super::peers::{Peer, Peers};
use super::post;
use super::quota::Reservation;
use super::rate::Bucket;
use super::server::{Accept, Served, ServerSettings};
use super::source::{Content, Source};
use super::transfer::{Input, Linger, Reply, TransferEnd};
use super::tree::{self, Tree};
use super::upload::UploadFile;
use crate::sys::inbox::Datagram;
use crate::sys::udp::Route;

/// All but the inbox, so that a datagram in that can be borrowed meanwhile.
pub(super) struct Core {
    pub(super) shared: Shared,
    pub(super) config: ServerSettings,
    pub(super) map: Map,
    pub(super) get: Vec<Tree>,
    pub(super) put: Option<Tree>,
    pub(super) accept: Option<Accept>,
    pub(super) receive_buffer: u64,
    pub(super) peers: Peers,
    pub(super) bucket: Option<Bucket>,
    /// No transfer is due before this.
    pub(super) due: Option<Instant>,
    pub(super) events: VecDeque<Served>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("config", &self.config)
            .field("map", &self.map)
            .field("active", &self.peers.active())
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Acts upon what is in one slot of the inbox.
    pub(super) fn take(&mut self, now: Instant, datagram: &Datagram<'_>) {
        let peer = datagram.peer;
        // RFC 1123 §4.2.3.5; and what cannot be answered is not acted upon.
        if datagram.broadcast
            || peer.port() == 0
            || peer.ip().is_unspecified()
            || peer.ip().is_broadcast()
            || peer.ip().is_multicast()
        {
            return;
        }
        let route = Route {
            peer,
            from: datagram.to,
        };
        self.packet(now, route, datagram.octets);
    }

    fn packet(&mut self, now: Instant, route: Route, octets: &[u8]) {
        let packet = Packet::parse(octets);
        if packet == Packet::Request {
            return self.request(now, route, octets);
        }
        match self.peers.get_mut(&route.peer) {
            Some(Peer::Active(exchange)) => {
                let (input, payload) = match packet {
                    Packet::Data(number, payload) => (Input::Data(number, payload.len()), payload),
                    Packet::Ack(number) => (Input::Ack(number), &[][..]),
                    Packet::Error(..) => (Input::PeerError, &[][..]),
                    // Garbage from the peer's port does not end its transfer.
                    _ => return,
                };
                if exchange.before.is_some()
                    && exchange.is_about_the_last(&self.shared, now, &packet)
                {
                    return;
                }
                if let Some(old) = exchange.give_way(&input) {
                    self.events.push_back(old.replaced());
                    self.events.push_back(exchange.requested());
                    exchange.inherit(old);
                }
                let outcome = exchange.drive(&mut self.shared, now, input, payload);
                if exchange.last_progress() == now {
                    exchange.again = Again::No;
                    exchange.before = None;
                    self.shared.counters.last_progress = Some(now);
                }
                match outcome {
                    Some(outcome) => {
                        let said = match packet {
                            Packet::Error(code, text) => Some((code, text)),
                            _ => None,
                        };
                        self.end(now, route.peer, &outcome, said);
                    }
                    None => self.due = earlier(self.due, exchange.due()),
                }
            }
            Some(Peer::Over(linger)) if now < linger.until() => match linger.answer(now, &packet) {
                Reply::Silence => {}
                Reply::Ack(number) => {
                    post::packet(&self.shared.socket, &route, &packet::ack(number));
                }
                Reply::Error(refusal) => {
                    post::packet(&self.shared.socket, &route, &refusal.to_packet());
                }
            },
            _ => self.stranger(&route, &packet),
        }
    }

    /// Answers a packet that belongs to no transfer (RFC 1350 §4). An ERROR is
    /// never answered, and what is too short to be anything neither.
    fn stranger(&mut self, route: &Route, packet: &Packet<'_>) {
        let refusal = match packet {
            Packet::Data(..) | Packet::Ack(_) | Packet::Oack => {
                Refusal::new(ErrorCode::UnknownId, "unknown transfer")
            }
            Packet::Unknown(_) => Refusal::new(ErrorCode::IllegalOperation, "unknown operation"),
            Packet::Request | Packet::Error(..) | Packet::Runt => return,
        };
        if self.accepts(route.peer) {
            post::packet(&self.shared.socket, route, &refusal.to_packet());
        }
    }

    fn accepts(&mut self, peer: SocketAddrV4) -> bool {
        self.accept.as_mut().is_none_or(|accept| accept(peer))
    }

    fn request(&mut self, now: Instant, route: Route, octets: &[u8]) {
        let mut restarted = false;
        if let Some(Peer::Active(exchange)) = self.peers.get_mut(&route.peer) {
            if exchange.request == octets {
                exchange.request_again(&mut self.shared, now);
                self.due = earlier(self.due, exchange.due());
                return;
            }
            // Garbage that begins like a request is garbage.
            if Request::parse(octets).is_err() {
                return;
            }
            restarted = true;
        } else if !self.accepts(route.peer) {
            return;
        }
        if self.bucket.as_mut().is_some_and(|bucket| !bucket.take(now)) {
            self.shared.counters.requests_dropped += 1;
            return;
        }
        if restarted {
            // It does not wait for the old transfer.
            self.replace(route.peer);
        }
        self.start(now, route, octets);
    }

    /// Ends the transfer of a peer that has begun another one.
    fn replace(&mut self, peer: SocketAddrV4) {
        if let Some(exchange) = self.peers.forget(peer) {
            self.events.push_back(exchange.replaced());
        }
    }

    fn start(&mut self, now: Instant, route: Route, octets: &[u8]) {
        self.shared.counters.requests += 1;
        let mut asked = None;
        let result = Request::parse(octets).and_then(|request| {
            asked = Some((request.kind, request.name.clone()));
            let name = Name::parse(&request.name)?;
            self.admit(now, route.peer)?;
            self.open(now, route, octets, &request, name, None)
        });
        match result {
            Ok(mut exchange) => {
                if let Some(Peer::Over(linger)) = self.peers.get_mut(&route.peer)
                    && now < linger.until()
                {
                    exchange.before = Some(linger.clone());
                }
                self.events.push_back(exchange.requested());
                let outcome = exchange.drive(&mut self.shared, now, Input::Begin, &[]);
                self.due = earlier(self.due, exchange.due());
                self.peers.begin(route.peer, exchange);
                if let Some(outcome) = outcome {
                    self.end(now, route.peer, &outcome, None);
                }
            }
            Err(refusal) => {
                post::packet(&self.shared.socket, &route, &refusal.to_packet());
                self.peers
                    .remember(now, route.peer, Linger::refused(now, refusal.clone()));
                self.events.push_back(Served::Refused {
                    peer: route.peer,
                    request: asked,
                    refusal,
                });
            }
        }
    }

    /// Makes sure that there is a place for one more transfer.
    fn admit(&mut self, now: Instant, peer: SocketAddrV4) -> Result<(), Refusal> {
        let of_peer = self.peers.active() >= self.config.transfers_of_peer_most
            && self.peers.active_of(peer.ip()) >= self.config.transfers_of_peer_most;
        if !of_peer && self.peers.active() < self.config.transfers_most {
            return Ok(());
        }
        let victim = self
            .peers
            .stalled(now, of_peer.then_some(peer.ip()))
            .ok_or(Refusal::new(ErrorCode::NotDefined, "too many transfers"))?;
        if let Some(exchange) = self.peers.forget(victim) {
            self.events.push_back(Served::Failed {
                peer: victim,
                kind: exchange.kind,
                name: exchange.name.as_str().to_owned(),
                reason: "stalled, and its place was needed".to_owned(),
                refusal: None,
            });
        }
        Ok(())
    }

    pub(super) fn open(
        &mut self,
        now: Instant,
        route: Route,
        octets: &[u8],
        request: &Request,
        name: Name,
        challenger: Option<Reservation>,
    ) -> Result<Exchange, Refusal> {
        match request.kind {
            Kind::Get => {
                let content = self.find(&name)?;
                let terms = Terms::agree(request, Some(content.size()), self.receive_buffer);
                let source = Source::new(content, request.mode, terms.blksize, terms.window);
                let about = About {
                    name,
                    route,
                    terms,
                    request: octets.to_vec(),
                };
                Ok(Exchange::get(now, about, source))
            }
            Kind::Put => {
                let Some(tree) = &mut self.put else {
                    return Err(Refusal::new(
                        ErrorCode::AccessViolation,
                        "writing is not allowed",
                    ));
                };
                let quota = &self.shared.quota;
                let reservation = challenger
                    .or_else(|| quota.reserve())
                    .ok_or(Refusal::new(ErrorCode::DiskFull, "too many uploads"))?;
                let terms = Terms::agree(request, None, self.receive_buffer);
                let limit = self.config.upload_most;
                let left = limit.min(quota.octets_left());
                if terms.announced.is_some_and(|size| size > left) {
                    return Err(Refusal::new(
                        ErrorCode::DiskFull,
                        "file larger than the limit",
                    ));
                }
                let place = tree.place(&name)?;
                let upload = UploadFile::create(place, request.mode)
                    .map_err(|error| tree::refusal(&error))?;
                if terms.announced.is_some_and(|size| !upload.has_room(size)) {
                    return Err(tree::NO_ROOM);
                }
                let about = About {
                    name,
                    route,
                    terms,
                    request: octets.to_vec(),
                };
                Ok(Exchange::put(now, about, (upload, reservation), limit))
            }
        }
    }

    fn find(&mut self, name: &Name) -> Result<Content, Refusal> {
        if let Some(octets) = self.map.find(name.as_str()) {
            return Ok(Content::Memory(octets));
        }
        if !self.map.is_readable() {
            return Err(Refusal::new(
                ErrorCode::AccessViolation,
                "reading is not allowed",
            ));
        }
        for tree in &mut self.get {
            if let Some((file, facts)) = tree.open(name)? {
                return Ok(Content::File(file, facts));
            }
        }
        Err(Refusal::new(ErrorCode::FileNotFound, "file not found"))
    }

    /// A transfer is over: tells the caller, and remembers it for its peer.
    fn end(
        &mut self,
        now: Instant,
        peer: SocketAddrV4,
        outcome: &TransferEnd,
        said: Option<(u16, &[u8])>,
    ) {
        let Some(exchange) = self.peers.forget(peer) else {
            return;
        };
        let name = exchange.name.as_str().to_owned();
        let linger = match (outcome, exchange.kind) {
            (TransferEnd::Complete, Kind::Put) => {
                Linger::stored(now, exchange.last_block(), exchange.terms.timeout)
            }
            (TransferEnd::Complete, Kind::Get) | (TransferEnd::PeerError, _) => Linger::sent(now),
            (TransferEnd::Silent, _) => {
                Linger::refused(now, Refusal::new(ErrorCode::NotDefined, "timed out"))
            }
            (TransferEnd::Refused(refusal), _) => Linger::refused(now, refusal.clone()),
        };
        self.peers.remember(now, peer, linger);
        let failed = |reason: String, refusal: Option<&Refusal>| Served::Failed {
            peer,
            kind: exchange.kind,
            name: name.clone(),
            reason,
            refusal: refusal.cloned(),
        };
        let event = match outcome {
            TransferEnd::Complete if exchange.kind == Kind::Get => {
                self.shared.counters.files_sent += 1;
                Served::Sent {
                    peer,
                    name: name.clone(),
                    size: exchange.size,
                }
            }
            TransferEnd::Complete => {
                self.shared.counters.files_received += 1;
                let root = self.map.put_root().map(PathBuf::from).unwrap_or_default();
                Served::Uploaded {
                    peer,
                    path: root.join(&name),
                    name: name.clone(),
                    size: exchange.size,
                }
            }
            TransferEnd::PeerError => {
                let (code, text) = said.unwrap_or_default();
                let text = packet::message(text);
                failed(format!("the peer gave up: {text} (error {code})"), None)
            }
            TransferEnd::Silent => failed("the peer fell silent".to_owned(), None),
            TransferEnd::Refused(refusal) => failed(refusal.to_string(), Some(refusal)),
        };
        self.events.push_back(event);
    }

    /// Does what is due by the clock.
    pub(super) fn tick(&mut self, now: Instant) {
        self.due = None;
        let mut over = Vec::new();
        let mut again = Vec::new();
        for (peer, exchange) in self.peers.transfers() {
            if matches!(exchange.again, Again::At(at) if now >= at) {
                again.push(peer);
                continue;
            }
            if exchange.due().is_some_and(|due| now >= due)
                && let Some(outcome) = exchange.drive(&mut self.shared, now, Input::Tick, &[])
            {
                over.push((peer, outcome));
                continue;
            }
            self.due = earlier(self.due, exchange.due());
        }
        for (peer, outcome) in over {
            self.end(now, peer, &outcome, None);
        }
        for peer in again {
            self.ask(now, peer);
        }
    }
}

pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
