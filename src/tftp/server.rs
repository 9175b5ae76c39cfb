//! The socket, the clock, and who gets what.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use super::exchange::{About, Counters, Exchange, Shared};
use super::map::{Map, Name};
use super::options::Terms;
use super::packet::{self, ErrorCode, Kind, Packet, Refusal, Request};
use super::post;
use super::source::{Content, Source};
use super::transfer::{Input, Linger, Outcome, Reply};
use super::tree::{self, Tree};
use super::upload::Upload;
use crate::error::{Context as _, Result};
use crate::sys::poll;
use crate::sys::udp::{Datagram, Inbox, Route, SLOT, Socket};

/// What is asked of the system for the receive buffer, in octets: two windows of
/// the largest blocks. Only what comes in is charged.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The same for the send buffer: a window of the largest blocks.
const SEND_BUFFER: usize = 4 << 20;
/// Datagrams taken by one system call.
const BATCH: usize = 32;
/// Ends of transfers that are remembered.
const LINGER_MOST: usize = 256;
/// A transfer may be given up for another one after so long without progress.
const STALLED: Duration = Duration::from_secs(5);
/// How long a request that comes again in the midst of its transfer may turn out
/// to be a late duplicate, before it is taken for the start of another one.
const AGAIN: Duration = Duration::from_millis(250);

/// Whether requests of a peer are to be served; the others get silence.
pub type Accept = Box<dyn FnMut(SocketAddrV4) -> bool + Send>;

/// The limits of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Octets of one upload, on the wire.
    pub upload_most: u64,
    /// Octets of all uploads together, those under way included.
    pub uploads_octets_most: u64,
    /// Uploads accepted in all.
    pub uploads_most: u64,
    /// Transfers at once.
    pub transfers_most: usize,
    /// Transfers of one address at once.
    pub transfers_of_peer_most: usize,
    /// Whether a file is to be on disk before its last ACK (fsync(2) of file and
    /// directory).
    pub durable: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            upload_most: u64::MAX,
            uploads_octets_most: u64::MAX,
            uploads_most: u64::MAX,
            transfers_most: 512,
            transfers_of_peer_most: 256,
            durable: false,
        }
    }
}

/// Why [`TftpServer::serve`] returned.
#[derive(Clone, Debug, PartialEq)]
pub enum Served {
    /// A request was accepted, and its transfer has begun.
    Requested {
        /// Who asked.
        peer: SocketAddrV4,
        /// For what.
        kind: Kind,
        /// The name, without leading slashes.
        name: String,
    },
    /// A peer has read a file.
    Sent {
        /// Who.
        peer: SocketAddrV4,
        /// What.
        name: String,
        /// Its size in octets.
        size: u64,
    },
    /// A peer has written a file, which is in place.
    Uploaded {
        /// Who.
        peer: SocketAddrV4,
        /// What.
        name: String,
        /// Where: the put directory with the name.
        path: PathBuf,
        /// Its size in octets.
        size: u64,
    },
    /// A request was refused.
    Refused {
        /// Who asked.
        peer: SocketAddrV4,
        /// For what: `None` if not even that could be read.
        request: Option<(Kind, String)>,
        /// What the peer was told.
        refusal: Refusal,
    },
    /// A transfer has begun but came to nothing.
    Failed {
        /// Whose.
        peer: SocketAddrV4,
        /// Of what kind.
        kind: Kind,
        /// Of which file.
        name: String,
        /// Why.
        reason: String,
    },
    /// The deadline has passed.
    Deadline,
    /// The descriptor of this index is readable (or in error).
    Ready(usize),
}

/// What is known of a peer.
#[derive(Debug)]
enum Peer {
    Active(Box<Exchange>),
    Over(Linger),
}

/// A TFTP server on one socket, driven by calls of [`TftpServer::serve`].
///
/// Transfers, and the memory of those that are over, live on from call to call.
/// Dropped, it closes the socket and drops uploads under way.
#[derive(Debug)]
pub struct TftpServer {
    inbox: Inbox,
    core: Core,
}

