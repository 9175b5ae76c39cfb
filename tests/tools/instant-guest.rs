//! A stand-in for QEMU and the guest in it, ready in milliseconds: for tests
//! that need a thousand turns, or one turn a thousand times.
//!
//! Towards the agent it is QEMU: it speaks QMP on the monitor and has the tap.
//! Towards the network it is a guest: the kernel's own stack in a namespace of
//! its own, whose card passes frames to the tap and back, with the address that
//! the test guest has (tests/guest/README). It bootstraps where it finds no file
//! `bootstrapped` in its directory, and builds where it does: at once, or for as
//! many milliseconds as a file `pause`, or the word `pause=` of the task's target-config,
//! says, without those in which it is stopped. A word `status=` is the status of its
//! result. Where it finds a file `lacks` QEMU
//! says so many times, a number, that the disk has no room for what it writes.
//!
//! With a file `auxiliary` it is an auxiliary machine, which uploads its environment.
//!
//! It can be saved and restored as the guest of a template: the file `asked` has the
//! port from which it asks for its task.
//!
//! Started by a script that puts the monitor on standard input and the tap on
//! standard output; needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bbot_agent::json::Value;
use bbot_agent::network::{Mac, PORT, SERVER};
use bbot_agent::sys::net::{Control, InterfaceName};
use bbot_agent::sys::tap;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

/// Whether QEMU has stopped the guest.
static IS_STOPPED: AtomicBool = AtomicBool::new(false);

