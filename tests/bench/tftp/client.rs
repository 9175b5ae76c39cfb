//! The client of the bench: checks every octet, and costs as little as it can.

use std::io::{ErrorKind, IoSlice};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bbot_agent::sys::inbox::Inbox;
use bbot_agent::sys::poll;
use bbot_agent::sys::udp::{self, Route};
use bbot_agent::tftp::packet::{self, HEADER, Packet};
use nix::sys::socket::{setsockopt, sockopt};

/// The name under which files are uploaded.
pub const UPLOAD: &str = "upload";

/// Files repeat these many octets: a prime, so that no two blocks are alike.
const TILE: usize = 65_521;
/// After this long without an answer, the last packet is sent again.
const RETRY: Duration = Duration::from_millis(200);

/// A tile and as much of the next one as the largest block reaches.
static TILES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut tile = Vec::new();
    while tile.len() < TILE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        tile.extend_from_slice(&state.to_le_bytes());
    }
    tile.truncate(TILE);
    tile.repeat(2)
});

/// The file of `length` octets.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut file = TILES[..TILE].repeat(length / TILE + 1);
    file.truncate(length);
    file
}

/// The name of that file.
pub fn file_name(length: usize) -> String {
    format!("{}-mib", length >> 20)
}

/// Octets of the file.
fn part(offset: usize, length: usize) -> &'static [u8] {
    &TILES[offset % TILE..][..length]
}

/// What to transfer.
#[derive(Clone, Copy)]
pub struct Transfer {
    pub upload: bool,
    pub blksize: u16,
    pub window: u16,
    pub octets: usize,
}

impl Transfer {
    fn request(&self, name: &str, options: bool) -> Vec<u8> {
        let mut request = vec![0, if self.upload { 2 } else { 1 }];
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b"\0octet\0");
        if options {
            let size = if self.upload { self.octets } else { 0 };
            request.extend_from_slice(
                format!("blksize\0{}\0tsize\0{size}\0", self.blksize).as_bytes(),
            );
            if self.window > 1 {
                request.extend_from_slice(format!("windowsize\0{}\0", self.window).as_bytes());
            }
        }
        request
    }
}

/// A transfer under way.
struct Session {
    socket: UdpSocket,
    route: Route,
    blksize: usize,
    window: usize,
    octets: usize,
    deadline: Instant,
    buffer: Vec<u8>,
}

/// Transfers the big file; `None` if that fails or takes longer than `limit`.
pub fn run(server: SocketAddrV4, transfer: &Transfer, limit: Duration) -> Option<Duration> {
    let start = Instant::now();
    let file = file_name(transfer.octets);
    let name = if transfer.upload { UPLOAD } else { &file };
    let mut session = Session::open(server, transfer, name, true, start + limit)?;
    if transfer.upload {
        session.put()?;
    } else if session.window == 1 {
        session.get(None)?;
    } else {
        session.get_windows()?;
    }
    Some(start.elapsed())
}

/// Transfers a small file in lock-step.
pub fn run_small(server: SocketAddrV4, transfer: &Transfer, options: bool) -> Option<Duration> {
    let start = Instant::now();
    let name = if transfer.upload { UPLOAD } else { "small" };
    let mut session = Session::open(
        server,
        transfer,
        name,
        options,
        start + Duration::from_secs(3),
    )?;
    if transfer.upload {
        session.put()?;
    } else {
        let first = session.first(options);
        session.get(first)?;
    }
    Some(start.elapsed())
}

