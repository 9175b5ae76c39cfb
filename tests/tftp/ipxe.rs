//! iPXE, in QEMU, on a tap: the loader of a real machine that boots over TFTP.

use std::fs;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bbot_agent::network::{Bridge, Tap};
use bbot_agent::tftp::{Map, Served, ServerSettings, TftpServer};

use crate::support::netns::{GATEWAY, bridge};
use crate::support::tftp::{Scratch, pattern};
use crate::support::{isolated, require_programs, require_root, skip};

#[test]
fn ipxe_boots_from_us() {
    if !require_root() || !require_programs(&["qemu-system-x86_64", "dnsmasq", "ip"]) {
        return;
    }
    if !std::path::Path::new("/usr/lib/ipxe/virtio-net.rom").is_file()
        && !std::path::Path::new("/usr/share/qemu/pxe-virtio.rom").is_file()
    {
        return skip("no iPXE: the package ipxe-qemu");
    }
    isolated(|| {
        bridge("br1");
        let scratch = Scratch::new();
        scratch.file("large", &pattern(3_000_000));
        // What is fetched second is asked for by what was fetched first.
        let next = format!(
            "#!ipxe\nimgfetch large\nimgfetch done\npoweroff\n#{}\n",
            "x".repeat(20_000)
        );
        scratch.file("next", next.as_bytes());
        scratch.file("start", b"#!ipxe\nchain next\n");
        scratch.file("done", b"done");
        let address = SocketAddrV4::new(GATEWAY, 0);
        let mut server = TftpServer::bind(address, ServerSettings::default()).unwrap();
        server.set_map(Map::new().get(scratch.get()));
        let port = server.local_addr().unwrap().port();

        let dnsmasq = Command::new("dnsmasq")
            .args([
                "--no-daemon",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--port=0",
            ])
            .args([
                "--user=root",
                "--interface=br1",
                "--bind-interfaces",
                "--leasefile-ro",
            ])
            .arg("--dhcp-range=192.168.123.50,192.168.123.60")
            .arg(format!("--dhcp-boot=tftp://{GATEWAY}:{port}/start"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let dnsmasq = Killed(dnsmasq);
        let tap = Tap::open(&Bridge::probe("br1").unwrap(), "ipxe0").unwrap();
        let fd = tap.fd().try_clone_to_owned().unwrap();
        // QEMU takes the descriptor by its number.
        nix::fcntl::fcntl(
            &fd,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .unwrap();
        let qemu = Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg",
                "-m",
                "64",
                "-display",
                "none",
                "-nodefaults",
                "-boot",
                "n",
            ])
            .args(["-serial", "none", "-monitor", "none", "-no-reboot"])
            .arg("-netdev")
            .arg(format!("tap,id=n,fd={},vhost=off", fd.as_raw_fd()))
            .args(["-device", "virtio-net-pci,netdev=n"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let qemu = Killed(qemu);
        drop(fd);

        let deadline = Instant::now() + Duration::from_secs(180);
        let mut sent = Vec::new();
        while sent.last().is_none_or(|(name, _)| name != "done") {
            match server.serve(Some(deadline), &[]).unwrap() {
                Served::Sent { name, size, .. } => sent.push((name, size)),
                Served::Deadline => panic!("iPXE did not boot; it has got {sent:?}"),
                _ => {}
            }
        }
        let size = |name: &str| fs::metadata(scratch.get().join(name)).unwrap().len();
        let expected: Vec<_> = ["start", "next", "large", "done"]
            .map(|name| (name.to_owned(), size(name)))
            .into();
        assert_eq!(sent, expected);
        drop((qemu, dnsmasq));
    });
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
