//! The guest's end of the bridge.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::libc;

use super::{Bridge, Mac};
use crate::error::{Class, Context as _, Error, Result};
use crate::sys::net::{Control, InterfaceName};
use crate::sys::netlink::{self, Batch, NetlinkSocket};
use crate::sys::tap;
use crate::trace;

/// The hardware address of the host's side of every tap.
///
/// A bridge that was not given an address takes the lowest of its ports', and
/// so changes it as taps come and go, and the guests' idea of their gateway is
/// wrong for a while. Two ports may have the same address, so with this one,
/// which is high, the bridge keeps its own.
const HOST_SIDE: Mac = Mac([0xfe, 0xff, 0xff, 0x62, 0x62, 0x74]);

/// How the name of every tap begins; rules know our taps by it.
pub(super) const PREFIX: &str = "bb-";

/// Of `<linux/rtnetlink.h>`, `<linux/if_link.h>`, `<linux/neighbour.h>` and
/// `<sys/socket.h>`.
const RTM_SETLINK: u16 = 19;
const RTM_NEWNEIGH: u16 = 28;
const IFLA_PROTINFO: u16 = 12;
const IFLA_BRPORT_GUARD: u16 = 5;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_LOCKED: u16 = 39;
const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NTF_MASTER: u8 = 0x04;
const NTF_STICKY: u8 = 0x40;
const AF_BRIDGE: u8 = 7;

/// A tap device on a bridge, up. It lives as long as its descriptor and those
/// that QEMU got of it, so that nothing is left of it however we die.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: InterfaceName,
    index: u32,
}

impl Tap {
    /// Makes the tap device `name` and an isolated port of `bridge` out of it.
    pub fn open(bridge: &Bridge, name: &str) -> Result<Tap> {
        let unable = || format!("unable to create tap {name} on bridge {}", bridge.name);
        Tap::make(name, Some(bridge), &unable)
    }

    /// Makes the tap device `name`, which is no port of a bridge, and down: frames from its
    /// guest are dropped.
    pub fn alone(name: &str) -> Result<Tap> {
        Tap::make(name, None, &|| format!("unable to create tap {name}"))
    }

    fn make(name: &str, bridge: Option<&Bridge>, unable: &dyn Fn() -> String) -> Result<Tap> {
        let name = InterfaceName::new(name)
            .context(unable)
            .map_err(|error| error.hint("an interface name has 1 to 15 characters"))?;
        trace!(3, "open", "ip tuntap add {name} mode tap vnet_hdr");
        let fd = tap::create(&name).map_err(|error| explain(error, unable(), &name))?;
        let control = Control::open().context(unable)?;
        let index = control.index(&name).context(unable)?;
        control.set_mac(&name, HOST_SIDE.0).context(unable)?;
        if let Some(bridge) = bridge {
            trace!(
                3,
                "open", "ip link set {name} address {HOST_SIDE} master {}", bridge.name
            );
            control.bridge_add(&bridge.name, index).context(unable)?;
            trace!(3, "open", "bridge link set dev {name} isolated on guard on");
            NetlinkSocket::route()
                .and_then(|socket| {
                    let mut batch = Batch::new();
                    let properties = [(IFLA_BRPORT_ISOLATED, 1), (IFLA_BRPORT_GUARD, 1)];
                    set_port(&mut batch, index, &properties);
                    socket.request(&batch)
                })
                .context(unable)?;
            trace!(3, "open", "ip link set {name} up");
            control.set_up(&name).context(unable)?;
        }
        Ok(Tap { fd, name, index })
    }

    /// Makes `mac` a static entry of the bridge for this tap. The bridge learns nothing
    /// from the tap: frames from it with another source address are dropped, and those
    /// of other stations with `mac` change nothing.
    ///
    /// Rules cannot see to that: a frame to one of the addresses that a bridge
    /// keeps to itself (01:80:c2:00:00:0x) meets none, and yet the bridge learns
    /// from it who is where. Dropping needs Linux 5.16; older kernels ignore that.
    pub(super) fn lock(&self, mac: Mac) -> io::Result<()> {
        trace!(
            3,
            "lock", "bridge fdb replace {mac} dev {} master static sticky", self.name
        );
        let mut header = [0; 12]; // struct ndmsg
        header[0] = AF_BRIDGE;
        header[4..8].copy_from_slice(&self.index.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_NOARP.to_ne_bytes());
        header[10] = NTF_MASTER | NTF_STICKY;
        let mut batch = Batch::new();
        let flags = netlink::ACK | netlink::CREATE | netlink::REPLACE;
        batch.begin(RTM_NEWNEIGH, flags, &header);
        batch.put(NDA_LLADDR, &mac.0);
        trace!(
            3,
            "lock", "bridge link set dev {} learning off locked on", self.name
        );
        let properties = [(IFLA_BRPORT_LEARNING, 0), (IFLA_BRPORT_LOCKED, 1)];
        set_port(&mut batch, self.index, &properties);
        NetlinkSocket::route()?.request(&batch)
    }