/// All but the inbox, so that a datagram in that can be borrowed meanwhile.
struct Core {
    shared: Shared,
    config: Config,
    map: Map,
    get: Vec<Tree>,
    put: Option<Tree>,
    accept: Option<Accept>,
    receive_buffer: u64,
    peers: HashMap<SocketAddrV4, Peer>,
    active: usize,
    uploads: u64,
    /// No transfer is due before this.
    due: Option<Instant>,
    events: VecDeque<Served>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("config", &self.config)
            .field("map", &self.map)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl TftpServer {
    /// Listens on `address`; port 0 takes any free one. Until it is given a
    /// [`Map`], it refuses every request.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made or bound.
    pub fn bind(address: SocketAddrV4, config: Config) -> Result<TftpServer> {
        let socket =
            Socket::bind(address).context(|| format!("unable to listen on udp {address}"))?;
        let receive_buffer = socket
            .set_buffers(RECEIVE_BUFFER, SEND_BUFFER)
            .context(|| format!("unable to set up udp {address}"))?;
        Ok(TftpServer {
            inbox: Inbox::new(BATCH),
            core: Core {
                shared: Shared {
                    socket,
                    counters: Counters::default(),
                    room: vec![0; SLOT],
                    durable: config.durable,
                    upload_octets: 0,
                    upload_octets_most: config.uploads_octets_most,
                },
                config,
                map: Map::new(),
                get: Vec::new(),
                put: None,
                accept: None,
                receive_buffer: receive_buffer as u64,
                peers: HashMap::new(),
                active: 0,
                uploads: 0,
                due: None,
                events: VecDeque::new(),
            },
        })
    }

    /// The address on which it listens.
    ///
    /// # Errors
    ///
    /// When the system does not say, which is not known to happen.
    pub fn local_addr(&self) -> Result<SocketAddrV4> {
        self.core
            .shared
            .socket
            .local_address()
            .context(|| "unable to get the address of the tftp socket")
    }

    /// Where requests lead from now on. Transfers under way go on.
    pub fn set_map(&mut self, map: Map) {
        self.core.get = map.get_roots().iter().cloned().map(Tree::new).collect();
        self.core.put = map.put_root().map(|root| Tree::new(root.to_owned()));
        self.core.map = map;
    }

    /// Who is served from now on; everybody, if this is never called. Asked for
    /// each packet that belongs to no transfer.
    pub fn set_accept(&mut self, accept: Accept) {
        self.core.accept = Some(accept);
    }

    /// What went through so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.core.shared.counters
    }

    /// How many transfers are under way.
    #[must_use]
    pub fn active(&self) -> usize {
        self.core.active
    }

