//! One transfer with its file: the state machine's wishes, carried out.

use std::sync::Arc;
use std::time::Instant;

use super::again::Again;
use super::map::Name;
use super::options::Terms;
use super::packet::{self, Kind, Packet, Refusal};
use super::post::{self, Segmentation};
use super::quota::{Reservation, UploadQuota};
use super::source::Source;
use super::transfer::{
    Input, Linger, Output, Receiver, Reply, Sender, Timer, Transfer, TransferEnd,
};
use super::tree;
use super::upload::UploadFile;
use crate::sys::udp::{Route, Socket};

/// Counters of a server since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were read, refused ones included.
    pub requests: u64,
    /// Requests beyond [`ServerSettings::requests`](super::ServerSettings::requests), which were
    /// not read.
    pub requests_dropped: u64,
    /// DATA packets sent, repeated ones included.
    pub blocks_sent: u64,
    /// Their payload in octets.
    pub octets_sent: u64,
    /// DATA packets that were stored.
    pub blocks_received: u64,
    /// Their payload in octets.
    pub octets_received: u64,
    /// Files sent as a whole.
    pub files_sent: u64,
    /// Files stored.
    pub files_received: u64,
    /// When a transfer last moved forward, if ever: for a limit on idle time.
    pub last_progress: Option<Instant>,
}

/// The settings that all transfers of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) socket: Socket,
    pub(super) counters: Counters,
    /// Where blocks are put together.
    pub(super) room: Vec<u8>,
    /// Whether finished files are to be on disk before the last ACK.
    pub(super) durable: bool,
    pub(super) quota: Arc<UploadQuota>,
}

/// The file of a transfer.
#[derive(Debug)]
enum Role {
    Get(Source),
    /// Gone when it was stored.
    Put(Option<(UploadFile, Reservation)>),
}

/// One transfer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) kind: Kind,
    pub(super) name: Name,
    pub(super) route: Route,
    pub(super) terms: Terms,
    /// The request as it came, to know it when it comes again.
    pub(super) request: Vec<u8>,
    /// Whether that has happened in the midst of it.
    pub(super) again: Again,
    /// The end of the peer's last transfer, as long as it may still ask about it:
    /// the request of this one may be a late duplicate.
    pub(super) before: Option<Linger>,
    /// Octets of the file: all of them for a GET, those stored for a PUT.
    pub(super) size: u64,
    oack: Option<Vec<u8>>,
    segmentation: Segmentation,
    transfer: Transfer,
    role: Role,
}

const TOTAL: Refusal = Refusal::new(packet::ErrorCode::DiskFull, "uploads larger than the limit");

/// The file of a transfer.
#[derive(Debug)]
pub(super) struct About {
    pub(super) name: Name,
    pub(super) route: Route,
    pub(super) terms: Terms,
    pub(super) request: Vec<u8>,
}

impl Exchange {
    /// A transfer that reads `source`.
    pub(super) fn get(now: Instant, about: About, source: Source) -> Exchange {
        let oack = about.terms.oack();
        let timer = Timer::new(now, about.terms.timeout);
        let sender = Sender::new(timer, about.terms.window, source.last(), oack.is_some());
        let size = source.size();
        Exchange::new(
            Kind::Get,
            about,
            oack,
            size,
            Transfer::Get(sender),
            Role::Get(source),
        )
    }

    /// A transfer that writes `upload`, `limit` octets on the wire at most.
    pub(super) fn put(
        now: Instant,
        about: About,
        upload: (UploadFile, Reservation),
        limit: u64,
    ) -> Exchange {
        let oack = about.terms.oack();
        let timer = Timer::new(now, about.terms.timeout);
        let receiver = Receiver::new(timer, about.terms.blksize, about.terms.window, limit);
        Exchange::new(
            Kind::Put,
            about,
            oack,
            0,
            Transfer::Put(receiver),
            Role::Put(Some(upload)),
        )
    }

    fn new(
        kind: Kind,
        about: About,
        oack: Option<Vec<u8>>,
        size: u64,
        transfer: Transfer,
        role: Role,
    ) -> Exchange {
        Exchange {
            kind,
            name: about.name,
            route: about.route,
            terms: about.terms,
            request: about.request,
            again: Again::No,
            before: None,
            size,
            oack,
            segmentation: Segmentation(true),
            transfer,
            role,
        }
    }

    /// See [`Transfer::due`].
    pub(super) fn due(&self) -> Option<Instant> {
        self.again.put_off(self.transfer.due())
    }

    /// See [`Transfer::expects`].
    pub(super) fn expects(&self, input: &Input) -> bool {
        self.transfer.expects(input)
    }

