//! The TFTP server: everything between agent and guest goes through it.
//!
//! | what | source | where |
//! |---|---|---|
//! | packets, modes, error codes | RFC 1350 | [`packet`] |
//! | retransmission, Sorcerer's Apprentice, broadcast | RFC 1123 §4.2.3 | [`transfer`], [`TftpServer`] |
//! | options and their acknowledgement | RFC 2347 | [`options`] |
//! | blksize; timeout and tsize; windowsize | RFC 2348; 2349; 7440 | [`options`] |
//!
//! [`packet`], [`options`], [`netascii`], [`map`], [`rate`] and [`transfer`] are
//! pure: no socket, no file, no clock. [`source`], [`tree`] and [`upload`] are the files.
//! [`dispatch`] brings both together and is tested without socket and clock;
//! [`TftpServer`] has these.
//!
//! Unlike RFC 1350's server, this one answers from the port on which it listens:
//! behind the redirect a reply from another port does not reach a strict client.
//! A transfer is therefore known by its peer's address and port.

mod active;
pub mod dispatch;
mod event;
pub mod map;
pub mod netascii;
pub mod options;
pub mod packet;
mod peers;
mod quota;
pub mod rate;
mod server;
pub mod source;
pub mod transfer;
pub mod tree;
pub mod upload;
pub mod wire;

use std::time::Instant;

pub use event::{Accept, Counters, DeferredRequest, Served, ServerSettings, Upload};
pub use map::{Map, Name};
pub use packet::{ErrorCode, Kind, Refusal};
pub use rate::Rate;
pub use server::TftpServer;
pub use tree::{is_our_disks, is_our_failure};

/// The earlier of two instants that may not exist.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
