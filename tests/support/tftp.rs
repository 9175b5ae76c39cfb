//! A TFTP server in a thread, and a client that can misbehave.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bbot_agent::tftp::{Map, Served, ServerSettings, TftpServer};

/// A directory of a test, gone with the guard.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch::below(&std::env::temp_dir())
    }

    pub fn below(parent: &Path) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("bbot-tftp-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("get")).unwrap();
        fs::create_dir_all(path.join("put")).unwrap();
        Scratch(path)
    }

    pub fn get(&self) -> PathBuf {
        self.0.join("get")
    }

    pub fn put(&self) -> PathBuf {
        self.0.join("put")
    }

    /// Puts a file into the get directory.
    pub fn file(&self, name: &str, octets: &[u8]) {
        fs::write(self.get().join(name), octets).unwrap();
    }

    /// What is in the put directory under `name`.
    pub fn uploaded(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.put().join(name)).ok()
    }

    /// Names in the put directory, hidden ones as well.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.put())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that runs until the guard is dropped.
pub struct Server {
    pub address: SocketAddrV4,
    events: Receiver<Served>,
    stop: Option<std::io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server for a scratch directory, with no limits.
    pub fn start(scratch: &Scratch) -> Server {
        Server::with(scratch, ServerSettings::default())
    }

    pub fn with(scratch: &Scratch, config: ServerSettings) -> Server {
        let map = Map::new().get(scratch.get()).put(scratch.put());
        Server::mapped(map, config)
    }

    pub fn mapped(map: Map, config: ServerSettings) -> Server {
        Server::at(Ipv4Addr::LOCALHOST, map, config)
    }

    pub fn at(ip: Ipv4Addr, map: Map, config: ServerSettings) -> Server {
        let mut server = TftpServer::bind(SocketAddrV4::new(ip, 0), config).unwrap();
        server.set_map(map);
        Server::run(server)
    }

    pub fn run(mut server: TftpServer) -> Server {
        let address = server.local_addr().unwrap();
        let (stopped, stop) = std::io::pipe().unwrap();
        let (tell, events) = channel();
        let thread = std::thread::spawn(move || {
            loop {
                match server.serve(None, &[stopped.as_fd()]).unwrap() {
                    Served::Ready(_) => return,
                    event => drop(tell.send(event)),
                }
            }
        });
        Server {
            address,
            events,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The next event for which `wanted` has something to say.
    pub fn wait<T>(&self, wanted: impl Fn(&Served) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("no such event");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    /// A client of this server.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut stop) = self.stop.take() {
            let _ = stop.write_all(b"x");
        }
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "server died");
        }
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Data(u16, Vec<u8>),
    Ack(u16),
    Error(u16, String),
    Oack(Vec<(String, String)>),
}

/// A client that says what it is told to.
pub struct Client {
    pub socket: UdpSocket,
    pub server: SocketAddrV4,
}

/// Longer than any answer that needs no timer takes, even on a busy machine.
const PATIENT: Duration = Duration::from_secs(10);
/// How long nothing must come for there to be nothing.
const QUIET: Duration = Duration::from_millis(150);

impl Client {
    pub fn new(server: SocketAddrV4) -> Client {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        Client { socket, server }
    }

    pub fn send(&self, octets: &[u8]) {
        self.socket.send_to(octets, self.server).unwrap();
    }

    pub fn rrq(&self, name: &str, options: &[(&str, &str)]) {
        self.send(&request(1, name, "octet", options));
    }

    pub fn wrq(&self, name: &str, options: &[(&str, &str)]) {
        self.send(&request(2, name, "octet", options));
    }

    pub fn ack(&self, block: u16) {
        let [high, low] = block.to_be_bytes();
        self.send(&[0, 4, high, low]);
    }

    pub fn data(&self, block: u16, payload: &[u8]) {
        let [high, low] = block.to_be_bytes();
        self.send(&[&[0, 3, high, low], payload].concat());
    }

    pub fn error(&self, code: u16, text: &str) {
        let [high, low] = code.to_be_bytes();
        self.send(&[&[0, 5, high, low], text.as_bytes(), &[0]].concat());
    }

