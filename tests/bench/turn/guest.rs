//! QEMU and a guest in one, without the time that either takes: answers the
//! monitor, fetches the task over the tap as frames of its own making, uploads a
//! result, and ends when told to quit.
//!
//! Notes on the common clock when it was executed and when it sent the last
//! byte of its result, in the file `times` beside its own name.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::scene::now;

const GATEWAY: [u8; 4] = [192, 168, 123, 1];
const SERVER: [u8; 4] = [196, 254, 111, 222];
const OURS: [u8; 4] = [192, 168, 123, 77];
/// `struct virtio_net_hdr`, of which nothing is used.
const HEADER: usize = 10;
/// Octets of the log in the result.
pub const LOG: usize = 64 << 10;

pub fn play() {
    let started = now();
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--version") {
        println!("QEMU emulator version 9.0");
        return;
    }
    let find = |prefix: &str| {
        args.iter()
            .find_map(|arg| Some(arg.split_once(prefix)?.1.split(',').next()?.to_owned()))
    };
    let fd = |prefix: &str| find(prefix).and_then(|n| n.parse::<RawFd>().ok()).unwrap();
    // SAFETY: the agent hands us this descriptor, and nobody else here has it.
    let monitor = unsafe { UnixStream::from_raw_fd(fd("socket,id=monitor,fd=")) };
    // SAFETY: the same.
    let tap = unsafe { File::from_raw_fd(fd("tap,id=net0,fd=")) };
    let mac = find("mac=").unwrap();

    let mut monitor = Monitor::greet(monitor);
    monitor.hear(); // qmp_capabilities
    monitor.hear(); // cont
    let octets: Vec<u8> = mac
        .split(':')
        .map(|o| u8::from_str_radix(o, 16).unwrap())
        .collect();
    let mut card = Card {
        tap,
        mac: octets.try_into().unwrap(),
        gateway: [0xff; 6],
        frame: vec![0; 1 << 16],
        last: Vec::new(),
    };
    card.resolve();
    card.get("task.manifest");
    let last = card.put("result.manifest", &result());
    let path = PathBuf::from(&args[0]).with_file_name("times");
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{started} {last}\n").as_bytes()))
        .unwrap();
    monitor.hear(); // quit
}

fn result() -> Vec<u8> {
    let mut log = String::new();
    while log.len() < LOG {
        log.push_str("c++ libfoo-1.2.3/foo/cxx{source}@foo/obje{source}\n");
    }
    format!(
        ": 1\nname: libfoo\nversion: 1.2.3\nstatus: success\nupdate-status: success\n\
         update-log:\\\n{log}\\\n"
    )
    .into_bytes()
}

struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    fn greet(mut stream: UnixStream) -> Monitor {
        stream
            .write_all(
                b"{\"QMP\":{\"version\":{\"qemu\":{\"micro\":0,\"minor\":0,\"major\":9}},\
                  \"capabilities\":[]}}\n",
            )
            .unwrap();
        Monitor {
            lines: BufReader::new(stream),
        }
    }

    /// Waits for a command and agrees to it.
    fn hear(&mut self) {
        let mut line = String::new();
        if self.lines.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let id = line
            .trim_end()
            .trim_end_matches('}')
            .rsplit(':')
            .next()
            .unwrap_or("0");
        let answer = format!("{{\"return\":{{}},\"id\":{id}}}\n");
        let _ = self.lines.get_mut().write_all(answer.as_bytes());
    }
}

struct Card {
    tap: File,
    mac: [u8; 6],
    gateway: [u8; 6],
    frame: Vec<u8>,
    /// The frame sent last, to be sent again when nothing is heard.
    last: Vec<u8>,
}

impl Card {
    fn send(&mut self, to: [u8; 6], kind: u16, payload: &[u8]) {
        let mut frame = vec![0; HEADER];
        frame.extend(to);
        frame.extend(self.mac);
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        self.tap.write_all(&frame).unwrap();
        self.last = frame;
    }

