//! Dispatches packets to transfers, opens files for requests, enforces limits.
//!
//! No socket and no clock: packets go to a [`Wire`], and time is an argument.

mod deferred;

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use deferred::is_station;

use crate::sys::udp::{Route, SLOT};
use crate::tftp::active::{ActiveTransfer, Shared};
use crate::tftp::earlier;
use crate::tftp::event::{Accept, Counters, Served, ServerSettings, Upload};
use crate::tftp::map::{Map, Name};
use crate::tftp::options::Terms;
use crate::tftp::packet::{self, ErrorCode, Kind, Packet, Refusal, Request};
use crate::tftp::peers::{ActivePeer, Peer, Peers};
use crate::tftp::quota::{Reservation, UploadQuota};
use crate::tftp::rate::Bucket;
use crate::tftp::source::{Content, Source};
use crate::tftp::transfer::{Input, Linger, Reply, TransferEnd};
use crate::tftp::tree::{self, Tree};
use crate::tftp::upload::UploadFile;
use crate::tftp::wire::Wire;

/// A server without its socket: it is handed packets and what is due.
pub struct Dispatcher<W> {
    shared: Shared<W>,
    settings: ServerSettings,
    quota: Arc<UploadQuota>,
    map: Map,
    get: Vec<Tree>,
    put: Option<Tree>,
    accept: Option<Accept>,
    receive_buffer: u64,
    peers: Peers,
    bucket: Option<Bucket>,
    /// No transfer is due before this.
    due: Option<Instant>,
    events: VecDeque<Served>,
}

impl<W> std::fmt::Debug for Dispatcher<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("settings", &self.settings)
            .field("map", &self.map)
            .field("active", &self.peers.active())
            .finish_non_exhaustive()
    }
}

impl<W: Wire> Dispatcher<W> {
    /// A server that sends by `wire` and refuses every request until it is given a
    /// [`Map`]. `receive_buffer` is that of its socket in octets: see
    /// [`Terms::agree`].
    pub fn new(settings: ServerSettings, receive_buffer: u64, wire: W) -> Dispatcher<W> {
        Dispatcher {
            shared: Shared {
                wire,
                counters: Counters::default(),
                scratch: vec![0; SLOT],
            },
            quota: UploadQuota::new(settings.uploads_most, settings.uploads_octets_most),
            map: Map::new(),
            get: Vec::new(),
            put: None,
            accept: None,
            receive_buffer,
            peers: Peers::default(),
            bucket: settings.requests.map(Bucket::new),
            due: None,
            events: VecDeque::new(),
            settings,
        }
    }

    /// The sender of the packets.
    pub fn wire(&self) -> &W {
        &self.shared.wire
    }

    /// See [`crate::tftp::TftpServer::set_map`].
    pub fn set_map(&mut self, map: Map) {
        self.get = map.get_roots().iter().cloned().map(Tree::new).collect();
        self.put = map.put_root().map(|root| Tree::new(root.to_owned()));
        self.map = map;
    }

    /// See [`crate::tftp::TftpServer::set_accept`].
    pub fn set_accept(&mut self, accept: Accept) {
        self.accept = Some(accept);
    }

    /// See [`crate::tftp::TftpServer::counters`].
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The next event, if there is one.
    pub fn event(&mut self) -> Option<Served> {
        self.events.pop_front()
    }

    /// When to call [`Dispatcher::tick`], if no packet comes before.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether any transfer is under way.
    pub(super) fn is_active(&self) -> bool {
        self.peers.active() > 0
    }

    /// See [`Peers::one_by_one`].
    pub(super) fn one_by_one(&self) -> bool {
        self.peers.one_by_one()
    }

