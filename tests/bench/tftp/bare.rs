//! The limit: the packets of a transfer with nothing but the system calls that
//! it takes. No checks, no timers, one transfer at a time.

use std::fs::File;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bbot_agent::sys::udp::{self, BATCH, Route};
use bbot_agent::tftp::options::Terms;
use bbot_agent::tftp::packet::{self, HEADER, Kind, Packet, Request};
use nix::sys::socket::{setsockopt, sockopt};

/// Serves `directory` until killed; `how` is `sendto` or `gso`.
pub fn serve(how: &str, address: &str, directory: &Path) {
    let socket = UdpSocket::bind(address).unwrap();
    let room = 16 << 20;
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &room);
    let _ = setsockopt(&socket, sockopt::SndBufForce, &room);
    let mut buffer = vec![0; 65536];
    loop {
        let Ok((length, SocketAddr::V4(peer))) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Ok(request) = Request::parse(&buffer[..length]) else {
            continue;
        };
        let route = Route { peer, from: None };
        let path = directory.join(&request.name);
        match request.kind {
            Kind::Get => {
                let file = File::open(path).unwrap();
                let size = file.metadata().unwrap().len();
                let terms = Terms::agree(&request, Some(size), u64::MAX);
                get(
                    &socket,
                    &route,
                    &file,
                    size,
                    &terms,
                    how == "gso",
                    &mut buffer,
                );
            }
            Kind::Put => {
                let file = File::create(path).unwrap();
                let terms = Terms::agree(&request, None, u64::MAX);
                put(&socket, &route, &file, &terms, &mut buffer);
            }
        }
    }
}

fn send(socket: &UdpSocket, route: &Route, octets: &[u8]) {
    let _ = udp::send(socket.as_fd(), route, &[IoSlice::new(octets)], None);
}

fn get(
    socket: &UdpSocket,
    route: &Route,
    file: &File,
    size: u64,
    terms: &Terms,
    gso: bool,
    buffer: &mut [u8],
) {
    let blksize = usize::from(terms.blksize);
    let last = size / blksize as u64 + 1;
    let mut acknowledged = 0;
    if let Some(oack) = terms.oack() {
        send(socket, route, &oack);
        socket.recv(buffer).unwrap();
    }
    let mut room = vec![0; 65536];
    loop {
        let end = (acknowledged + u64::from(terms.window)).min(last);
        let mut number = acknowledged + 1;
        while number <= end {
            let fitting = if gso {
                (65507 / (blksize + HEADER)).max(1)
            } else {
                1
            };
            let count = fitting
                .min(BATCH)
                .min(usize::try_from(end - number + 1).unwrap());
            let offset = (number - 1) * blksize as u64;
            let length = file.read_at(&mut room[..count * blksize], offset).unwrap();
            let mut headers = [[0; HEADER]; BATCH];
            let mut pairs = [[IoSlice::new(&[]); 2]; BATCH];
            let mut chunks = room[..length].chunks(blksize);
            let numbers = number..number + count as u64;
            for ((number, header), pair) in numbers.zip(&mut headers).zip(&mut pairs) {
                *header = packet::data_header(number);
                let payload = chunks.next().unwrap_or_default();
                *pair = [IoSlice::new(header), IoSlice::new(payload)];
            }
            let parts = pairs[..count].as_flattened();
            let segment = u16::try_from(blksize + HEADER).unwrap();
            let segment = (count > 1).then_some(segment);
            udp::send(socket.as_fd(), route, parts, segment).unwrap();
            number += count as u64;
        }
        let length = socket.recv(buffer).unwrap();
        if let Packet::Ack(n) = Packet::parse(&buffer[..length]) {
            let ahead = n.wrapping_sub(packet::low_half(acknowledged));
            acknowledged += u64::from(ahead);
        }
        if acknowledged >= last {
            return;
        }
    }
}

fn put(socket: &UdpSocket, route: &Route, file: &File, terms: &Terms, buffer: &mut [u8]) {
    let blksize = usize::from(terms.blksize);
    match terms.oack() {
        Some(oack) => send(socket, route, &oack),
        None => send(socket, route, &packet::ack(0)),
    }
    let (mut number, mut offset) = (0_u64, 0);
    loop {
        let length = socket.recv(buffer).unwrap();
        let Packet::Data(n, payload) = Packet::parse(&buffer[..length]) else {
            return;
        };
        if n != packet::low_half(number + 1) {
            continue;
        }
        file.write_all_at(payload, offset).unwrap();
        offset += payload.len() as u64;
        number += 1;
        let last = payload.len() < blksize;
        if last || number.is_multiple_of(u64::from(terms.window)) {
            send(socket, route, &packet::ack(number));
        }
        if last {
            return;
        }
    }
}
