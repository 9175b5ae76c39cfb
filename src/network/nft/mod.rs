//! The redirect by `nf_tables`, spoken to directly: no program is needed, and
//! the tables have an owner, our socket, with which the kernel removes them
//! however we die (Linux 5.12). In the meantime nobody else can change them.
//!
//! What is installed, as nft(8) would list it, for tap `T` with address `MAC`:
//!
//! ```text
//! table bridge bbot-agent-T {
//!   set address { type ipv4_addr; size 1; flags dynamic; }
//!   chain others {
//!     type filter hook prerouting priority -301; policy accept;
//!     iifname "bb-*" iifname != "T" meta protocol arp arp saddr ip @address drop
//!     iifname "bb-*" iifname != "T" meta protocol ip ip saddr @address drop
//!   }
//!   chain guest {
//!     type filter hook prerouting priority -300; policy accept;
//!     iifname "T" ether saddr != MAC drop
//!     iifname "T" meta protocol ip ip protocol udp ip daddr 196.254.111.222 \
//!       meta mark set M add @address { ip saddr }
//!     meta mark M ip frag-off & 0x1fff 0 udp dport != 69 drop
//!     meta mark M ip frag-off & 0x1fff 0 udp dport set PORT
//!     meta mark M ip daddr set BRIDGE
//!   }
//! }
//! table ip bbot-agent-T {
//!   chain guard {
//!     type filter hook input priority -10; policy accept;
//!     ip daddr BRIDGE udp dport PORT meta mark != M drop
//!   }
//!   chain answers {
//!     type filter hook postrouting priority 200; policy accept;
//!     ip saddr BRIDGE udp sport PORT udp sport set 69 ip saddr set 196.254.111.222
//!   }
//! }
//! ```
//!
//! Addresses are rewritten packet by packet, and not by NAT, which remembers a
//! connection for up to two minutes: a guest that starts again with the same
//! source port (firmware counts from a fixed one) would reach a server that was
//! killed, and to make it forget takes some 10 ms. There is nothing to forget.
//!
//! The mark is how the ip family learns of the tap, which is a port of the
//! bridge and so not its input interface. It does not depend on
//! `bridge-nf-call-iptables`, and touches no packets but those to the TFTP
//! address. A guest cannot choose it: so a packet sent straight to the server of
//! another guest, with whatever source, does not pass the guard.
//!
//! The first address that the guest makes a request with is its own from then
//! on: no guest on another tap of ours can claim it by ARP, to get our answers,
//! or send with it. Only taps of ours are so restrained, lest a hostile guest
//! shut out the rest of the network by claiming its addresses.
//!
//! Fragments: each carries the mark and gets the address, the first of them,
//! which has the ports, also the port. (The kernel does not see to it that a rule
//! on ports passes over the others.) They are put together before the guard sees
//! them, and answers are not cut yet when `answers` does; so blocks of up to 65464
//! octets pass. A UDP checksum is mended with what it covers, unless it is 0, which
//! says that there is none.
//!
//! Numbers are those of `<linux/netfilter/nf_tables.h>`.

mod messages;
mod owner;

use std::io;
use std::net::SocketAddrV4;
use std::rc::Rc;

use messages::{
    ADDRESS, BRIDGE, INPUT, IPV4, LINK, META_IIFNAME, META_L4PROTO, META_MARK, META_PROTOCOL,
    NETWORK, POSTROUTING, PREROUTING, TRANSPORT, delete_table, new_address_set, new_chain,
    new_rule, new_table, transaction,
};
pub use owner::Netfilter;

use super::tap::PREFIX;
use super::{Mac, PORT, SERVER};
use crate::sys::net::Name;
use crate::sys::netlink::{Batch, Socket};

/// The tables of one redirect.
#[derive(Debug)]
pub(super) struct Tables {
    socket: Rc<Socket>,
    netfilter: Netfilter,
    name: String,
}

/// What the rules are made from.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) tap: &'a Name,
    /// A number that no other tap of the network namespace has.
    pub(super) mark: u32,
    /// The only source address that the tap may send with, where it is known.
    pub(super) mac: Option<Mac>,
    pub(super) server: SocketAddrV4,
    /// Whose they are, for whoever lists them.
    pub(super) owner: &'a str,
}

