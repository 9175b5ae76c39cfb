//! The servers that are compared, each in a control group of its own.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{self, Transfer};

/// Where control groups that account CPU are (version 1).
const GROUPS: &str = "/sys/fs/cgroup/cpuacct";

/// A server that may be started.
pub struct Peer {
    pub name: &'static str,
    address: SocketAddrV4,
    command: Vec<OsString>,
    windows: bool,
    uploads: bool,
}

/// A server that runs until the guard is dropped.
pub struct Running {
    pub name: &'static str,
    pub address: SocketAddrV4,
    windows: bool,
    uploads: bool,
    group: Option<PathBuf>,
    child: Child,
}

fn free_port() -> SocketAddrV4 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn words(program: &Path, line: &str) -> Vec<OsString> {
    let mut command = vec![program.into()];
    command.extend(line.split_whitespace().map(OsString::from));
    command
}

impl Peer {
    /// All that are known; those that are not installed will not start.
    pub fn all(directory: &Path) -> Vec<Peer> {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
        let me = std::env::current_exe().unwrap();
        let dir = directory.to_str().unwrap();
        let peer = |name, windows, uploads, make: &dyn Fn(SocketAddrV4) -> Vec<OsString>| {
            let address = free_port();
            Peer {
                name,
                address,
                command: make(address),
                windows,
                uploads,
            }
        };
        let mut all = vec![
            peer("bare sendto", true, true, &|at| {
                words(&me, &format!("--bare sendto {at} {dir}"))
            }),
            peer("bare gso", true, true, &|at| {
                words(&me, &format!("--bare gso {at} {dir}"))
            }),
            peer(crate::OURS, true, true, &|at| {
                words(&me, &format!("--ours {at} {dir}"))
            }),
            peer("tftpd-hpa", false, true, &|at| {
                let program = peers.join("usr/sbin/in.tftpd");
                words(&program, &format!("-L -a {at} -c -u root -s {dir}"))
            }),
            peer("atftpd", true, true, &|at| {
                let program = peers.join("usr/sbin/atftpd");
                let port = at.port();
                words(
                    &program,
                    &format!(
                        "--daemon --no-fork --bind-address 127.0.0.1 --port {port} \
                         --user root --group root --verbose=0 {dir}"
                    ),
                )
            }),
            peer("tftpd crate", true, true, &|at| {
                let program = peers.join("bin/tftpd");
                let port = at.port();
                words(
                    &program,
                    &format!("-i 127.0.0.1 -p {port} -d {dir} --overwrite -q"),
                )
            }),
        ];
        // Its port cannot be chosen, so it has an address of its own.
        let mut dnsmasq = peer("dnsmasq", false, false, &|_| {
            words(
                Path::new("/usr/sbin/dnsmasq"),
                &format!(
                    "--no-daemon --conf-file=/dev/null --pid-file= --port=0 --user=root \
                     --listen-address=127.0.0.69 --bind-interfaces --enable-tftp --tftp-root={dir}"
                ),
            )
        });
        dnsmasq.address = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 69), 69);
        all.push(dnsmasq);
        all
    }

    /// Starts it and waits until it serves; `None` if it does not.
    pub fn start(self) -> Option<Running> {
        let group = Path::new(GROUPS).join(format!(
            "bbot-bench-{}-{}",
            std::process::id(),
            self.name.replace(' ', "-")
        ));
        let group = fs::create_dir(&group).is_ok().then_some(group);
        let tasks = group.as_ref().map_or_else(
            || PathBuf::from("/dev/null"),
            |group| group.join("cgroup.procs"),
        );
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
        let child = Command::new("sh")
            .args(["-c", "echo $$ > \"$0\"; exec \"$@\""])
            .arg(tasks)
            .args(&self.command)
            .env("LD_LIBRARY_PATH", peers.join("usr/lib/x86_64-linux-gnu"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut running = Running {
            name: self.name,
            address: self.address,
            windows: self.windows,
            uploads: self.uploads,
            group,
            child,
        };
        let small = Transfer {
            upload: false,
            blksize: 1428,
            window: 1,
            octets: 1024,
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if client::run_small(running.address, &small, true).is_some() {
                return Some(running);
            }
            let ended = running
                .child
                .try_wait()
                .is_ok_and(|status| status.is_some());
            if ended || Instant::now() > deadline {
                eprintln!("left out: {} does not serve", running.name);
                return None;
            }
        }
    }
}

impl Running {
    /// Whether the server has what the transfer takes.
    pub fn can(&self, transfer: &Transfer) -> bool {
        (self.windows || transfer.window == 1) && (self.uploads || !transfer.upload)
    }

    /// CPU that it has used so far, with all its processes and threads.
    pub fn cpu(&self) -> Option<Duration> {
        let text = fs::read_to_string(self.group.as_ref()?.join("cpuacct.usage")).ok()?;
        text.trim().parse().ok().map(Duration::from_nanos)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(group) = &self.group {
            // Those that it started itself.
            let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines() {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
            let deadline = Instant::now() + Duration::from_secs(2);
            while fs::remove_dir(group).is_err() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}