impl Session {
    /// Sends the request and agrees on the options.
    fn open(
        server: SocketAddrV4,
        transfer: &Transfer,
        name: &str,
        options: bool,
        deadline: Instant,
    ) -> Option<Session> {
        let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
        socket.set_read_timeout(Some(RETRY)).ok()?;
        let room = 16 << 20;
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &room);
        let _ = setsockopt(&socket, sockopt::SndBufForce, &room);
        let mut session = Session {
            socket,
            route: Route {
                peer: server,
                from: None,
            },
            blksize: 512,
            window: 1,
            octets: transfer.octets,
            deadline,
            buffer: vec![0; 65536],
        };
        let request = transfer.request(name, options);
        session.socket.send_to(&request, server).ok()?;
        let (length, from) = session.socket.recv_from(&mut session.buffer).ok()?;
        let SocketAddr::V4(from) = from else {
            return None;
        };
        session.route.peer = from;
        match session.buffer[..length] {
            [0, 6, ref oack @ ..] => {
                let fields: Vec<&[u8]> = oack.split(|octet| *octet == 0).collect();
                for pair in fields.chunks_exact(2) {
                    let value = std::str::from_utf8(pair[1]).ok()?.parse().ok()?;
                    match pair[0] {
                        b"blksize" => session.blksize = value,
                        b"windowsize" => session.window = value,
                        _ => {}
                    }
                }
                if !transfer.upload {
                    session.ack(0)?;
                }
            }
            // DATA 1 of a GET without options is left in the buffer.
            [0, 3, 0, 1, ..] if !transfer.upload => session.buffer.truncate(length),
            [0, 4, 0, 0] if transfer.upload => {}
            _ => return None,
        }
        Some(session)
    }

    /// DATA 1, if it came in answer to the request.
    fn first(&mut self, options: bool) -> Option<usize> {
        (!options).then(|| {
            let length = self.buffer.len();
            self.buffer.resize(65536, 0);
            length
        })
    }

    fn send(&self, octets: &[u8]) -> Option<()> {
        udp::send(
            self.socket.as_fd(),
            &self.route,
            &[IoSlice::new(octets)],
            None,
        )
        .ok()
    }

    fn ack(&self, number: u64) -> Option<()> {
        self.send(&packet::ack(number))
    }

    /// The length of the next packet; `again` is what to do when it is late.
    fn receive(&mut self, again: impl Fn(&Session) -> Option<()>) -> Option<usize> {
        loop {
            match self.socket.recv(&mut self.buffer) {
                Ok(length) => return Some(length),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if Instant::now() > self.deadline {
                        return None;
                    }
                    again(self)?;
                }
                Err(_) => return None,
            }
        }
    }

    fn get(&mut self, mut waiting: Option<usize>) -> Option<()> {
        let mut number = 0;
        let mut offset = 0;
        loop {
            let length = match waiting.take() {
                Some(length) => length,
                None => self.receive(|session| session.ack(number))?,
            };
            let Packet::Data(n, payload) = Packet::parse(&self.buffer[..length]) else {
                return None;
            };
            if n != packet::low_half(number + 1) {
                continue;
            }
            assert!(payload == part(offset, payload.len()), "wrong octets");
            offset += payload.len();
            number += 1;
            let last = payload.len() < self.blksize;
            self.ack(number)?;
            if last {
                return (offset == self.octets).then_some(());
            }
        }
    }

    fn get_windows(&mut self) -> Option<()> {
        let mut inbox = Inbox::new(64, false);
        let (mut number, mut offset, mut acknowledged) = (0_u64, 0, 0_u64);
        let mut reported = false;
        loop {
            if Instant::now() > self.deadline {
                return None;
            }
            let Ok(count) = inbox.receive(self.socket.as_fd(), 64, false) else {
                let late = Instant::now() + RETRY;
                if !poll::readable(&[self.socket.as_fd()], &mut [false], Some(late)).ok()? {
                    acknowledged = number;
                    self.ack(number)?;
                }
                continue;
            };
            for slot in 0..count {
                let Packet::Data(n, payload) = Packet::parse(inbox.get(slot)?.octets) else {
                    return None;
                };
                if n != packet::low_half(number + 1) {
                    let ahead = n.wrapping_sub(packet::low_half(number)) < 1000;
                    if ahead && !std::mem::replace(&mut reported, true) {
                        acknowledged = number;
                        self.ack(number)?;
                    }
                    continue;
                }
                assert!(payload == part(offset, payload.len()), "wrong octets");
                offset += payload.len();
                number += 1;
                reported = false;
                let last = payload.len() < self.blksize;
                if last || number - acknowledged >= self.window as u64 {
                    acknowledged = number;
                    self.ack(number)?;
                }
                if last {
                    return (offset == self.octets).then_some(());
                }
            }
        }
    }

    fn put(&mut self) -> Option<()> {
        let last = (self.octets / self.blksize) as u64 + 1;
        let mut acknowledged = 0;
        while acknowledged < last {
            let count = (self.window as u64).min(last - acknowledged);
            self.send_window(acknowledged + 1, count)?;
            let first = acknowledged + 1;
            let mut repeated = false;
            loop {
                if Instant::now() > self.deadline {
                    return None;
                }
                let length = self.receive(|session| session.send_window(first, count))?;
                let Packet::Ack(n) = Packet::parse(&self.buffer[..length]) else {
                    return None;
                };
                let ahead = u64::from(n.wrapping_sub(packet::low_half(acknowledged)));
                if (1..=count).contains(&ahead) {
                    acknowledged += ahead;
                    break;
                }
                // Once: some servers send as many as the window has blocks.
                if ahead == 0 && self.window > 1 && !std::mem::replace(&mut repeated, true) {
                    self.send_window(first, count)?;
                }
            }
        }
        Some(())
    }

    fn send_window(&self, first: u64, count: u64) -> Option<()> {
        let mut headers = [[0; HEADER]; udp::BATCH];
        let mut pairs = [[IoSlice::new(&[]); 2]; udp::BATCH];
        let mut used = 0;
        for ((number, header), pair) in (first..first + count).zip(&mut headers).zip(&mut pairs) {
            *header = packet::data_header(number);
            let offset = (usize::try_from(number).ok()? - 1) * self.blksize;
            let length = self.blksize.min(self.octets - offset);
            *pair = [IoSlice::new(header), IoSlice::new(part(offset, length))];
            used += 1;
        }
        if used == 1 {
            return udp::send(self.socket.as_fd(), &self.route, &pairs[0], None).ok();
        }
        let sent = udp::send_batch(self.socket.as_fd(), &self.route, &pairs[..used]).ok()?;
        (sent == used).then_some(())
    }
}
