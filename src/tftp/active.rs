//! One transfer with its file: carries out what its state machine asks for.

use std::time::Instant;

use super::event::{Counters, Served};
use super::map::Name;
use super::options::Terms;
use super::packet::{self, ErrorCode, Kind, Refusal};
use super::quota::Reservation;
use super::source::Source;
use super::transfer::{Input, Output, Receiver, Sender, Timer, Transfer, TransferEnd};
use super::tree;
use super::upload::UploadFile;
use super::wire::Wire;
use crate::sys::udp::Route;

/// The means that all transfers of a server share.
#[derive(Debug)]
pub(super) struct Shared<W> {
    pub(super) wire: W,
    pub(super) counters: Counters,
    /// The buffer in which blocks are put together.
    pub(super) scratch: Vec<u8>,
}

/// A state machine and its file.
#[derive(Debug)]
pub(super) enum Role {
    Get(Sender, Source),
    Put(Receiver, PutFile),
}

/// The file of a PUT.
#[derive(Debug)]
pub(super) enum PutFile {
    Writing(UploadFile, Reservation),
    /// It is in place.
    Stored(UploadFile),
    /// It could not be put in place.
    Failed,
}

/// One transfer.
#[derive(Debug)]
pub(super) struct ActiveTransfer {
    pub(super) name: Name,
    pub(super) route: Route,
    pub(super) terms: Terms,
    oack: Option<Vec<u8>>,
    /// Whether the route takes batches that the kernel cuts.
    segmented: bool,
    role: Role,
}

const TOTAL: Refusal = Refusal::new(ErrorCode::DiskFull, "uploads larger than the limit");

impl ActiveTransfer {
    /// The event of its begin.
    pub(super) fn requested(&self) -> Served {
        Served::Requested {
            peer: self.route.peer,
            kind: self.kind(),
            name: self.name.as_str().to_owned(),
        }
    }

    /// The event of its end without its file.
    pub(super) fn failed(&self, reason: String, refusal: Option<Refusal>) -> Served {
        Served::Failed {
            peer: self.route.peer,
            kind: self.kind(),
            name: self.name.as_str().to_owned(),
            reason,
            refusal,
        }
    }

    /// The event of its end because its peer has begun another one.
    pub(super) fn replaced(&self) -> Served {
        self.failed("the peer began another transfer".to_owned(), None)
    }

    /// A transfer that reads `source`.
    pub(super) fn get(
        now: Instant,
        name: Name,
        route: Route,
        terms: Terms,
        source: Source,
    ) -> ActiveTransfer {
        let oack = !terms.answer.is_empty();
        let timer = Timer::new(now, terms.timeout);
        let sender = Sender::new(timer, terms.window, source.last(), oack);
        ActiveTransfer::new(name, route, terms, Role::Get(sender, source))
    }

    /// A transfer that writes `upload`, `limit` octets on the wire at most.
    pub(super) fn put(
        now: Instant,
        name: Name,
        route: Route,
        terms: Terms,
        upload: (UploadFile, Reservation),
        limit: u64,
    ) -> ActiveTransfer {
        let timer = Timer::new(now, terms.timeout);
        let receiver = Receiver::new(timer, terms.blksize, terms.window, limit);
        let role = Role::Put(receiver, PutFile::Writing(upload.0, upload.1));
        ActiveTransfer::new(name, route, terms, role)
    }

