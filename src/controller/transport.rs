//! The socket under ureq: every wait also watches for signals.
//!
//! ureq's own sockets block in read(2) for up to the request timeout (300 s by
//! default). Here the socket is non-blocking and each wait polls it together
//! with [`Watch::fd`], so that SIGTERM ends a request at once and the watchdog
//! goes on ticking. The chain of connectors is: tunnel of a proxy, if any;
//! [`Dial`]; TLS; `strict`.
//!
//! The traits are in ureq's `unversioned` module, which does not keep to
//! semantic versions: that is why its version is pinned.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt,
};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration as Span;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use super::failure::{FailureClass, WireError};
use crate::sys::poll;
use crate::watch::Watch;

/// Resolves host names.
///
/// getaddrinfo(3) blocks, for 5 s and more where no name server answers, and cannot be
/// interrupted. So it runs in a thread of its own, which ends by itself if it is no
/// longer waited for.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) watch: Watch,
}

impl Names {
    fn look_up(&self, host: &str, port: u16, limit: Limit) -> Result<Vec<SocketAddr>, ureq::Error> {
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let (ended, end) = io::pipe()?;
        let (sender, receiver) = mpsc::channel();
        let name = host.to_owned();
        thread::Builder::new().spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            // The receiver may have stopped to wait.
            let _ = sender.send(found.map(Iterator::collect));
            drop(end);
        })?;
        loop {
            let now = Instant::now();
            self.watch.tick(now);
            if self.watch.must_stop() {
                return Err(stopped());
            }
            if limit.at.is_some_and(|at| now >= at) {
                return Err(limit.passed());
            }
            let mut ready = [false; 2];
            let fds = [self.watch.fd(), ended.as_fd()];
            poll::readable(&fds, &mut ready, self.watch.until(limit.at))?;
            if ready[1] {
                break;
            }
        }
        let found = receiver.recv().unwrap_or_else(|_| Ok(Vec::new()));
        found.map_err(|error| {
            let why = error.to_string();
            let why = why
                .strip_prefix("failed to lookup address information: ")
                .unwrap_or(&why);
            WireError::ureq(
                FailureClass::Name,
                format!("unable to resolve host {host}: {why}"),
            )
        })
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        const MAX_ADDRESSES: usize = 16;
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let found = self.look_up(bare, port, Limit::new(timeout))?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(MAX_ADDRESSES) {
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(ureq::Error::HostNotFound);
        }
        Ok(addresses)
    }
}

/// Until when, and what is said when it has passed.
#[derive(Clone, Copy)]
struct Limit {
    at: Option<Instant>,
    timeout: NextTimeout,
}

impl Limit {
    fn new(timeout: NextTimeout) -> Limit {
        let at = match timeout.after {
            Span::Exact(length) => Instant::now().checked_add(length),
            Span::NotHappening => None,
        };
        Limit { at, timeout }
    }

    fn passed(self) -> ureq::Error {
        ureq::Error::Timeout(self.timeout.reason)
    }
}

/// Waits until `stream` is ready for `flags` (or broken).
fn wait(
    watch: &Watch,
    stream: &TcpStream,
    flags: PollFlags,
    limit: Limit,
) -> Result<(), ureq::Error> {
    loop {
        let now = Instant::now();
        watch.tick(now);
        if watch.must_stop() {
            return Err(stopped());
        }
        let mut set = [
            PollFd::new(stream.as_fd(), flags),
            PollFd::new(watch.fd(), PollFlags::POLLIN),
        ];
        poll::wait(&mut set, watch.until(limit.at))?;
        if set[0].any().unwrap_or(true) {
            return Ok(());
        }
        if limit.at.is_some_and(|at| Instant::now() >= at) {
            return Err(limit.passed());
        }
    }
}

fn stopped() -> ureq::Error {
    WireError::ureq(FailureClass::Stopped, "stopped by a signal")
}

/// Opens TCP connections.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) watch: Watch,
}