fn main() {
    let monitor = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let tap = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let mac: Mac = std::env::args()
        .flat_map(|arg| arg.split(',').map(str::to_owned).collect::<Vec<_>>())
        .find_map(|part| part.strip_prefix("mac=").map(|mac| mac.parse().unwrap()))
        .expect("a network card with an address");
    let mut guest = Some((tap, mac));
    let (resumed, resumes) = channel();
    let mut resumes = Some(resumes);

    let monitor = UnixStream::from(monitor);
    // The agent's end does not block, and so, being a pair, perhaps not ours.
    monitor.set_nonblocking(false).unwrap();
    let mut commands = BufReader::new(monitor.try_clone().unwrap()).lines();
    let say = |text: &str| {
        let text = format!("{text}\n");
        (&monitor).write_all(text.as_bytes()).unwrap();
    };
    say(r#"{"QMP":{"version":{"qemu":{"micro":0,"minor":0,"major":9}},"capabilities":[]}}"#);
    while let Some(Ok(line)) = commands.next() {
        let command = Value::parse(&line).unwrap();
        let id = command.get("id").map(|id| format!(",\"id\":{id}"));
        say(&format!("{{\"return\":{{}}{}}}", id.unwrap_or_default()));
        let end = |by_guest: bool, reason: &str| {
            format!(
                "{{\"event\":\"SHUTDOWN\",\"data\":{{\"guest\":{by_guest},\"reason\":\"{reason}\"}},\
                 \"timestamp\":{{\"seconds\":1,\"microseconds\":0}}}}"
            )
        };
        match command.get("execute").and_then(Value::as_str) {
            Some("cont") => {
                if let (Some((tap, mac)), Some(resumes)) = (guest.take(), resumes.take()) {
                    let disk = Disk(monitor.try_clone().unwrap(), resumes);
                    thread::spawn(move || run(tap, mac, disk, None));
                } else if IS_STOPPED.swap(false, Ordering::SeqCst) {
                    say(RESUMED);
                } else {
                    // Nobody listens any more where nothing is written.
                    let _ = resumed.send(());
                }
            }
            Some("stop") if guest.is_none() => {
                IS_STOPPED.store(true, Ordering::SeqCst);
                say(STOPPED);
            }
            Some("migrate") => say(MIGRATED),
            Some("migrate-incoming") => {
                // It listens before it runs.
                if let (Some((tap, mac)), Some(resumes)) = (guest.take(), resumes.take()) {
                    let disk = Disk(monitor.try_clone().unwrap(), resumes);
                    let (ready, is_ready) = channel();
                    thread::spawn(move || run(tap, mac, disk, Some(ready)));
                    is_ready.recv().unwrap();
                }
                say(MIGRATED);
            }
            Some("system_powerdown") => {
                say(&end(true, "guest-shutdown"));
                return;
            }
            Some("quit") => {
                say(&end(false, "host-qmp-quit"));
                return;
            }
            _ => {}
        }
    }
}

const MIGRATED: &str = "{\"event\":\"MIGRATION\",\"data\":{\"status\":\"completed\"},\
                        \"timestamp\":{\"seconds\":1,\"microseconds\":0}}";

const STOPPED: &str = "{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1,\"microseconds\":0}}";
const RESUMED: &str = "{\"event\":\"RESUME\",\"timestamp\":{\"seconds\":1,\"microseconds\":0}}";

/// A disk that QEMU finds full: the monitor, and what tells of a `cont`.
struct Disk(UnixStream, Receiver<()>);

impl Disk {
    /// A write that is tried until there is room, so many times in vain.
    fn write(&mut self, lacks: u32) {
        let event = |name: &str, data: &str| {
            format!(
                "{{\"event\":\"{name}\"{data},\"timestamp\":{{\"seconds\":1,\"microseconds\":0}}}}\n"
            )
        };
        let data = ",\"data\":{\"device\":\"d\",\"operation\":\"write\",\"action\":\"stop\",\
                    \"nospace\":true,\"reason\":\"No space left on device\"}";
        for _ in 0..lacks {
            let text = event("BLOCK_IO_ERROR", data) + &event("STOP", "");
            self.0.write_all(text.as_bytes()).unwrap();
            self.1.recv().unwrap();
            self.0.write_all(event("RESUME", "").as_bytes()).unwrap();
        }
    }
}

/// The guest: a network, then what it is for. A guest that is restored says when it is
/// ready.
fn run(tap: OwnedFd, mac: Mac, mut disk: Disk, restored: Option<Sender<()>>) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let name = InterfaceName::new("eth0").unwrap();
    let card = tap::create(&name).unwrap();
    let control = Control::open().unwrap();
    control.set_mac(&name, mac.0).unwrap();
    let [.., x, y] = mac.0.map(|byte| byte % 254 + 1);
    let script = format!(
        "addr add 10.195.{x}.{y}/16 dev eth0\nlink set eth0 up\nroute add default via 10.195.0.1\n"
    );
    let batch = Path::new("network");
    fs::write(batch, script).unwrap();
    let status = Command::new("ip").args(["-batch", "network"]).status();
    assert!(status.unwrap().success());
    thread::spawn(move || move_frames(&tap, &card));

    if Path::new("auxiliary").exists() {
        insist(|| put("environment", "address=10.195.0.9\n"));
        return;
    }
    let done = Path::new("bootstrapped");
    let manifest = if done.exists() {
        let task = match restored {
            None => {
                let socket = socket(0);
                let port = socket.local_addr().unwrap().port();
                fs::write("asked", port.to_string()).unwrap();
                receive(&socket, request(1, "manifest"), true)
            }
            Some(ready) => {
                let port = fs::read_to_string("asked").unwrap();
                let socket = socket(port.parse().unwrap());
                ready.send(()).unwrap();
                receive(&socket, request(1, "manifest"), false)
            }
        };
        let task = task.unwrap_or_else(|| insist(|| get("manifest")));
        let value = |name: &str| {
            let line = task.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let (name, version) = (value("name:"), value("version:"));
        let config = value("target-config:");
        let of_task = |name: &str| {
            let mut words = config.split(' ');
            words.find_map(|word| Some(word.strip_prefix(name)?.to_owned()))
        };
        if let Some(length) = fs::read_to_string("pause").ok().or(of_task("pause=")) {
            fs::write("pausing", "").unwrap();
            work(Duration::from_millis(length.parse().unwrap()));
        }
        let status = of_task("status=").unwrap_or_else(|| "success".to_owned());
        if let Ok(times) = fs::read_to_string("lacks") {
            disk.write(times.parse().unwrap());
        }
        format!(
            ": 1\nname: {name}\nversion: {version}\nstatus: {status}\n\
             update-status: {status}\nupdate-log: built\nworker-checksum: 1\n"
        )
    } else {
        insist(|| get("worker"));
        fs::write(done, "").unwrap();
        ": 1\nbbot-version: 0.17.0\nlibbbot-version: 0.17.0\nlibbpkg-version: 0.17.0\n\
         libbutl-version: 0.17.0\n"
            .to_owned()
    };
    insist(|| put("manifest", &manifest));
}

/// Takes so long while the guest runs.
fn work(mut left: Duration) {
    while !left.is_zero() {
        let start = Instant::now();
        thread::sleep(left.min(Duration::from_millis(5)));
        if !IS_STOPPED.load(Ordering::SeqCst) {
            left = left.saturating_sub(start.elapsed());
        }
    }
}

/// Both taps put the same virtio header before a frame.
fn move_frames(a: &OwnedFd, b: &OwnedFd) {
    let mut frame = vec![0; 128 * 1024];
    loop {
        let mut set = [a, b].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        poll(&mut set, PollTimeout::NONE).unwrap();
        for (i, (from, to)) in [(a, b), (b, a)].into_iter().enumerate() {
            if set[i].any().unwrap()
                && let Ok(length) = nix::unistd::read(from, &mut frame)
            {
                let _ = nix::unistd::write(to, &frame[..length]);
            }
        }
    }
}

const TRIES: u32 = 60;
const BLOCK: usize = 512;

/// Sends `packet` until an answer comes that `good` accepts; `None` if an error
/// comes instead, or nothing.
fn exchange(socket: &UdpSocket, packet: &[u8], good: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let server = SocketAddrV4::new(SERVER, PORT);
    socket.send_to(packet, server).unwrap();
    answer(socket, packet, good)
}

/// The same for a packet that was sent before.
fn answer(socket: &UdpSocket, packet: &[u8], good: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let server = SocketAddrV4::new(SERVER, PORT);
    let mut buffer = [0; BLOCK + 4];
    for _ in 0..TRIES {
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            let answer = &buffer[..length];
            if answer.starts_with(&[0, 5]) {
                return None;
            }
            if good(answer) {
                return Some(answer.to_vec());
            }
        }
        socket.send_to(packet, server).unwrap();
    }
    None
}