    /// Type and payload of the next frame.
    fn receive(&mut self) -> (u16, Vec<u8>) {
        loop {
            let mut ready = [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(1000_u16)) == Ok(0) {
                self.tap.write_all(&self.last).unwrap();
                continue;
            }
            let length = self.tap.read(&mut self.frame).unwrap();
            let Some(frame) = self.frame.get(HEADER..length) else {
                continue;
            };
            if let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, payload @ ..] = frame {
                return (u16::from_be_bytes([*a, *b]), payload.to_vec());
            }
        }
    }

    /// Who has the gateway's address (RFC 826); tells the bridge ours by it.
    fn resolve(&mut self) {
        let mut ask = vec![0, 1, 8, 0, 6, 4, 0, 1];
        ask.extend(self.mac);
        ask.extend(OURS);
        ask.extend([0; 6]);
        ask.extend(GATEWAY);
        self.send([0xff; 6], 0x0806, &ask);
        loop {
            let (kind, payload) = self.receive();
            if kind == 0x0806 && payload.get(6..8) == Some(&[0, 2]) {
                self.gateway = payload[8..14].try_into().unwrap();
                return;
            }
        }
    }

    fn udp(&mut self, port: u16, payload: &[u8]) {
        const FROM: u16 = 50_000;
        let length = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0];
        packet.extend(length(28 + payload.len()));
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(OURS);
        packet.extend(SERVER);
        let mut sum: u32 = packet
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        packet[10..12].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
        packet.extend(FROM.to_be_bytes());
        packet.extend(port.to_be_bytes());
        packet.extend(length(8 + payload.len()));
        packet.extend([0, 0]);
        packet.extend(payload);
        self.send(self.gateway, 0x0800, &packet);
    }

    /// The port and payload of the next datagram for us; asked for our address,
    /// tells it.
    fn datagram(&mut self) -> (u16, Vec<u8>) {
        loop {
            let (kind, payload) = self.receive();
            match kind {
                0x0806 if payload.get(6..8) == Some(&[0, 1]) && payload[24..28] == OURS => {
                    let mut tell = vec![0, 1, 8, 0, 6, 4, 0, 2];
                    tell.extend(self.mac);
                    tell.extend(OURS);
                    tell.extend(&payload[8..18]);
                    self.send(self.gateway, 0x0806, &tell);
                }
                0x0800 if payload.get(9) == Some(&17) && payload[12..16] == SERVER => {
                    let length = usize::from(u16::from_be_bytes([payload[24], payload[25]]));
                    let port = u16::from_be_bytes([payload[20], payload[21]]);
                    return (port, payload[28..20 + length].to_vec());
                }
                _ => {}
            }
        }
    }

    fn request(&mut self, code: u8, name: &str) {
        let request = [&[0, code], name.as_bytes(), b"\0octet\0"].concat();
        self.udp(69, &request);
    }

    fn get(&mut self, name: &str) -> Vec<u8> {
        self.request(1, name);
        let mut text = Vec::new();
        loop {
            let (port, packet) = self.datagram();
            assert_eq!(packet.get(..2), Some(&[0, 3][..]), "no data: {packet:?}");
            if usize::from(packet[3]) != text.len() / 512 + 1 {
                continue; // Again.
            }
            text.extend_from_slice(&packet[4..]);
            self.udp(port, &[0, 4, packet[2], packet[3]]);
            if packet.len() < 4 + 512 {
                return text;
            }
        }
    }

    /// Uploads, and returns when the last byte was sent.
    fn put(&mut self, name: &str, text: &[u8]) -> u64 {
        self.request(2, name);
        let port = loop {
            let (port, packet) = self.datagram();
            if packet == [0, 4, 0, 0] {
                break port;
            }
        };
        let mut blocks: Vec<&[u8]> = text.chunks(512).collect();
        if text.len().is_multiple_of(512) {
            blocks.push(&[]);
        }
        let mut last = 0;
        for (n, block) in blocks.into_iter().enumerate() {
            let [a, b] = u16::try_from(n + 1).unwrap().to_be_bytes();
            last = now();
            self.udp(port, &[&[0, 3, a, b], block].concat());
            loop {
                let (_, ack) = self.datagram();
                assert_eq!(ack.get(..2), Some(&[0, 4][..]), "no acknowledgement");
                if ack == [0, 4, a, b] {
                    break;
                }
            }
        }
        last
    }
}

/// What the guests noted: executed, and last byte sent.
pub fn times(dir: &std::path::Path) -> Vec<(u64, u64)> {
    fs::read_to_string(dir.join("times"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (a, b) = line.split_once(' ')?;
            Some((a.parse().ok()?, b.parse().ok()?))
        })
        .collect()
}
