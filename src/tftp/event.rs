//! The limits that a server is given, its events and its counters.

use std::fs::File;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Instant;

use super::packet::{Kind, Refusal};
use super::rate::Rate;
use crate::error::{Context as _, Result};
use crate::sys::file::read_at_most;

/// Whether requests of a peer are to be served; the others get silence.
pub type Accept = Box<dyn FnMut(SocketAddrV4) -> bool + Send>;

/// The limits of a server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Octets of one upload, on the wire.
    pub upload_most: u64,
    /// Octets of all uploads together, those under way included.
    pub uploads_octets_most: u64,
    /// Uploads accepted in all.
    pub uploads_most: u64,
    /// Requests of all peers together, those that only come again aside. `None`
    /// is no limit.
    pub requests: Option<Rate>,
    /// Transfers at once. One more is refused, unless there is one that has
    /// stalled.
    pub transfers_most: usize,
    /// The same for those of one address.
    pub transfers_of_peer_most: usize,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            upload_most: u64::MAX,
            uploads_octets_most: u64::MAX,
            uploads_most: u64::MAX,
            requests: None,
            transfers_most: 512,
            transfers_of_peer_most: 128,
        }
    }
}

/// Why [`serve`](super::TftpServer::serve) returned.
#[derive(Clone, Debug, PartialEq)]
pub enum Served {
    /// A request was accepted, and its transfer has begun.
    Requested {
        /// The peer.
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
        /// The file.
        upload: Upload,
        /// Its size in octets.
        size: u64,
    },
    /// A request was refused.
    Refused {
        /// The peer.
        peer: SocketAddrV4,
        /// For what: `None` if not even that could be read.
        request: Option<(Kind, String)>,
        /// The refusal that the peer got.
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
        /// The refusal that the peer got, if the server ended the transfer.
        refusal: Option<Refusal>,
    },
    /// A request for a deferred file of the [`Map`](super::Map) was not answered.
    Deferred(DeferredRequest),
    /// The deadline has passed.
    Deadline,
    /// The descriptor of this index is readable (or in error).
    Ready(usize),
}

impl Served {
    /// The upload of a file by one of `names`, if that is what has happened.
    pub fn upload(&self, names: &[&str]) -> Option<Upload> {
        match self {
            Served::Uploaded { upload, .. } if names.contains(&upload.name.as_str()) => {
                Some(upload.clone())
            }
            _ => None,
        }
    }
}

/// A file that a peer has written, which is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its name in the request.
    pub name: String,
    /// The put directory with the name.
    pub path: PathBuf,
}

impl Upload {
    /// Opens the file.
    pub fn open(&self) -> Result<File> {
        File::open(&self.path).context(|| format!("unable to open upload {}", self.path.display()))
    }

    /// Reads the file, `limit` octets at most; more are an error.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>> {
        let what = || format!("unable to read upload {}", self.path.display());
        read_at_most(&mut self.open()?, limit).context(what)
    }
}

/// A request that another server is going to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeferredRequest {
    /// The peer.
    pub peer: SocketAddrV4,
    /// The packet.
    pub octets: Vec<u8>,
}

/// Counters of a server since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were read, refused ones included.
    pub requests: u64,
    /// Requests beyond [`ServerSettings::requests`], which were not read.
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