    /// Serves until something happened that the caller may want to know, until
    /// `deadline`, or until one of `others` is readable; whichever of these is
    /// true is told one at a time, events of transfers first.
    ///
    /// A deadline in the past serves what has come in and returns.
    ///
    /// # Errors
    ///
    /// When the system cannot wait, or the socket is broken. What peers do is
    /// never an error.
    pub fn serve(
        &mut self,
        deadline: Option<Instant>,
        others: &[BorrowedFd<'_>],
    ) -> Result<Served> {
        const WAIT: &str = "unable to wait for tftp requests";

        if let Some(event) = self.core.events.pop_front() {
            return Ok(event);
        }
        // Datagrams taken at a time: as many as there were last time, and more
        // if that was all that was asked for. In lock-step this is one.
        let mut most = 1;
        loop {
            let until = match (self.core.due, deadline) {
                (Some(due), Some(deadline)) => Some(due.min(deadline)),
                (due, deadline) => due.or(deadline),
            };
            let (readable, ready) = {
                let mut set: Vec<PollFd<'_>> = Vec::with_capacity(1 + others.len());
                set.push(PollFd::new(
                    self.core.shared.socket.as_fd(),
                    PollFlags::POLLIN,
                ));
                set.extend(others.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
                poll::wait(&mut set, until).context(|| WAIT)?;
                let mut ready = set.iter().map(|fd| fd.any().unwrap_or(true));
                (ready.next() == Some(true), ready.position(|ready| ready))
            };
            let now = Instant::now();
            if readable {
                match self.inbox.receive(&self.core.shared.socket, most) {
                    Ok(count) => {
                        most = if count == most {
                            BATCH.min(most * 4)
                        } else {
                            count.max(1)
                        };
                        for index in 0..count {
                            if let Some(datagram) = self.inbox.get(index) {
                                self.core.take(now, &datagram);
                            }
                        }
                    }
                    // Errors of a moment (no memory, an ICMP report) pass.
                    Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => {
                        return Err(error).context(|| "unable to receive tftp packets");
                    }
                    Err(_) => {}
                }
            }
            if self.core.due.is_some_and(|due| now >= due) {
                self.core.tick(now);
            }
            if let Some(event) = self.core.events.pop_front() {
                return Ok(event);
            }
            if let Some(index) = ready {
                return Ok(Served::Ready(index));
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(Served::Deadline);
            }
        }
    }
}

impl Core {
    /// Acts upon what is in one slot of the inbox.
    fn take(&mut self, now: Instant, datagram: &Datagram<'_>) {
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
        match datagram.segment {
            Some(segment) => {
                for octets in datagram.octets.chunks(segment) {
                    self.packet(now, route, octets);
                }
            }
            None => self.packet(now, route, datagram.octets),
        }
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
                let outcome = exchange.drive(&mut self.shared, now, input, payload);
                if exchange.last_progress() == now {
                    exchange.again = None;
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
        if let Some(Peer::Active(exchange)) = self.peers.get_mut(&route.peer) {
            if exchange.request == octets {
                if exchange.has_begun() {
                    exchange.again.get_or_insert(now + AGAIN);
                } else {
                    exchange.drive(&mut self.shared, now, Input::RequestAgain, &[]);
                }
                self.due = earlier(self.due, exchange.due());
                return;
            }
            // The peer was restarted; it does not wait for the old transfer.
            self.replace(route.peer);
        } else if !self.accepts(route.peer) {
            return;
        }
        self.start(now, route, octets);
    }

    /// Ends the transfer of a peer that has begun another one.
    fn replace(&mut self, peer: SocketAddrV4) {
        if let Some(exchange) = self.forget(peer) {
            self.events.push_back(Served::Failed {
                peer,
                kind: exchange.kind,
                name: exchange.name.as_str().to_owned(),
                reason: "the peer began another transfer".to_owned(),
            });
        }
    }

    /// Takes the transfer of a peer away.
    fn forget(&mut self, peer: SocketAddrV4) -> Option<Box<Exchange>> {
        match self.peers.remove(&peer) {
            Some(Peer::Active(exchange)) => {
                self.active -= 1;
                if exchange.kind == Kind::Put && !exchange.stored {
                    self.uploads -= 1;
                }
                self.shared.upload_octets -= exchange.pending_octets();
                Some(exchange)
            }
            _ => None,
        }
    }

    fn start(&mut self, now: Instant, route: Route, octets: &[u8]) {
        self.shared.counters.requests += 1;
        let mut asked = None;
        let result = Request::parse(octets).and_then(|request| {
            asked = Some((request.kind, request.name.clone()));
            let name = Name::parse(&request.name)?;
            self.admit(now, route.peer)?;
            self.open(now, route, octets, &request, name)
        });
        match result {
            Ok(mut exchange) => {
                self.events.push_back(Served::Requested {
                    peer: route.peer,
                    kind: exchange.kind,
                    name: exchange.name.as_str().to_owned(),
                });
                let outcome = exchange.drive(&mut self.shared, now, Input::Begin, &[]);
                self.due = earlier(self.due, exchange.due());
                self.peers
                    .insert(route.peer, Peer::Active(Box::new(exchange)));
                self.active += 1;
                if let Some(outcome) = outcome {
                    self.end(now, route.peer, &outcome, None);
                }
            }
            Err(refusal) => {
                post::packet(&self.shared.socket, &route, &refusal.to_packet());
                self.linger(now, route.peer, Linger::refused(now, refusal.clone()));
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
        let of_peer = if self.active < self.config.transfers_of_peer_most {
            false
        } else {
            let same = self.peers.iter().filter(|(other, known)| {
                other.ip() == peer.ip() && matches!(known, Peer::Active(_))
            });
            same.count() >= self.config.transfers_of_peer_most
        };
        if !of_peer && self.active < self.config.transfers_most {
            return Ok(());
        }
        // The one that never got an answer first, then the one that waits for
        // its peer longest.
        let victim = self
            .peers
            .iter()
            .filter_map(|(other, known)| match known {
                Peer::Active(exchange) if !of_peer || other.ip() == peer.ip() => {
                    let begun = exchange.has_begun();
                    let progress = exchange.last_progress();
                    let stalled = !begun || now.saturating_duration_since(progress) >= STALLED;
                    stalled.then_some((begun, progress, *other))
                }
                _ => None,
            })
            .min();
        let Some((_, _, victim)) = victim else {
            return Err(Refusal::new(ErrorCode::NotDefined, "too many transfers"));
        };
        if let Some(exchange) = self.forget(victim) {
            self.events.push_back(Served::Failed {
                peer: victim,
                kind: exchange.kind,
                name: exchange.name.as_str().to_owned(),
                reason: "stalled, and its place was needed".to_owned(),
            });
        }
        Ok(())
    }

    fn open(
        &mut self,
        now: Instant,
        route: Route,
        octets: &[u8],
        request: &Request,
        name: Name,
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
                if self.uploads >= self.config.uploads_most {
                    return Err(Refusal::new(ErrorCode::DiskFull, "too many uploads"));
                }
                let terms = Terms::agree(request, None, self.receive_buffer);
                let limit = self.config.upload_most;
                let left = self
                    .config
                    .uploads_octets_most
                    .saturating_sub(self.shared.upload_octets);
                if terms.announced.is_some_and(|size| size > limit.min(left)) {
                    return Err(Refusal::new(
                        ErrorCode::DiskFull,
                        "file larger than the limit",
                    ));
                }
                let place = tree.place(&name)?;
                let upload =
                    Upload::create(place, request.mode).map_err(|error| tree::refusal(&error))?;
                if terms.announced.is_some_and(|size| !upload.has_room(size)) {
                    return Err(Refusal::new(ErrorCode::DiskFull, "disk full"));
                }
                self.uploads += 1;
                let about = About {
                    name,
                    route,
                    terms,
                    request: octets.to_vec(),
                };
                Ok(Exchange::put(now, about, upload, limit))
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
        outcome: &Outcome,
        said: Option<(u16, &[u8])>,
    ) {
        let Some(exchange) = self.forget(peer) else {
            return;
        };
        let name = exchange.name.as_str().to_owned();
        let linger = match (outcome, exchange.kind) {
            (Outcome::Complete, Kind::Put) => {
                Linger::stored(now, exchange.last_block(), exchange.terms.timeout)
            }
            (Outcome::Complete, Kind::Get) | (Outcome::PeerError, _) => Linger::sent(now),
            (Outcome::Silent, _) => {
                Linger::refused(now, Refusal::new(ErrorCode::NotDefined, "timed out"))
            }
            (Outcome::Refused(refusal), _) => Linger::refused(now, refusal.clone()),
        };
        self.linger(now, peer, linger);
        let failed = |reason: String| Served::Failed {
            peer,
            kind: exchange.kind,
            name: name.clone(),
            reason,
        };
        let event = match outcome {
            Outcome::Complete if exchange.kind == Kind::Get => {
                self.shared.counters.files_sent += 1;
                Served::Sent {
                    peer,
                    name: name.clone(),
                    size: exchange.size,
                }
            }
            Outcome::Complete => {
                self.shared.counters.files_received += 1;
                let root = self.map.put_root().map(PathBuf::from).unwrap_or_default();
                Served::Uploaded {
                    peer,
                    path: root.join(&name),
                    name: name.clone(),
                    size: exchange.size,
                }
            }
            Outcome::PeerError => {
                let (code, text) = said.unwrap_or_default();
                let text = packet::message(text);
                failed(format!("the peer gave up: {text} (error {code})"))
            }
            Outcome::Silent => failed("the peer fell silent".to_owned()),
            Outcome::Refused(refusal) => failed(refusal.to_string()),
        };
        self.events.push_back(event);
    }

    fn linger(&mut self, now: Instant, peer: SocketAddrV4, linger: Linger) {
        // A refused request has no transfer to lose here, but may have followed
        // one that has.
        if self.peers.len() - self.active >= LINGER_MOST {
            self.peers
                .retain(|_, known| !matches!(known, Peer::Over(linger) if linger.until() <= now));
            if self.peers.len() - self.active >= LINGER_MOST {
                let oldest = self
                    .peers
                    .iter()
                    .filter_map(|(peer, known)| match known {
                        Peer::Over(linger) => Some((linger.until(), *peer)),
                        Peer::Active(_) => None,
                    })
                    .min();
                if let Some((_, oldest)) = oldest {
                    self.peers.remove(&oldest);
                }
            }
        }
        self.peers.insert(peer, Peer::Over(linger));
    }

    /// Does what is due by the clock.
    fn tick(&mut self, now: Instant) {
        self.due = None;
        let mut over = Vec::new();
        let mut again = Vec::new();
        for (peer, known) in &mut self.peers {
            let Peer::Active(exchange) = known else {
                continue;
            };
            if exchange.again.is_some_and(|at| now >= at) {
                again.push(*peer);
                continue;
            }
            if exchange.due().is_some_and(|due| now >= due)
                && let Some(outcome) = exchange.drive(&mut self.shared, now, Input::Tick, &[])
            {
                over.push((*peer, outcome));
                continue;
            }
            self.due = earlier(self.due, exchange.due());
        }
        for (peer, outcome) in over {
            self.end(now, peer, &outcome, None);
        }
        for peer in again {
            if let Some(Peer::Active(exchange)) = self.peers.get_mut(&peer) {
                let route = exchange.route;
                let octets = std::mem::take(&mut exchange.request);
                self.replace(peer);
                self.start(now, route, &octets);
            }
        }
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