    /// Lets other ports reach the guest: rules decide which.
    pub(super) fn open_to_group(&self) -> io::Result<()> {
        trace!(
            3,
            "open_to_group", "bridge link set dev {} isolated off", self.name
        );
        let mut batch = Batch::new();
        set_port(&mut batch, self.index, &[(IFLA_BRPORT_ISOLATED, 0)]);
        NetlinkSocket::route()?.request(&batch)
    }

    /// The descriptor to hand to QEMU.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its name as the kernel has it.
    pub(super) fn kernel_name(&self) -> &InterfaceName {
        &self.name
    }

    /// Its number, unique in its network namespace while it lives.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Gives up the descriptor: with the last duplicate, which QEMU may have, the
    /// device goes. The kernel needs some milliseconds for it.
    pub fn close(self) {
        trace!(3, "close", "ip link delete {}", self.name);
    }
}

/// Adds a message that sets properties of the bridge port numbered `index`.
/// *Isolated* ports exchange no frames with each other; *guarded* ones are off
/// once they send what is for bridges among themselves (spanning tree); *locked*
/// ones take frames only from addresses that the bridge expects there.
fn set_port(batch: &mut Batch, index: u32, properties: &[(u16, u8)]) {
    let mut header = [0; 16]; // struct ifinfomsg
    header[0] = AF_BRIDGE;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.begin(RTM_SETLINK, netlink::ACK, &header);
    batch.nest(IFLA_PROTINFO, |port| {
        for (property, value) in properties {
            port.put(*property, &[*value]);
        }
    });
}

fn explain(error: io::Error, what: String, name: &InterfaceName) -> Error {
    let errno = error.raw_os_error();
    let error = match Err::<(), _>(error).context(|| what.as_str()) {
        Err(error) => error,
        Ok(()) => Error::new(what),
    };
    match errno {
        Some(libc::EBUSY) => error.hint(format!(
            "there is a device {name} already: ip link show {name}"
        )),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => error
            .with_class(Class::Config)
            .hint("load the driver: modprobe tun"),
        Some(libc::EACCES) => error.hint(format!("we may not open {}", tap::DEVICE)),
        Some(libc::EPERM) => error.hint("run as root, or with the capability CAP_NET_ADMIN"),
        _ => error,
    }
}

/// The name of a tap of an agent: at most 15 characters, the same every time, and
/// another for every toolchain, instance and guest of the agent. `guest` is 0 for the
/// guest of a bootstrap or build, and above that for its auxiliary machines.
///
/// It begins with as much of the toolchain's name as fits, for the operator;
/// the digits behind it are a hash of all of it.
pub fn tap_name(toolchain: &str, instance: u32, guest: usize) -> String {
    let front: String = toolchain
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(4)
        .collect();
    // FNV-1a: short, and stable from release to release.
    let whole = match guest {
        0 => format!("{toolchain}-{instance}"),
        // No name of a toolchain has a slash.
        _ => format!("{toolchain}-{instance}/{guest}"),
    };
    let hash = whole.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 32)) & 0x0fff_ffff;
    format!("{PREFIX}{front}-{hash:07x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tap_names_fit_and_differ() {
        let mut names = HashSet::new();
        for toolchain in [
            "default",
            "a",
            "a-b",
            "gcc-12.2-very-long",
            "gcc-12.2-very-longer",
            "",
        ] {
            for (instance, guest) in (1..200).flat_map(|n| [(n, 0), (n, 1), (n, 9)]) {
                let name = tap_name(toolchain, instance, guest);
                InterfaceName::new(&name).unwrap();
                assert!(names.insert(name.clone()), "{name}");
            }
        }
        assert_eq!(tap_name("default", 1, 0), tap_name("default", 1, 0));
    }
}