impl Tables {
    /// Installs all of the rules, or none.
    pub(super) fn install(netfilter: &Netfilter, rules: &Rules<'_>) -> io::Result<Tables> {
        let socket = netfilter.socket()?;
        let name = format!("bbot-agent-{}", rules.tap);
        socket
            .request(&installation(&name, rules))
            .inspect_err(|_| netfilter.give_up())?;
        Ok(Tables {
            socket,
            netfilter: netfilter.clone(),
            name,
        })
    }

    /// Removes the rules: no packet meets them any more.
    pub(super) fn remove(self) -> io::Result<()> {
        let mut batch = Batch::new();
        transaction(&mut batch, |batch| {
            for family in [BRIDGE, IPV4] {
                delete_table(batch, family, &self.name);
            }
        });
        self.socket
            .request(&batch)
            .inspect_err(|_| self.netfilter.give_up())
    }
}

fn installation(table: &str, rules: &Rules<'_>) -> Batch {
    let mark = rules.mark.to_ne_bytes();
    let server = rules.server.ip().octets();
    let port = rules.server.port().to_be_bytes();
    let mut tap = [0; 16];
    tap[..rules.tap.as_str().len()].copy_from_slice(rules.tap.as_str().as_bytes());

    let mut batch = Batch::new();
    transaction(&mut batch, |batch| {
        new_table(batch, BRIDGE, table, rules.owner);
        new_address_set(batch, table);
        new_chain(batch, BRIDGE, table, "others", PREROUTING, -301);
        // Where the sender's address is in an ARP packet, and in an IP one.
        for (protocol, offset) in [([0x08, 0x06], 14), ([0x08, 0x00], 12)] {
            new_rule(batch, BRIDGE, table, "others", |rule| {
                rule.meta(META_IIFNAME).is(PREFIX.as_bytes()).is_not(&tap);
                rule.meta(META_PROTOCOL).is(&protocol);
                rule.payload(NETWORK, offset, 4).in_set(ADDRESS).drop();
            });
        }
        new_chain(batch, BRIDGE, table, "guest", PREROUTING, -300);
        if let Some(mac) = rules.mac {
            new_rule(batch, BRIDGE, table, "guest", |rule| {
                rule.meta(META_IIFNAME).is(&tap);
                rule.payload(LINK, 6, 6).is_not(&mac.0).drop();
            });
        }
        new_rule(batch, BRIDGE, table, "guest", |rule| {
            rule.meta(META_IIFNAME).is(&tap);
            rule.meta(META_PROTOCOL).is(&[0x08, 0x00]);
            rule.payload(NETWORK, 9, 1).is(&[UDP]);
            rule.payload(NETWORK, 16, 4).is(&SERVER.octets());
            rule.load(&mark).set_meta(META_MARK);
            // Ends the rule once the set is full, so it comes last.
            rule.payload(NETWORK, 12, 4).add_to_set(ADDRESS);
        });
        new_rule(batch, BRIDGE, table, "guest", |rule| {
            rule.meta(META_MARK).is(&mark).has_ports();
            rule.payload(TRANSPORT, 2, 2).is_not(&TFTP).drop();
        });
        new_rule(batch, BRIDGE, table, "guest", |rule| {
            rule.meta(META_MARK).is(&mark).has_ports();
            rule.load(&port).set_port(2);
        });
        new_rule(batch, BRIDGE, table, "guest", |rule| {
            rule.meta(META_MARK).is(&mark);
            rule.load(&server).set_address(16);
        });
        new_table(batch, IPV4, table, rules.owner);
        new_chain(batch, IPV4, table, "guard", INPUT, -10);
        new_rule(batch, IPV4, table, "guard", |rule| {
            rule.payload(NETWORK, 16, 4).is(&server);
            rule.meta(META_L4PROTO).is(&[UDP]);
            rule.payload(TRANSPORT, 2, 2).is(&port);
            rule.meta(META_MARK).is_not(&mark).drop();
        });
        new_chain(batch, IPV4, table, "answers", POSTROUTING, 200);
        new_rule(batch, IPV4, table, "answers", |rule| {
            rule.payload(NETWORK, 12, 4).is(&server);
            rule.meta(META_L4PROTO).is(&[UDP]);
            rule.payload(TRANSPORT, 0, 2).is(&port);
            rule.load(&TFTP).set_port(0);
            rule.load(&SERVER.octets()).set_address(12);
        });
    });
    batch
}

const UDP: u8 = 17;
const TFTP: [u8; 2] = PORT.to_be_bytes();
