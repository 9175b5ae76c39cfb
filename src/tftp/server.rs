//! The socket, the clock, and who gets what.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use super::dispatch::{Core, earlier};
use super::exchange::{Counters, Shared};
use super::map::Map;
use super::packet::{Kind, Refusal};
use super::peers::Peers;
use super::quota::UploadQuota;
use super::rate::{Bucket, Rate};
use super::tree::Tree;
use crate::error::{Context as _, Result};
use crate::sys::inbox::Inbox;
use crate::sys::poll;
use crate::sys::udp::{SLOT, Socket};

/// The requested size of the receive buffer, in octets: two windows of the largest
/// blocks. Only received datagrams are charged.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The same for the send buffer: a window of the largest blocks.
const SEND_BUFFER: usize = 4 << 20;
/// Datagrams taken by one system call, and octets of large ones: more would be
/// out of the processor's cache again before they are written.
const BATCH: usize = 32;
const BATCH_OCTETS: usize = 128 << 10;
/// Descriptors that are polled without allocating.
const FEW: usize = 8;
/// Within a transfer the next packet is about to come, and is waited for by
/// receiving it, without polling first: a third of the system calls of a
/// lock-step transfer. For so long other descriptors and the deadline may have to
/// wait, and a tick of the kernel's clock longer.
const HOT: Duration = Duration::from_millis(5);
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
    /// Whether a file is to be on disk before its last ACK (fsync(2) of file and
    /// directory).
    pub durable: bool,
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
            durable: false,
        }
    }
}

/// Why [`TftpServer::serve`] returned.
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
        /// What.
        name: String,
        /// Where: the put directory with the name.
        path: PathBuf,
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
    /// The deadline has passed.
    Deadline,
    /// The descriptor of this index is readable (or in error).
    Ready(usize),
}

/// A TFTP server on one socket, driven by calls of [`TftpServer::serve`].
///
/// Transfers, and the memory of those that are over, live on from call to call.
/// Dropped, it closes the socket and drops uploads under way.
#[derive(Debug)]
pub struct TftpServer {
    inbox: Inbox,
    /// Datagrams to take next time.
    most: usize,
    /// Until when the next packet is waited for by receiving it, without polling
    /// first.
    hot: Option<Instant>,
    core: Core,
}

impl TftpServer {
    /// Listens on `address`; port 0 takes any free one. Until it is given a
    /// [`Map`], it refuses every request.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made or bound.
    pub fn bind(address: SocketAddrV4, config: ServerSettings) -> Result<TftpServer> {
        let socket =
            Socket::bind(address).context(|| format!("unable to listen on udp {address}"))?;
        let receive_buffer = socket
            .set_buffers(RECEIVE_BUFFER, SEND_BUFFER)
            .context(|| format!("unable to set up udp {address}"))?;
        let requests = config.requests;
        Ok(TftpServer {
            inbox: Inbox::new(BATCH, address.ip().is_unspecified()),
            most: 1,
            hot: None,
            core: Core {
                shared: Shared {
                    socket,
                    counters: Counters::default(),
                    room: vec![0; SLOT],
                    durable: config.durable,
                    quota: UploadQuota::new(config.uploads_most, config.uploads_octets_most),
                },
                config,
                map: Map::new(),
                get: Vec::new(),
                put: None,
                accept: None,
                receive_buffer: receive_buffer as u64,
                peers: Peers::default(),
                bucket: requests.map(Bucket::new),
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

    /// Sets the filter of peers; without one, all are served. It is called for each
    /// packet that belongs to no transfer.
    pub fn set_accept(&mut self, accept: Accept) {
        self.core.accept = Some(accept);
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.core.shared.counters
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
        if let Some(event) = self.core.events.pop_front() {
            return Ok(event);
        }
        // A caller that does not want to wait gets its way. One that was away for
        // longer waits for a moment once (see `Socket`), which costs less than to
        // look at the clock each time.
        if deadline.is_some_and(|deadline| self.hot.is_some_and(|hot| deadline <= hot)) {
            self.hot = None;
        }
        loop {
            let (readable, ready) = match self.hot {
                Some(_) => (true, None),
                None => self.wait(deadline, others)?,
            };
            let received = readable && self.receive(self.hot.is_some())?;
            let now = Instant::now();
            if received {
                self.deliver(now);
            }
            if self.core.due.is_some_and(|due| now >= due) {
                self.core.tick(now);
            }
            self.hot = if received && ready.is_none() && self.core.peers.active() > 0 {
                let until = self.hot.unwrap_or(now + HOT);
                let next = earlier(self.core.due, deadline);
                (now < until && next.is_none_or(|next| next > until)).then_some(until)
            } else {
                None
            };
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

    /// Waits for the socket, for `others`, for `deadline` and for what is due.
    /// Whether the socket is readable, and the first of `others` that is.
    fn wait(
        &self,
        deadline: Option<Instant>,
        others: &[BorrowedFd<'_>],
    ) -> Result<(bool, Option<usize>)> {
        let until = earlier(self.core.due, deadline);
        let socket = self.core.shared.socket.as_fd();
        let blank = |_| PollFd::new(socket, PollFlags::POLLIN);
        let mut few: [_; FEW] = std::array::from_fn(blank);
        let mut many: Vec<_>;
        let set = if others.len() < FEW {
            &mut few[..=others.len()]
        } else {
            many = (0..=others.len()).map(blank).collect();
            &mut many[..]
        };
        for (slot, other) in set[1..].iter_mut().zip(others) {
            *slot = PollFd::new(*other, PollFlags::POLLIN);
        }
        poll::wait(set, until).context(|| "unable to wait for tftp requests")?;
        let mut ready = set.iter().map(|fd| fd.any().unwrap_or(true));
        Ok((ready.next() == Some(true), ready.position(|ready| ready)))
    }

    /// Takes what has come in, waiting for it for a moment if told so. Whether
    /// anything has.
    fn receive(&mut self, wait: bool) -> Result<bool> {
        let socket = self.core.shared.socket.as_fd();
        match self.inbox.receive(socket, self.most, wait) {
            Ok(count) => {
                // As many as there were, and more if there may be more.
                self.most = if self.core.peers.one_by_one() {
                    1
                } else if count == self.most {
                    let largest = (0..count).filter_map(|index| self.inbox.get(index));
                    let largest = largest.map(|datagram| datagram.octets.len()).max();
                    let fitting = BATCH_OCTETS / largest.unwrap_or_default().max(1);
                    (self.most * 4).min(fitting.clamp(1, BATCH))
                } else {
                    count.max(1)
                };
                Ok(count > 0)
            }
            Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => {
                Err(error).context(|| "unable to receive tftp packets")
            }
            // Nothing there, or an error of a moment (no memory, an ICMP report).
            Err(_) => {
                self.most = 1;
                Ok(false)
            }
        }
    }

    fn deliver(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(datagram) = self.inbox.get(index) {
            self.core.take(now, &datagram);
            index += 1;
        }
    }
}
