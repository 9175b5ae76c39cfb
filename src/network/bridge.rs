//! The operator's bridge: what we need of it, found out before anything starts.

use std::io;
use std::net::Ipv4Addr;

use nix::libc;

use super::Mac;
use crate::error::{Class, Context as _, Error, Result};
use crate::sys::net::{Control, InterfaceName};
use crate::sys::netlink::{self, Batch, NetlinkSocket};

/// A bridge that is up and has an IPv4 address.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its name.
    pub name: InterfaceName,
    /// Its number, which a bridge that takes its place does not have.
    index: u32,
    /// Its IPv4 address: the guests' gateway, and where our server listens.
    pub address: Ipv4Addr,
    /// All of its IPv4 addresses, with the networks that they are in.
    pub networks: Vec<Network>,
}

/// An IPv4 network, and the host's address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The host's address.
    pub address: Ipv4Addr,
    /// How many of its bits are the network's.
    pub prefix: u8,
}

impl Network {
    /// The bits of an address that are the network's.
    pub fn mask(self) -> Ipv4Addr {
        let host = u32::MAX.checked_shr(self.prefix.into());
        (!host.unwrap_or_default()).into()
    }

    /// The first address, which is no station's.
    pub fn first(self) -> Ipv4Addr {
        self.address & self.mask()
    }

    /// The last address, which is every station's.
    pub fn broadcast(self) -> Ipv4Addr {
        self.address | !self.mask()
    }

    /// Whether there can be guests in it: with a longer prefix they are reached by
    /// a route, and which addresses they have is not known here.
    pub(super) fn has_room(self) -> bool {
        (1..=30).contains(&self.prefix)
    }
}

/// Of `<linux/rtnetlink.h>`, `<linux/if_link.h>` and `<linux/if_addr.h>`.
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
/// `struct ifaddrmsg`, which comes before the attributes of an address.
const IFADDRMSG: usize = 8;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// `struct ifinfomsg`, which comes before the attributes of a link.
const IFINFOMSG: usize = 16;

impl Bridge {
    /// Looks at the bridge `name` and changes nothing.
    pub fn probe(name: &str) -> Result<Bridge> {
        let config = |text: String| Error::new(text).with_class(Class::Config);
        let Ok(name) = InterfaceName::new(name) else {
            return Err(config(format!("invalid bridge name '{name}'"))
                .hint("an interface name has 1 to 15 characters"));
        };
        let unable = || format!("unable to examine bridge {name}");
        let control = Control::open().context(unable)?;
        let index = match control.index(&name) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Err(config(format!("no bridge {name}"))
                    .hint(format!(
                        "make it: ip link add {name} type bridge && \
                         ip addr add 192.168.123.1/24 dev {name} && ip link set {name} up"
                    ))
                    .hint("or name another: --bridge <name>"));
            }
            index => index.context(unable)?,
        };
        let socket = NetlinkSocket::route().context(unable)?;
        if link_kind(&socket, index).context(unable)? != "bridge" {
            return Err(config(format!("{name} is not a bridge"))
                .hint("name the bridge of the guests: --bridge <name>"));
        }
        if !control.is_up(&name).context(unable)? {
            return Err(config(format!("bridge {name} is down"))
                .hint(format!("bring it up: ip link set {name} up")));
        }
        let address =
            match control.address(&name) {
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                    return Err(config(format!("bridge {name} has no IPv4 address")).hint(
                        format!("give it one: ip addr add 192.168.123.1/24 dev {name}"),
                    ));
                }
                address => address.context(unable)?,
            };
        Ok(Bridge {
            name,
            index,
            address,
            networks: networks(&socket, index).context(unable)?,
        })
    }
}

impl Bridge {
    /// Whether it is still there. A bridge that is deleted loses its ports, also when
    /// another one gets its name.
    pub fn is_there(&self) -> bool {
        let index = Control::open().and_then(|control| control.index(&self.name));
        index.is_ok_and(|index| index == self.index)
    }

    /// Its hardware address at present: a bridge that was not given one may take that of
    /// a port.
    pub fn hardware_address(&self) -> Result<Mac> {
        Control::open()
            .and_then(|control| control.hardware_address(&self.name))
            .map(Mac)
            .context(|| format!("unable to examine bridge {}", self.name))
    }
}

/// The kind of the link numbered `index` (rtnetlink(7)).
fn link_kind(socket: &NetlinkSocket, index: u32) -> io::Result<String> {
    let mut found = String::new();
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut batch = Batch::new();
    batch.begin(RTM_GETLINK, netlink::ACK, &header);
    socket.exchange(&batch, |message| {
        let attributes = message.payload.get(IFINFOMSG..).unwrap_or_default();
        let info = netlink::attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
        if let Some(kind) = netlink::attribute(info, IFLA_INFO_KIND) {
            let kind = String::from_utf8_lossy(kind);
            kind.trim_end_matches('\0').clone_into(&mut found);
        }
    })?;
    Ok(found)
}

/// The addresses that the interface numbered `index` has.
fn networks(socket: &NetlinkSocket, index: u32) -> io::Result<Vec<Network>> {
    let mut header = [0; IFADDRMSG];
    header[0] = AF_INET;
    let mut batch = Batch::new();
    batch.begin(RTM_GETADDR, netlink::DUMP, &header);
    let mut found = Vec::new();
    socket.exchange(&batch, |message| {
        let Some((header, attributes)) = message.payload.split_at_checked(IFADDRMSG) else {
            return;
        };
        let address = netlink::attribute(attributes, IFA_LOCAL);
        if header[4..8] == index.to_ne_bytes()
            && let Some(Ok(address)) = address.map(<[u8; 4]>::try_from)
        {
            // With a peer's address here it is the peer's network.
            let same = netlink::attribute(attributes, IFA_ADDRESS) == Some(&address);
            found.push(Network {
                address: address.into(),
                prefix: if same { header[1] } else { 32 },
            });
        }
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_a_first_and_a_last_address() {
        for (prefix, first, last) in [
            (1, [128, 0, 0, 0], [255; 4]),
            (8, [192, 0, 0, 0], [192, 255, 255, 255]),
            (23, [192, 168, 122, 0], [192, 168, 123, 255]),
            (30, [192, 168, 123, 4], [192, 168, 123, 7]),
        ] {
            let address = [192, 168, 123, 5].into();
            let network = Network { address, prefix };
            assert!(network.has_room());
            assert_eq!(network.first(), Ipv4Addr::from(first));
            assert_eq!(network.broadcast(), Ipv4Addr::from(last));
        }
        for prefix in [0, 31, 32, 255] {
            let address = [192, 168, 123, 5].into();
            assert!(!Network { address, prefix }.has_room());
        }
    }

    #[test]
    fn a_missing_bridge_is_explained() {
        let error = Bridge::probe("bbot-missing").unwrap_err();
        assert_eq!(error.to_string(), "no bridge bbot-missing");
        assert_eq!(error.class(), Class::Config);
        assert!(error.hints().any(|hint| hint.contains("type bridge")));
    }

    #[test]
    fn another_kind_of_interface_is_not_a_bridge() {
        let error = Bridge::probe("lo").unwrap_err();
        assert_eq!(error.to_string(), "lo is not a bridge");
    }

    #[test]
    fn a_name_that_the_kernel_would_cut_is_refused() {
        let error = Bridge::probe("a-name-of-16-byt").unwrap_err();
        assert!(error.to_string().contains("invalid bridge name"), "{error}");
    }
}
