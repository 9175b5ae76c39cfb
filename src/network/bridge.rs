//! The operator's bridge: what we need of it, found out before anything starts.

use std::io;
use std::net::Ipv4Addr;

use nix::libc;

use crate::error::{Class, Context as _, Error, Result};
use crate::sys::net::{Control, Name};
use crate::sys::netlink::{self, Batch, Socket};

/// A bridge that is up and has an IPv4 address.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its name.
    pub name: Name,
    /// Its IPv4 address: the guests' gateway, and where our server listens.
    pub address: Ipv4Addr,
    /// Whether this bridge passes its packets through iptables, whatever
    /// `net.bridge.bridge-nf-call-iptables` says.
    pub calls_iptables: bool,
}

/// Of `<linux/rtnetlink.h>` and `<linux/if_link.h>`.
const RTM_GETLINK: u16 = 18;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
/// `struct ifinfomsg`, which comes before the attributes of a link.
const IFINFOMSG: usize = 16;

impl Bridge {
    /// Looks at the bridge `name` and changes nothing.
    ///
    /// # Errors
    ///
    /// When it is missing, not a bridge, down, or has no IPv4 address, each
    /// with the command that mends it.
    pub fn probe(name: &str) -> Result<Bridge> {
        let config = |text: String| Error::new(text).with_class(Class::Config);
        let Ok(name) = Name::new(name) else {
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
                    .hint("or name another with --bridge"));
            }
            index => index.context(unable)?,
        };
        let Link {
            kind,
            calls_iptables,
        } = Link::of(index).context(unable)?;
        if kind != "bridge" {
            return Err(config(format!("{name} is not a bridge"))
                .hint("name the bridge of the guests with --bridge"));
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
            address,
            calls_iptables,
        })
    }
}

/// What rtnetlink(7) says of a link.
struct Link {
    kind: String,
    calls_iptables: bool,
}

impl Link {
    fn of(index: u32) -> io::Result<Link> {
        let mut link = Link {
            kind: String::new(),
            calls_iptables: false,
        };
        let mut header = [0; IFINFOMSG];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut batch = Batch::new();
        batch.begin(RTM_GETLINK, netlink::ACK, &header);
        Socket::route()?.exchange(&batch, |message| {
            let attributes = message.payload.get(IFINFOMSG..).unwrap_or_default();
            let info = netlink::attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
            if let Some(kind) = netlink::attribute(info, IFLA_INFO_KIND) {
                link.kind = String::from_utf8_lossy(kind)
                    .trim_end_matches('\0')
                    .to_owned();
            }
            let data = netlink::attribute(info, IFLA_INFO_DATA).unwrap_or_default();
            link.calls_iptables =
                netlink::attribute(data, IFLA_BR_NF_CALL_IPTABLES).is_some_and(|v| v == [1]);
        })?;
        Ok(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
