//! Network interfaces by ioctl (netdevice(7), arp(7)).
//!
//! An ioctl speaks of the network namespace that its socket was made in, unlike
//! `/sys/class/net`, which shows that of whoever mounted it.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `IFNAMSIZ` of `<linux/if.h>`, with the terminating NUL.
const NAME_SIZE: usize = 16;

/// The name of an interface: 1 to 15 bytes.
///
/// The kernel silently cuts a longer name, so that a stray interface of another
/// name would appear: hence a type that cannot hold one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InterfaceName([u8; NAME_SIZE]);

impl InterfaceName {
    /// The name, if the kernel would take it (`dev_valid_name`), less `%`,
    /// which would ask for a number to be filled in.
    ///
    /// # Errors
    ///
    /// `EINVAL`: empty, too long, `.`, `..`, or with a slash, colon, percent
    /// sign, blank or anything that is not printable ASCII.
    pub fn new(name: &str) -> io::Result<InterfaceName> {
        let fits = (1..NAME_SIZE).contains(&name.len());
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
        if !fits || !plain || name == "." || name == ".." {
            return Err(Errno::EINVAL.into());
        }
        let mut field = [0; NAME_SIZE];
        field[..name.len()].copy_from_slice(name.as_bytes());
        Ok(InterfaceName(field))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(NAME_SIZE);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }

    /// The name as the kernel has it, padded with NUL.
    pub fn field(&self) -> [u8; NAME_SIZE] {
        self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// `struct ifreq` of `<linux/if.h>`: a name, and 24 bytes of union that are
/// read and written here as bytes.
#[repr(C)]
pub(super) struct IfReq {
    name: [u8; NAME_SIZE],
    data: [u8; 24],
}
const _: () = assert!(size_of::<IfReq>() == 40);

impl IfReq {
    pub(super) fn new(name: &InterfaceName) -> IfReq {
        IfReq {
            name: name.field(),
            data: [0; 24],
        }
    }

    /// The same with `bytes` at the front of the union.
    pub(super) fn with(mut self, bytes: &[u8]) -> IfReq {
        self.data[..bytes.len()].copy_from_slice(bytes);
        self
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.data[at..at + N]);
        bytes
    }
}

/// `struct arpreq` of `<linux/if_arp.h>`.
#[repr(C)]
struct ArpReq {
    protocol: [u8; 16],
    hardware: [u8; 16],
    flags: i32,
    netmask: [u8; 16],
    device: [u8; NAME_SIZE],
}
const _: () = assert!(size_of::<ArpReq>() == 68);

/// `ATF_COM` of `<linux/if_arp.h>`: the entry is complete.
const ATF_COM: i32 = 0x02;

mod ioctl {
    use super::{ArpReq, IfReq};
    use nix::libc;