impl Dial {
    /// Tries the addresses in turn. Each but the last gets half of the time
    /// that is left, so that one dead address does not use up all of it.
    fn first(
        &self,
        addresses: &[SocketAddr],
        timeout: NextTimeout,
    ) -> Result<TcpStream, ureq::Error> {
        let whole = Limit::new(timeout);
        let mut last = None;
        for (i, address) in addresses.iter().enumerate() {
            let mut limit = whole;
            if let Some(at) = whole.at
                && i + 1 < addresses.len()
            {
                let now = Instant::now();
                limit.at = Some(now + at.saturating_duration_since(now) / 2);
            }
            match self.open(*address, limit) {
                Ok(stream) => return Ok(stream),
                Err(error) if is_stop(&error) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ureq::Error::HostNotFound))
    }

    fn open(&self, address: SocketAddr, limit: Limit) -> Result<TcpStream, ureq::Error> {
        let failed = |error: Errno| {
            let reason = crate::error::reason(&io::Error::from(error)).to_lowercase();
            WireError::ureq(FailureClass::Connect, format!("{reason} ({address})"))
        };
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Stream, flags, None).map_err(failed)?;
        let started = connect(fd.as_raw_fd(), &SockaddrStorage::from(address));
        let stream = TcpStream::from(fd);
        match started {
            Ok(()) => {}
            Err(Errno::EINPROGRESS) => {
                wait(&self.watch, &stream, PollFlags::POLLOUT, limit)?;
                let error = getsockopt(&stream, sockopt::SocketError).map_err(failed)?;
                if error != 0 {
                    return Err(failed(Errno::from_raw(error)));
                }
            }
            Err(error) => return Err(failed(error)),
        }
        // Requests are written whole; without this the last short segment of
        // one waits for an acknowledgement. Failing to set it is no failure.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

fn is_stop(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(io) if io
        .get_ref()
        .and_then(|e| e.downcast_ref::<WireError>())
        .is_some_and(|e| e.class == FailureClass::Stopped))
}

impl<In: Transport> Connector<In> for Dial {
    type Out = Either<In, Socket>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if let Some(tunnel) = chained {
            return Ok(Some(Either::A(tunnel)));
        }
        let stream = self.first(&details.addrs, details.timeout)?;
        let config = details.config;
        Ok(Some(Either::B(Socket {
            stream,
            watch: self.watch.clone(),
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            unsent: None,
        })))
    }
}

/// A connected, non-blocking socket.
pub(super) struct Socket {
    stream: TcpStream,
    watch: Watch,
    buffers: LazyBuffers,
    /// Why sending failed. A controller that refuses a request half-read (413)
    /// answers and closes: its answer counts, not our broken pipe. So the rest
    /// is thrown away, and this is only told when no answer comes.
    unsent: Option<io::ErrorKind>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.stream).finish()
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let limit = Limit::new(timeout.for_write());
        let output = &self.buffers.output()[..amount];
        let mut sent = 0;
        while sent < amount && self.unsent.is_none() {
            wait(&self.watch, &self.stream, PollFlags::POLLOUT, limit)?;
            match self.stream.write(&output[sent..]) {
                Ok(count) => sent += count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    kind @ (io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                        self.unsent = Some(kind);
                    }
                    _ => return Err(cut("sending", &error)),
                },
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let limit = Limit::new(timeout.for_read());
        loop {
            wait(&self.watch, &self.stream, PollFlags::POLLIN, limit)?;
            let input = self.buffers.input_append_buf();
            match self.stream.read(input) {
                Ok(0) if self.unsent.is_some() => {
                    return Err(WireError::ureq(
                        FailureClass::Cut,
                        "connection closed while sending the request",
                    ));
                }
                Ok(count) => {
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    _ => return Err(cut("waiting for the answer", &error)),
                },
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Connections are not used again.
        false
    }
}

fn cut(doing: &str, error: &io::Error) -> ureq::Error {
    let reason = crate::error::reason(error).to_lowercase();
    WireError::ureq(FailureClass::Cut, format!("{reason} while {doing}"))
}
