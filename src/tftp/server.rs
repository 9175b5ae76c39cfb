//! The socket, the clock, and who gets what.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use super::dispatch::Dispatcher;
use super::earlier;
use super::event::{Accept, Counters, DeferredRequest, Served, ServerSettings};
use super::map::Map;
use crate::error::{Context as _, Result};
use crate::sys::inbox::Inbox;
use crate::sys::poll;
use crate::sys::udp::{Route, Socket};

/// The requested size of the receive buffer, in octets: two windows of the largest
/// blocks. Only received datagrams are charged.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The same for the send buffer: a window of the largest blocks.
const SEND_BUFFER: usize = 4 << 20;
/// Datagrams taken by one system call, and octets of large ones: more would be
/// out of the processor's cache again before they are written.
const BATCH_DATAGRAMS: usize = 32;
const BATCH_OCTETS: usize = 128 << 10;
/// Descriptors that are polled without allocating.
const STACK_DESCRIPTORS: usize = 8;
/// Within a transfer the next packet is about to come, and is waited for by
/// receiving it, without polling first: a third of the system calls of a
/// lock-step transfer. For so long other descriptors and the deadline may have to
/// wait, and a tick of the kernel's clock longer.
const BUSY_RECEIVE: Duration = Duration::from_millis(5);
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
    dispatcher: Dispatcher<Socket>,
}

impl TftpServer {
    /// Listens on `address`; port 0 takes any free one. Until it is given a
    /// [`Map`], it refuses every request.
    pub fn bind(address: SocketAddrV4, settings: ServerSettings) -> Result<TftpServer> {
        let socket =
            Socket::bind(address).context(|| format!("unable to listen on udp {address}"))?;
        let receive_buffer = socket
            .set_buffers(RECEIVE_BUFFER, SEND_BUFFER)
            .context(|| format!("unable to set up udp {address}"))?;
        Ok(TftpServer {
            inbox: Inbox::new(BATCH_DATAGRAMS, address.ip().is_unspecified()),
            most: 1,
            hot: None,
            dispatcher: Dispatcher::new(settings, receive_buffer as u64, socket),
        })
    }

    /// The address on which it listens.
    pub fn local_addr(&self) -> Result<SocketAddrV4> {
        self.dispatcher
            .wire()
            .local_address()
            .context(|| "unable to get the address of the tftp socket")
    }

    /// Where requests lead from now on. Transfers under way go on.
    pub fn set_map(&mut self, map: Map) {
        self.dispatcher.set_map(map);
    }

    /// Sets the filter of peers; without one, all are served. It is called for each
    /// packet that belongs to no transfer.
    pub fn set_accept(&mut self, accept: Accept) {
        self.dispatcher.set_accept(accept);
    }

    /// Answers a request that another server has deferred, and returns the event of it.
    pub fn resume(&mut self, request: &DeferredRequest) -> Option<Served> {
        self.dispatcher.resume(Instant::now(), request)
    }

    /// Readable when a packet has come in.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dispatcher.wire().as_fd()
    }

    /// When to serve, if no packet comes in before.
    pub fn due(&self) -> Option<Instant> {
        self.dispatcher.due()
    }

    /// The counters so far.
    pub fn counters(&self) -> &Counters {
        self.dispatcher.counters()
    }

    /// Serves until something happened that the caller may want to know, until
    /// `deadline`, or until one of `others` is readable; whichever of these is
    /// true is told one at a time, events of transfers first.
    ///
    /// A deadline in the past serves what has come in and returns.
    pub fn serve(
        &mut self,
        deadline: Option<Instant>,
        others: &[BorrowedFd<'_>],
    ) -> Result<Served> {
        if let Some(event) = self.dispatcher.event() {
            return Ok(event);
        }
        // A deadline in the past ends the wait by receiving. If the caller was away for
        // longer than `BUSY_RECEIVE`, one receive waits for a moment (see `Socket`), which costs
        // less than reading the clock on each call.
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
            if self.dispatcher.due().is_some_and(|due| now >= due) {
                self.dispatcher.tick(now);
            }
            self.hot = if received && ready.is_none() && self.dispatcher.is_active() {
                let until = self.hot.unwrap_or(now + BUSY_RECEIVE);
                let next = earlier(self.dispatcher.due(), deadline);
                (now < until && next.is_none_or(|next| next > until)).then_some(until)
            } else {
                None
            };
            if let Some(event) = self.dispatcher.event() {
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
        let until = earlier(self.dispatcher.due(), deadline);
        let socket = self.dispatcher.wire().as_fd();
        let blank = |_| PollFd::new(socket, PollFlags::POLLIN);
        let mut few: [_; STACK_DESCRIPTORS] = std::array::from_fn(blank);
        let mut many: Vec<_>;
        let set = if others.len() < STACK_DESCRIPTORS {
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
        let socket = self.dispatcher.wire().as_fd();
        match self.inbox.receive(socket, self.most, wait) {
            Ok(count) => {
                // As many as there were, and more if there may be more.
                self.most = if self.dispatcher.one_by_one() {
                    1
                } else if count == self.most {
                    let largest = (0..count).filter_map(|index| self.inbox.get(index));
                    let largest = largest.map(|datagram| datagram.octets.len()).max();
                    let fitting = BATCH_OCTETS / largest.unwrap_or_default().max(1);
                    (self.most * 4).min(fitting.clamp(1, BATCH_DATAGRAMS))
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
            // RFC 1123 §4.2.3.5.
            if !datagram.broadcast {
                let route = Route {
                    peer: datagram.peer,
                    from: datagram.to,
                };
                self.dispatcher.packet(now, route, datagram.octets);
            }
            index += 1;
        }
    }
}
