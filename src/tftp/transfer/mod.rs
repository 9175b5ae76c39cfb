//! One transfer as a state machine: no socket, no file, no clock.
//!
//! ```text
//!           GET                                  PUT
//!   RRQ ──► DATA 1 ◄─┐ timer,              WRQ ──► ACK 0 ◄─┐ timer
//!    │        │ ACK n│ repeated ACK         │        │ DATA │
//!    ▼        ▼      │ in a window          ▼        ▼      │
//!   OACK ─► DATA n ──┘                     OACK ─► ACK per window or gap
//!             │ ACK of the last                      │ last DATA
//!             ▼                                      ▼
//!           done                                   store ─► last ACK ─► done
//! ```
//!
//! The caller hands in what happened by `handle(now, input)`, then takes what is
//! to be done by `poll()` until there is nothing, and comes back at `due()` if
//! nothing else happens before. [`Linger`] is the memory of a transfer that is over:
//! it answers a peer that still sends packets.

mod linger;
mod receive;
mod send;
mod timer;

use std::time::Instant;

pub use linger::{Linger, Reply};
pub use receive::Receiver;
pub use send::Sender;
use timer::FIRST_INTERVAL;
pub use timer::{Timer, TimerDecision};

use super::packet::{ErrorCode, Refusal};

/// An input of the state machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// The transfer was just set up: say so to the peer.
    Begin,
    /// An ACK came in.
    Ack(u16),
    /// A DATA came in, with so many octets.
    Data(u16, usize),
    /// An ERROR came in.
    PeerError,
    /// The peer sent its request once more.
    RequestAgain,
    /// Time has passed.
    Tick,
    /// The block of this number is the last one (told by who reads the file,
    /// where its size on the wire was not known before).
    Last(u64),
    /// The action of [`Output::Store`] is done.
    Stored,
    /// The action failed; the peer gets the refusal.
    Failed(Refusal),
}

/// An output of the state machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send the OACK (or, of an upload without options, ACK 0).
    Accept,
    /// Send so many blocks from this one on, each once.
    Data {
        /// The number of the first one; blocks count from 1 and never wrap.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Send an ACK for this block.
    Ack(u64),
    /// The payload that was just handed in belongs at the end of the file.
    Append,
    /// The file is whole: make it visible, then hand in [`Input::Stored`].
    Store,
    /// Send an ERROR.
    Error(Refusal),
    /// The transfer is over. Nothing follows.
    Done(TransferEnd),
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq)]
pub enum TransferEnd {
    /// The peer has, or we have, the whole file.
    Complete,
    /// The peer sent an ERROR.
    PeerError,
    /// The peer fell silent.
    Silent,
    /// We refused to go on.
    Refused(Refusal),
}

/// The refusal for a peer that was silent for too long.
const SILENCE: Refusal = Refusal::new(ErrorCode::NotDefined, "timed out");

/// The state machine of a transfer: [`Sender`] for a GET, [`Receiver`] for a PUT.
pub trait Transfer: std::fmt::Debug {
    /// Takes note of what happened at `now`.
    fn handle(&mut self, now: Instant, input: Input);

    /// The next thing to be done, if any.
    fn poll(&mut self) -> Option<Output>;

    /// When to hand in [`Input::Tick`], if nothing happens before.
    fn due(&self) -> Option<Instant>;

    /// Whether `input` is a packet that moves the transfer forward, or tells where
    /// it stands.
    fn expects(&self, input: &Input) -> bool;

    /// Whether the peer has answered the first packet yet.
    fn has_begun(&self) -> bool;

    /// The last block that the peer has acknowledged, or that came in order.
    fn position(&self) -> u64;

    /// When the peer last moved the transfer forward.
    fn last_progress(&self) -> Instant;
}