    fn new(name: Name, route: Route, terms: Terms, role: Role) -> ActiveTransfer {
        ActiveTransfer {
            name,
            route,
            oack: terms.oack(),
            terms,
            segmented: true,
            role,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.role {
            Role::Get(..) => Kind::Get,
            Role::Put(..) => Kind::Put,
        }
    }

    /// The state machine.
    pub(super) fn machine(&self) -> &dyn Transfer {
        match &self.role {
            Role::Get(sender, _) => sender,
            Role::Put(receiver, _) => receiver,
        }
    }

    fn machine_mut(&mut self) -> &mut dyn Transfer {
        match &mut self.role {
            Role::Get(sender, _) => sender,
            Role::Put(receiver, _) => receiver,
        }
    }

    /// Octets of the file: all of them for a GET, those stored for a PUT.
    pub(super) fn size(&self) -> u64 {
        match &self.role {
            Role::Get(_, source) => source.size(),
            Role::Put(_, PutFile::Stored(file)) => file.size(),
            Role::Put(..) => 0,
        }
    }

    /// The reservation of an upload under way.
    pub(super) fn reservation(&self) -> Option<&Reservation> {
        match &self.role {
            Role::Put(_, PutFile::Writing(_, reservation)) => Some(reservation),
            _ => None,
        }
    }

    /// Takes the place of `old`, a transfer for the same request.
    pub(super) fn inherit(&mut self, old: ActiveTransfer) {
        if let Role::Put(_, PutFile::Writing(_, new)) = &mut self.role
            && let Role::Put(_, PutFile::Writing(_, old)) = old.role
        {
            new.inherit(old);
        }
    }

    /// Hands in what happened and does what follows. `payload` is that of the
    /// DATA packet, if it is one. Returns how the transfer ended, once it has.
    pub(super) fn drive<W: Wire>(
        &mut self,
        shared: &mut Shared<W>,
        now: Instant,
        input: Input,
        payload: &[u8],
    ) -> Option<TransferEnd> {
        self.machine_mut().handle(now, input);
        while let Some(output) = self.machine_mut().poll() {
            let wire = &mut shared.wire;
            let next = match output {
                Output::Accept => {
                    match &self.oack {
                        Some(oack) => wire.packet(&self.route, oack),
                        None => wire.packet(&self.route, &packet::ack(0)),
                    }
                    None
                }
                Output::Data { first, count } => self.send(shared, first, count),
                Output::Ack(number) => {
                    wire.packet(&self.route, &packet::ack(number));
                    None
                }
                Output::Append => self.append(shared, payload),
                Output::Store => Some(self.store()),
                Output::Error(refusal) => {
                    wire.packet(&self.route, &refusal.to_packet());
                    None
                }
                Output::Done(end) => return Some(end),
            };
            if let Some(input) = next {
                self.machine_mut().handle(now, input);
            }
        }
        None
    }

    fn send<W: Wire>(&mut self, shared: &mut Shared<W>, first: u64, count: u64) -> Option<Input> {
        let Role::Get(_, source) = &mut self.role else {
            return None;
        };
        let end = first + count;
        let mut at = first;
        while at < end {
            let blocks = match source.blocks(at, end - at, &mut shared.scratch) {
                Ok(blocks) => blocks,
                Err(refusal) => return Some(Input::Failed(refusal)),
            };
            shared.counters.blocks_sent += blocks.count;
            shared.counters.octets_sent += blocks.payload.len() as u64;
            let wire = &mut shared.wire;
            wire.blocks(&self.route, at, &blocks, &mut self.segmented);
            at += blocks.count;
            if blocks.last {
                return Some(Input::Last(at - 1));
            }
        }
        None
    }

    fn append<W>(&mut self, shared: &mut Shared<W>, payload: &[u8]) -> Option<Input> {
        let Role::Put(_, PutFile::Writing(file, reservation)) = &mut self.role else {
            return None;
        };
        if let Err(error) = file.append(payload) {
            return Some(Input::Failed(tree::refusal(&error)));
        }
        shared.counters.blocks_received += 1;
        shared.counters.octets_received += payload.len() as u64;
        (!reservation.resize(file.size())).then_some(Input::Failed(TOTAL))
    }

    fn store(&mut self) -> Input {
        let Role::Put(_, upload) = &mut self.role else {
            return Input::Stored;
        };
        let PutFile::Writing(mut file, mut reservation) =
            std::mem::replace(upload, PutFile::Failed)
        else {
            return Input::Stored;
        };
        match file.commit() {
            Ok(()) => {
                // The last octet of a text may have been added just now.
                reservation.resize(file.size());
                reservation.keep();
                *upload = PutFile::Stored(file);
                Input::Stored
            }
            Err(error) => Input::Failed(tree::refusal(&error)),
        }
    }
}