    /// Acts upon a packet.
    pub fn packet(&mut self, now: Instant, route: Route, octets: &[u8]) {
        let peer = route.peer;
        // A packet that cannot be answered is not acted upon.
        if !is_station(peer) {
            return;
        }
        let packet = Packet::parse(octets);
        if packet == Packet::Request {
            return self.request(now, route, octets);
        }
        match self.peers.get_mut(&peer) {
            Some(Peer::Active(active)) => {
                let (input, payload) = match packet {
                    Packet::Data(number, payload) => (Input::Data(number, payload.len()), payload),
                    Packet::Ack(number) => (Input::Ack(number), &[][..]),
                    Packet::Error(..) => (Input::PeerError, &[][..]),
                    // Garbage from the peer's port does not end its transfer.
                    _ => return,
                };
                if let Some(number) = active.lost_ack(now, &packet) {
                    return self.shared.wire.packet(&route, &packet::ack(number));
                }
                if let Some(old) = active.give_way(&input) {
                    self.events.push_back(old.replaced());
                    self.events.push_back(active.transfer.requested());
                    active.transfer.inherit(old);
                }
                let end = active.transfer.drive(&mut self.shared, now, input, payload);
                if active.transfer.machine().last_progress() == now {
                    active.moved_on();
                    self.shared.counters.last_progress = Some(now);
                }
                match end {
                    Some(end) => {
                        let said = match packet {
                            Packet::Error(code, text) => Some((code, text)),
                            _ => None,
                        };
                        self.end(now, peer, &end, said);
                    }
                    None => self.due = earlier(self.due, active.due()),
                }
            }
            Some(Peer::Over(linger)) if now < linger.until() => match linger.answer(now, &packet) {
                Reply::Silence => {}
                Reply::Ack(number) => self.shared.wire.packet(&route, &packet::ack(number)),
                Reply::Error(refusal) => self.shared.wire.packet(&route, &refusal.to_packet()),
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
            self.shared.wire.packet(route, &refusal.to_packet());
        }
    }

    fn accepts(&mut self, peer: SocketAddrV4) -> bool {
        self.accept.as_mut().is_none_or(|accept| accept(peer))
    }

    fn request(&mut self, now: Instant, route: Route, octets: &[u8]) {
        let mut restarted = false;
        if let Some(Peer::Active(active)) = self.peers.get_mut(&route.peer) {
            if active.request == octets {
                active.request_again(&mut self.shared, now);
                self.due = earlier(self.due, active.due());
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
        // The peer has begun another transfer.
        if restarted && let Some(old) = self.peers.forget(route.peer) {
            self.events.push_back(old.replaced());
        }
        if !self.defers(route.peer, octets) {
            self.start(now, route, octets);
        }
    }

    fn start(&mut self, now: Instant, route: Route, octets: &[u8]) {
        self.shared.counters.requests += 1;
        let mut asked = None;
        let result = Request::parse(octets).and_then(|request| {
            asked = Some((request.kind, request.name.clone()));
            let name = Name::parse(&request.name)?;
            self.admit(now, route.peer)?;
            self.open(now, route, &request, name, None)
        });
        match result {
            Ok(mut transfer) => {
                let before = match self.peers.get_mut(&route.peer) {
                    Some(Peer::Over(linger)) if now < linger.until() => Some(linger.clone()),
                    _ => None,
                };
                self.events.push_back(transfer.requested());
                let end = transfer.drive(&mut self.shared, now, Input::Begin, &[]);
                self.due = earlier(self.due, transfer.machine().due());
                let active = ActivePeer::new(transfer, octets, before);
                self.peers.begin(route.peer, active);
                if let Some(end) = end {
                    self.end(now, route.peer, &end, None);
                }
            }
            Err(refusal) => {
                self.shared.wire.packet(&route, &refusal.to_packet());
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
        let most_of_peer = self.settings.transfers_of_peer_most;
        let of_peer =
            self.peers.active() >= most_of_peer && self.peers.active_of(peer.ip()) >= most_of_peer;
        if !of_peer && self.peers.active() < self.settings.transfers_most {
            return Ok(());
        }
        let victim = self
            .peers
            .stalled(now, of_peer.then_some(peer.ip()))
            .ok_or(Refusal::new(ErrorCode::NotDefined, "too many transfers"))?;
        if let Some(stalled) = self.peers.forget(victim) {
            let reason = "stalled, and its place was needed";
            self.events
                .push_back(stalled.failed(reason.to_owned(), None));
        }
        Ok(())
    }

    /// Opens the file of a request. `challenger` is the reservation of an upload
    /// beside another one of the same request.
    fn open(
        &mut self,
        now: Instant,
        route: Route,
        request: &Request,
        name: Name,
        challenger: Option<Reservation>,
    ) -> Result<ActiveTransfer, Refusal> {
        match request.kind {
            Kind::Get => {
                let content = self.find(&name)?;
                let terms = Terms::agree(request, Some(content.size()), self.receive_buffer);
                let source = Source::new(content, request.mode, terms.blksize, terms.window);
                Ok(ActiveTransfer::get(now, name, route, terms, source))
            }
            Kind::Put => {
                let Some(tree) = &mut self.put else {
                    return Err(Refusal::new(
                        ErrorCode::AccessViolation,
                        "writing is not allowed",
                    ));
                };
                let reservation = challenger
                    .or_else(|| self.quota.reserve())
                    .ok_or(Refusal::new(ErrorCode::DiskFull, "too many uploads"))?;
                let terms = Terms::agree(request, None, self.receive_buffer);
                let limit = self.settings.upload_most;
                let left = limit.min(self.quota.octets_left());
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
                let upload = (upload, reservation);
                Ok(ActiveTransfer::put(now, name, route, terms, upload, limit))
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
        end: &TransferEnd,
        said: Option<(u16, &[u8])>,
    ) {
        let Some(over) = self.peers.forget(peer) else {
            return;
        };
        let name = over.name.as_str().to_owned();
        let size = over.size();
        let (linger, event) = match (end, over.kind()) {
            (TransferEnd::Complete, Kind::Get) => {
                self.shared.counters.files_sent += 1;
                (Linger::sent(now), Served::Sent { peer, name, size })
            }
            (TransferEnd::Complete, Kind::Put) => {
                self.shared.counters.files_received += 1;
                let root = self.map.put_root().map(PathBuf::from).unwrap_or_default();
                let path = root.join(&name);
                (
                    Linger::stored(now, over.machine().position(), over.terms.timeout),
                    Served::Uploaded {
                        peer,
                        upload: Upload { name, path },
                        size,
                    },
                )
            }
            (TransferEnd::PeerError, _) => {
                let (code, text) = said.unwrap_or_default();
                let text = packet::message(text);
                let reason = format!("the peer gave up: {text} (error {code})");
                (Linger::sent(now), over.failed(reason, None))
            }
            (TransferEnd::Silent, _) => (
                Linger::refused(now, Refusal::new(ErrorCode::NotDefined, "timed out")),
                over.failed("the peer fell silent".to_owned(), None),
            ),
            (TransferEnd::Refused(refusal), _) => (
                Linger::refused(now, refusal.clone()),
                over.failed(refusal.to_string(), Some(refusal.clone())),
            ),
        };
        self.peers.remember(now, peer, linger);
        self.events.push_back(event);
    }

    /// Does what is due by the clock.
    pub fn tick(&mut self, now: Instant) {
        self.due = None;
        let mut over = Vec::new();
        let mut probed = Vec::new();
        for (peer, active) in self.peers.transfers() {
            if active.is_to_be_probed(now) {
                probed.push(peer);
                continue;
            }
            if active.due().is_some_and(|due| now >= due)
                && let Some(end) = active
                    .transfer
                    .drive(&mut self.shared, now, Input::Tick, &[])
            {
                over.push((peer, end));
                continue;
            }
            self.due = earlier(self.due, active.due());
        }
        for (peer, end) in over {
            self.end(now, peer, &end, None);
        }
        for peer in probed {
            self.probe(now, peer);
        }
    }

    /// Asks a peer whether it has begun anew.
    fn probe(&mut self, now: Instant, peer: SocketAddrV4) {
        let Some(Peer::Active(active)) = self.peers.get_mut(&peer) else {
            return;
        };
        let (route, octets) = (active.transfer.route, active.request.clone());
        let reservation = active.transfer.reservation().map(Reservation::challenger);
        let opened = Request::parse(&octets).and_then(|request| {
            let name = Name::parse(&request.name)?;
            self.open(now, route, &request, name, reservation)
        });
        let challenger = opened.ok().and_then(|mut challenger| {
            let end = challenger.drive(&mut self.shared, now, Input::Begin, &[]);
            end.is_none().then_some(challenger)
        });
        if let Some(Peer::Active(active)) = self.peers.get_mut(&peer) {
            active.probed(now, challenger);
            self.due = earlier(self.due, active.due());
        }
    }
}