    fn receive(&self, within: Duration) -> Option<Said> {
        let mut octets = vec![0; 65536];
        self.socket.set_read_timeout(Some(within)).unwrap();
        let (length, from) = self.socket.recv_from(&mut octets).ok()?;
        assert_eq!(from, self.server.into(), "answered from elsewhere");
        Some(said(&octets[..length]))
    }

    /// The next thing that the server says.
    pub fn hear(&self) -> Said {
        self.receive(PATIENT).expect("the server says nothing")
    }

    /// Nothing is said.
    pub fn hear_nothing(&self) {
        let said = self.receive(QUIET);
        assert_eq!(said, None);
    }

    /// DATA of this number; its payload. Blocks from before it may come again:
    /// the server's timer does not wait for a test that is not scheduled.
    pub fn hear_data(&self, number: u16) -> Vec<u8> {
        loop {
            match self.hear() {
                Said::Data(n, payload) if n == number => return payload,
                Said::Data(n, _) if is_before(n, number) => {}
                other => panic!("expected DATA {number}, got {}", brief(&other)),
            }
        }
    }

    pub fn hear_ack(&self, number: u16) {
        match self.hear() {
            Said::Ack(n) if n == number => {}
            other => panic!("expected ACK {number}, got {}", brief(&other)),
        }
    }

    pub fn hear_error(&self) -> (u16, String) {
        match self.hear() {
            Said::Error(code, text) => (code, text),
            other => panic!("expected ERROR, got {}", brief(&other)),
        }
    }

    pub fn hear_oack(&self) -> Vec<(String, String)> {
        match self.hear() {
            Said::Oack(options) => options,
            other => panic!("expected OACK, got {}", brief(&other)),
        }
    }

    /// Reads a file in lock-step to the end, answering with ACKs.
    pub fn rest(&self, blksize: usize) -> Vec<u8> {
        let mut file = Vec::new();
        let mut number: u16 = 1;
        loop {
            let payload = self.hear_data(number);
            file.extend_from_slice(&payload);
            self.ack(number);
            if payload.len() < blksize {
                return file;
            }
            number = number.wrapping_add(1);
        }
    }

    /// Writes a file in lock-step; the server has accepted it.
    pub fn store(&self, blksize: usize, file: &[u8]) {
        let mut number: u16 = 0;
        for payload in file.chunks(blksize).chain(
            // An exact multiple ends with an empty block.
            file.len().is_multiple_of(blksize).then_some(&[][..]),
        ) {
            number = number.wrapping_add(1);
            self.data(number, payload);
            self.hear_ack(number);
        }
    }
}

pub fn brief(said: &Said) -> String {
    match said {
        Said::Data(number, payload) => format!("DATA {number} of {}", payload.len()),
        other => format!("{other:?}"),
    }
}

pub fn request(opcode: u8, name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut octets = vec![0, opcode];
    for field in [name, mode]
        .into_iter()
        .chain(options.iter().flat_map(|(name, value)| [*name, *value]))
    {
        octets.extend_from_slice(field.as_bytes());
        octets.push(0);
    }
    octets
}

pub fn said(octets: &[u8]) -> Said {
    let number = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let texts = |from: usize| -> Vec<String> {
        octets[from..]
            .split(|&octet| octet == 0)
            .map(|text| String::from_utf8(text.to_vec()).unwrap())
            .collect()
    };
    match number(0) {
        3 => Said::Data(number(2), octets[4..].to_vec()),
        4 => Said::Ack(number(2)),
        5 => Said::Error(number(2), texts(4)[0].clone()),
        6 => {
            let texts = texts(2);
            let pairs = texts.chunks_exact(2);
            Said::Oack(
                pairs
                    .map(|pair| (pair[0].clone(), pair[1].clone()))
                    .collect(),
            )
        }
        other => panic!("opcode {other} from the server"),
    }
}

/// Octets that are different everywhere.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut octets = Vec::with_capacity(length + 8);
    while octets.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        octets.extend_from_slice(&state.to_le_bytes());
    }
    octets.truncate(length);
    octets
}

/// Options as strings, for comparison.
pub fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Whether block `n` comes before block `number`, a window or two at most.
pub fn is_before(n: u16, number: u16) -> bool {
    (1..1024).contains(&number.wrapping_sub(n))
}