/// Tries a transfer again that was refused, as a worker's script does.
fn insist<T>(transfer: impl Fn() -> Option<T>) -> T {
    loop {
        if let Some(done) = transfer() {
            return done;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn socket(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    socket
}

fn request(code: u8, name: &str) -> Vec<u8> {
    let mut packet = vec![0, code];
    packet.extend_from_slice(name.as_bytes());
    packet.extend_from_slice(b"\0octet\0");
    packet
}

/// Reads a file (RFC 1350).
fn get(name: &str) -> Option<String> {
    receive(&socket(0), request(1, name), true)
}

/// Reads the file of a request, which is sent first, or was sent before.
fn receive(socket: &UdpSocket, request: Vec<u8>, mut send: bool) -> Option<String> {
    let mut packet = request;
    let mut content = Vec::new();
    for block in 1_u16.. {
        let [high, low] = block.to_be_bytes();
        let good = |a: &[u8]| a.starts_with(&[0, 3, high, low]);
        let data = match std::mem::replace(&mut send, true) {
            true => exchange(socket, &packet, good)?,
            false => answer(socket, &packet, good)?,
        };
        content.extend_from_slice(&data[4..]);
        packet = vec![0, 4, high, low];
        if data.len() < BLOCK + 4 {
            break;
        }
    }
    let server = SocketAddrV4::new(SERVER, PORT);
    socket.send_to(&packet, server).unwrap();
    Some(String::from_utf8_lossy(&content).into_owned())
}

/// Writes a file.
fn put(name: &str, content: &str) -> Option<()> {
    let socket = socket(0);
    exchange(&socket, &request(2, name), |a| a.starts_with(&[0, 4, 0, 0]))?;
    let mut rest = content.as_bytes();
    for block in 1_u16.. {
        let [high, low] = block.to_be_bytes();
        let (data, after) = rest.split_at(rest.len().min(BLOCK));
        let mut packet = vec![0, 3, high, low];
        packet.extend_from_slice(data);
        exchange(&socket, &packet, |a| a.starts_with(&[0, 4, high, low]))?;
        rest = after;
        if data.len() < BLOCK {
            break;
        }
    }
    Some(())
}