    /// See [`Transfer::has_begun`].
    pub(super) fn has_begun(&self) -> bool {
        self.transfer.has_begun()
    }

    /// See [`Transfer::last_progress`].
    pub(super) fn last_progress(&self) -> Instant {
        self.transfer.last_progress()
    }

    /// Whether `packet` is the last block of the upload before this one, whose
    /// ACK was lost; that is sent again.
    pub(super) fn is_about_the_last(
        &mut self,
        shared: &Shared,
        now: Instant,
        packet: &Packet<'_>,
    ) -> bool {
        // A window may begin with any of its blocks, if others are lost; else an
        // upload begins with block 1.
        if self.has_begun() || self.terms.window > 1 || matches!(packet, Packet::Data(1, _)) {
            return false;
        }
        let reply = self.before.as_mut().map(|last| last.answer(now, packet));
        let Some(Reply::Ack(number)) = reply else {
            return false;
        };
        post::packet(&shared.socket, &self.route, &packet::ack(number));
        true
    }

    /// The reservation of an upload under way.
    pub(super) fn reservation(&self) -> Option<&Reservation> {
        match &self.role {
            Role::Put(Some((_, reservation))) => Some(reservation),
            _ => None,
        }
    }

    /// Takes the place of `old`, a transfer of the same file.
    pub(super) fn inherit(&mut self, old: Exchange) {
        if let (Role::Put(Some((_, new))), Role::Put(Some((_, old)))) = (&mut self.role, old.role) {
            new.inherit(old);
        }
    }

    /// The block whose ACK was the last one of an upload.
    pub(super) fn last_block(&self) -> u64 {
        match &self.transfer {
            Transfer::Put(receiver) => receiver.received(),
            Transfer::Get(sender) => sender.acknowledged(),
        }
    }

    /// Hands in what happened and does what follows. `payload` is that of the
    /// DATA packet, if it is one. Returns how the transfer ended, once it has.
    pub(super) fn drive(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        input: Input,
        payload: &[u8],
    ) -> Option<TransferEnd> {
        self.transfer.handle(now, input);
        while let Some(output) = self.transfer.poll() {
            let next = match output {
                Output::Accept => {
                    match &self.oack {
                        Some(oack) => post::packet(&shared.socket, &self.route, oack),
                        None => post::packet(&shared.socket, &self.route, &packet::ack(0)),
                    }
                    None
                }
                Output::Data { first, count } => self.send(shared, first, count),
                Output::Ack(number) => {
                    post::packet(&shared.socket, &self.route, &packet::ack(number));
                    None
                }
                Output::Append => self.append(shared, payload),
                Output::Store => Some(self.store(shared)),
                Output::Error(refusal) => {
                    post::packet(&shared.socket, &self.route, &refusal.to_packet());
                    None
                }
                Output::Done(outcome) => return Some(outcome),
            };
            if let Some(input) = next {
                self.transfer.handle(now, input);
            }
        }
        None
    }

    fn send(&mut self, shared: &mut Shared, first: u64, count: u64) -> Option<Input> {
        let Role::Get(source) = &mut self.role else {
            return None;
        };
        let end = first + count;
        let mut at = first;
        while at < end {
            let blocks = match source.blocks(at, end - at, &mut shared.room) {
                Ok(blocks) => blocks,
                Err(refusal) => return Some(Input::Failed(refusal)),
            };
            post::blocks(
                &shared.socket,
                &mut shared.counters,
                &self.route,
                &mut self.segmentation,
                at,
                &blocks,
            );
            at += blocks.count;
            if blocks.last {
                return Some(Input::Last(at - 1));
            }
        }
        None
    }

    fn append(&mut self, shared: &mut Shared, payload: &[u8]) -> Option<Input> {
        let Role::Put(Some((upload, reservation))) = &mut self.role else {
            return None;
        };
        if let Err(error) = upload.append(payload) {
            return Some(Input::Failed(tree::refusal(&error)));
        }
        shared.counters.blocks_received += 1;
        shared.counters.octets_received += payload.len() as u64;
        (!reservation.resize(upload.size())).then_some(Input::Failed(TOTAL))
    }

    fn store(&mut self, shared: &mut Shared) -> Input {
        let Role::Put(upload) = &mut self.role else {
            return Input::Stored;
        };
        let Some((upload, mut reservation)) = upload.take() else {
            return Input::Stored;
        };
        match upload.commit(shared.durable) {
            Ok(size) => {
                // The last octet of a text may have been added just now.
                reservation.resize(size);
                reservation.keep();
                self.size = size;
                Input::Stored
            }
            Err(error) => Input::Failed(tree::refusal(&error)),
        }
    }
}