    nix::ioctl_readwrite_bad!(get_flags, libc::SIOCGIFFLAGS, IfReq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, IfReq);
    nix::ioctl_readwrite_bad!(get_address, libc::SIOCGIFADDR, IfReq);
    nix::ioctl_readwrite_bad!(get_index, libc::SIOCGIFINDEX, IfReq);
    nix::ioctl_readwrite_bad!(get_mac, libc::SIOCGIFHWADDR, IfReq);
    nix::ioctl_write_ptr_bad!(set_mac, libc::SIOCSIFHWADDR, IfReq);
    nix::ioctl_write_ptr_bad!(bridge_add, 0x89a2, IfReq); // SIOCBRADDIF
    nix::ioctl_readwrite_bad!(get_arp, libc::SIOCGARP, ArpReq);
}

/// `ARPHRD_ETHER` of `<linux/if_arp.h>`.
const ARPHRD_ETHER: u16 = 1;

/// A socket to ask about and change interfaces with.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Those of socket(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open() -> io::Result<Control> {
        Ok(Control(socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?))
    }

    fn get(
        &self,
        call: unsafe fn(libc::c_int, *mut IfReq) -> nix::Result<libc::c_int>,
        name: &InterfaceName,
    ) -> io::Result<IfReq> {
        let mut request = IfReq::new(name);
        // SAFETY: `call` is an ioctl of this module; `request` is a live, initialised
        // ifreq, which the kernel reads and writes.
        unsafe { call(self.0.as_raw_fd(), &raw mut request) }?;
        Ok(request)
    }

    fn set(
        &self,
        call: unsafe fn(libc::c_int, *const IfReq) -> nix::Result<libc::c_int>,
        request: &IfReq,
    ) -> io::Result<()> {
        // SAFETY: `call` is an ioctl of this module that only reads the live ifreq.
        unsafe { call(self.0.as_raw_fd(), request) }?;
        Ok(())
    }

    /// The interface's number in its namespace.
    ///
    /// # Errors
    ///
    /// `ENODEV`: no such interface.
    pub fn index(&self, name: &InterfaceName) -> io::Result<u32> {
        let answer = self.get(ioctl::get_index, name)?;
        Ok(u32::from_ne_bytes(answer.bytes(0)))
    }

    /// The interface's hardware address.
    pub fn hardware_address(&self, name: &InterfaceName) -> io::Result<[u8; 6]> {
        let answer = self.get(ioctl::get_mac, name)?;
        // struct sockaddr: the family in two bytes, then the address.
        Ok(answer.bytes(2))
    }

    /// The interface's (first) IPv4 address.
    ///
    /// # Errors
    ///
    /// `ENODEV`: no such interface. `EADDRNOTAVAIL`: it has none.
    pub fn address(&self, name: &InterfaceName) -> io::Result<Ipv4Addr> {
        let answer = self.get(ioctl::get_address, name)?;
        // struct sockaddr_in: family and port, two bytes each, then the address.
        Ok(Ipv4Addr::from(answer.bytes::<4>(4)))
    }

    /// Gives the interface another hardware address.
    ///
    /// # Errors
    ///
    /// `ENODEV`; `EPERM`: `CAP_NET_ADMIN` is missing; `EADDRNOTAVAIL`: not an
    /// address of one station.
    pub fn set_mac(&self, name: &InterfaceName, mac: [u8; 6]) -> io::Result<()> {
        let mut address = [0; 8];
        address[..2].copy_from_slice(&ARPHRD_ETHER.to_ne_bytes());
        address[2..].copy_from_slice(&mac);
        self.set(ioctl::set_mac, &IfReq::new(name).with(&address))
    }

    fn flags(&self, name: &InterfaceName) -> io::Result<u16> {
        let answer = self.get(ioctl::get_flags, name)?;
        Ok(u16::from_ne_bytes(answer.bytes(0)))
    }

    /// Whether the operator has the interface up.
    ///
    /// # Errors
    ///
    /// `ENODEV`: no such interface.
    pub fn is_up(&self, name: &InterfaceName) -> io::Result<bool> {
        Ok(i32::from(self.flags(name)?) & libc::IFF_UP != 0)
    }

    /// Brings the interface up.
    ///
    /// # Errors
    ///
    /// `ENODEV`; `EPERM`: `CAP_NET_ADMIN` is missing.
    pub fn set_up(&self, name: &InterfaceName) -> io::Result<()> {
        let flags = i32::from(self.flags(name)?) | libc::IFF_UP;
        let [low, high, ..] = flags.to_le_bytes();
        let flags = u16::from_le_bytes([low, high]).to_ne_bytes();
        self.set(ioctl::set_flags, &IfReq::new(name).with(&flags))
    }

    /// Makes the interface numbered `port` a port of `bridge`.
    ///
    /// # Errors
    ///
    /// `ENODEV`: either is missing. `EOPNOTSUPP`: `bridge` is not one. `EBUSY`:
    /// the port is in a bridge already. `EPERM`: `CAP_NET_ADMIN` is missing.
    pub fn bridge_add(&self, bridge: &InterfaceName, port: u32) -> io::Result<()> {
        let request = IfReq::new(bridge).with(&port.to_ne_bytes());
        self.set(ioctl::bridge_add, &request)
    }

    /// The hardware address that the neighbour table has for `address` behind
    /// `device`, if it has one.
    ///
    /// # Errors
    ///
    /// `ENODEV`: no such interface.
    pub fn neighbour(
        &self,
        device: &InterfaceName,
        address: Ipv4Addr,
    ) -> io::Result<Option<[u8; 6]>> {
        let mut protocol = [0; 16];
        let family = u16::try_from(libc::AF_INET).unwrap_or_default();
        protocol[..2].copy_from_slice(&family.to_ne_bytes());
        protocol[4..8].copy_from_slice(&address.octets());
        let mut request = ArpReq {
            protocol,
            hardware: [0; 16],
            flags: 0,
            netmask: [0; 16],
            device: device.field(),
        };
        // SAFETY: `request` is a live, initialised arpreq, which the kernel
        // reads and writes.
        match unsafe { ioctl::get_arp(self.0.as_raw_fd(), &raw mut request) } {
            Ok(_) if request.flags & ATF_COM != 0 => {
                let mut mac = [0; 6];
                mac.copy_from_slice(&request.hardware[2..8]);
                Ok(Some(mac))
            }
            Ok(_) | Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_cut_or_refuse_are_refused() {
        for bad in [
            "",
            "sixteen-bytes-xx",
            "a/b",
            "a b",
            "a:b",
            "tap%d",
            ".",
            "..",
            "é",
        ] {
            assert!(InterfaceName::new(bad).is_err(), "{bad:?}");
        }
        let longest = InterfaceName::new("fifteen-bytes-x").unwrap();
        assert_eq!(longest.as_str(), "fifteen-bytes-x");
        assert_eq!(longest.to_string(), "fifteen-bytes-x");
    }

    #[test]
    fn the_loopback_interface_answers() {
        let control = Control::open().unwrap();
        let lo = InterfaceName::new("lo").unwrap();
        assert!(control.index(&lo).unwrap() > 0);
        let missing = InterfaceName::new("bbot-missing").unwrap();
        let error = control.address(&missing).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
