//! The redirect by `nf_tables` over netlink, without a program. The agent's socket owns
//! the tables (Linux 5.12): no other process can change them, and the kernel removes
//! them when the socket is closed, also by a kill.
//!
//! What is installed, as nft(8) would list it, for tap `T` with address `MAC`, and
//! for a bridge `br1` in the network `NET`/`MASK`:
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
//!     iifname "T" meta protocol != { arp, ip, ip6 } drop
//!     iifname "T" ether saddr != MAC drop
//!     iifname "T" meta protocol ip ip protocol udp ip daddr 196.254.111.222 \
//!       meta mark set M
//!     meta mark M ip saddr != { BRIDGE, NET, LAST } ip saddr & MASK NET \
//!       add @address { ip saddr }
//!     meta mark M ip frag-off & 0x1fff 0 udp dport != 69 drop
//!     meta mark M ip frag-off & 0x1fff 0 udp dport set PORT
//!     meta mark M ip daddr set BRIDGE
//!   }
//!   chain host {
//!     type filter hook input priority -300; policy accept;
//!     iifname "T" meta protocol ip ip daddr != { BRIDGE, LAST } \
//!       ip daddr & MASK NET drop
//!   }
//!   chain ports {
//!     type filter hook output priority 0; policy accept;
//!     meta mark M oifname != "T" drop
//!   }
//!   chain group {
//!     type filter hook forward priority 0; policy accept;
//!     iifname "T" oifname "bb-*" oifname != { GROUP } drop
//!     oifname "T" iifname "bb-*" iifname != { GROUP } drop
//!   }
//! }
//! table ip bbot-agent-T {
//!   chain guard {
//!     type filter hook input priority -10; policy accept;
//!     ip daddr BRIDGE udp dport PORT meta mark != M drop
//!   }
//!   chain answers {
//!     type filter hook postrouting priority 200; policy accept;
//!     ip saddr BRIDGE udp sport PORT oifname != "br1" drop
//!     ip saddr BRIDGE udp sport PORT meta mark set M udp sport set 69 \
//!       ip saddr set 196.254.111.222
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
//! The rules list what a guest may send: any tag before a
//! packet (VLAN, and one more inside) would hide it from rules that look at
//! addresses, and the kernel takes empty tags off later.
//!
//! The source address of a guest's first request belongs to that guest: no guest on
//! another tap of the agent can claim it by ARP or send with it. The rule covers only
//! the agent's taps; otherwise a hostile guest could cut off other stations by
//! claiming their addresses. Addresses that no guest may have do not count, so that
//! 0.0.0.0 cuts off no guest that has none yet. A guest with another address later
//! uses it without this protection. A guest that claims the address of another one
//! before that one's first request cuts it off.
//!
//! The answer to a request leaves by the guest's tap or not at all (`answers`,
//! `ports`), for every source address. So a guest cannot make the server send to
//! another station, and cannot get another guest's answers by claiming its address.
//!
//! Ports are isolated, but a host that routes would take a packet that a guest
//! sends to the host's hardware address and bring it to another guest. So what
//! reaches the host itself (`host`) and has an address of the guests' network
//! must be for the host. Packets that the bridge passes on do not come there: other
//! stations of that network stay within reach. There is one such rule for each
//! network of the bridge, with all of its addresses there. IPv6 is not looked at:
//! between guests it needs a host with an IPv6 address on the bridge that routes it.
//!
//! The guests of one task reach each other: their ports are not isolated, and `group`
//! takes the place of that for the taps of all agents (GROUP has the other taps of the
//! task). A guest without companions has no such chain.
//!
//! Fragments: each carries the mark and gets the address, the first of them,
//! which has the ports, also the port. (nf_tables does not skip port
//! matches for later fragments.) They are put together before the guard sees
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
    ADDRESS, BRIDGE, Expressions, FORWARD, INPUT, IPV4, LINK, META_IIFNAME, META_L4PROTO,
    META_MARK, META_OIFNAME, META_PROTOCOL, NETWORK, OUTPUT, POSTROUTING, PREROUTING, TRANSPORT,
    delete_table, new_address_set, new_chain, new_rule, new_table, transaction,
};
pub use owner::Netfilter;

use super::tap::PREFIX;
use super::{Bridge, Mac, Network, PORT, SERVER};
use crate::sys::net::InterfaceName;
use crate::sys::netlink::{Batch, NetlinkSocket};

/// The tables of one redirect.
#[derive(Debug)]
pub(super) struct Tables {
    socket: Rc<NetlinkSocket>,
    netfilter: Netfilter,
    name: String,
}

/// The parameters of the rules.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) bridge: &'a Bridge,
    pub(super) tap: &'a InterfaceName,
    /// A number that no other tap of the network namespace has.
    pub(super) mark: u32,
    /// The only source address that the tap may send with, where it is known.
    pub(super) mac: Option<Mac>,
    pub(super) server: SocketAddrV4,
    /// The other taps of the task.
    pub(super) group: &'a [InterfaceName],
    /// The agent, which `nft list ruleset` shows.
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
    let mut batch = Batch::new();
    transaction(&mut batch, |batch| {
        new_table(batch, BRIDGE, table, rules.owner);
        new_address_set(batch, table);
        frames_of_others(batch, table, rules);
        frames_of_the_guest(batch, table, rules);
        frames_of_the_host(batch, table, rules);
        if !rules.group.is_empty() {
            frames_of_the_group(batch, table, rules);
        }
        new_table(batch, IPV4, table, rules.owner);
        packets(batch, table, rules);
    });
    batch
}

fn frames_of_others(batch: &mut Batch, table: &str, rules: &Rules<'_>) {
    new_chain(batch, BRIDGE, table, "others", PREROUTING, -301);
    // Where the sender's address is in an ARP packet, and in an IP one.
    for (protocol, offset) in [(ARP, 14), (IP, SOURCE)] {
        new_rule(batch, BRIDGE, table, "others", |rule| {
            rule.meta(META_IIFNAME).is(PREFIX.as_bytes());
            rule.is_not(&rules.tap.field());
            rule.meta(META_PROTOCOL).is(&protocol);
            rule.payload(NETWORK, offset, 4).in_set(ADDRESS).drop();
        });
    }
}

fn frames_of_the_guest(batch: &mut Batch, table: &str, rules: &Rules<'_>) {
    let tap = rules.tap.field();
    let mark = rules.mark.to_ne_bytes();
    new_chain(batch, BRIDGE, table, "guest", PREROUTING, -300);
    let mut rule = |build: &dyn Fn(&mut Expressions<'_>)| {
        new_rule(batch, BRIDGE, table, "guest", build);
    };
    rule(&|rule| {
        rule.meta(META_IIFNAME).is(&tap).meta(META_PROTOCOL);
        rule.is_not(&ARP).is_not(&IP).is_not(&IPV6).drop();
    });
    if let Some(mac) = rules.mac {
        rule(&|rule| {
            rule.meta(META_IIFNAME).is(&tap);
            rule.payload(LINK, 6, 6).is_not(&mac.0).drop();
        });
    }
    rule(&|rule| {
        rule.meta(META_IIFNAME).is(&tap);
        rule.meta(META_PROTOCOL).is(&IP);
        rule.payload(NETWORK, 9, 1).is(&[UDP]);
        rule.payload(NETWORK, DESTINATION, 4).is(&SERVER.octets());
        rule.load(&mark).set_meta(META_MARK);
    });
    for network in networks(rules) {
        rule(&|rule| {
            rule.meta(META_MARK).is(&mark);
            rule.payload(NETWORK, SOURCE, 4);
            rule.is_not(&network.first().octets());
            stations(rule, rules.bridge, network);
            rule.payload(NETWORK, SOURCE, 4).add_to_set(ADDRESS);
        });
    }
    rule(&|rule| {
        rule.meta(META_MARK).is(&mark).has_ports();
        rule.payload(TRANSPORT, 2, 2).is_not(&TFTP).drop();
    });
    rule(&|rule| {
        rule.meta(META_MARK).is(&mark).has_ports();
        rule.load(&rules.server.port().to_be_bytes()).set_port(2);
    });
    rule(&|rule| {
        rule.meta(META_MARK).is(&mark);
        rule.load(&rules.server.ip().octets());
        rule.set_address(DESTINATION);
    });
}

/// To the host, and from it.
fn frames_of_the_host(batch: &mut Batch, table: &str, rules: &Rules<'_>) {
    let tap = rules.tap.field();
    new_chain(batch, BRIDGE, table, "host", INPUT, -300);
    for network in networks(rules) {
        new_rule(batch, BRIDGE, table, "host", |rule| {
            rule.meta(META_IIFNAME).is(&tap);
            rule.meta(META_PROTOCOL).is(&IP);
            rule.payload(NETWORK, DESTINATION, 4);
            stations(rule, rules.bridge, network);
            rule.drop();
        });
    }
    new_chain(batch, BRIDGE, table, "ports", OUTPUT, 0);
    new_rule(batch, BRIDGE, table, "ports", |rule| {
        rule.meta(META_MARK).is(&rules.mark.to_ne_bytes());
        rule.meta(META_OIFNAME).is_not(&tap).drop();
    });
}

/// Between this tap and other ones.
fn frames_of_the_group(batch: &mut Batch, table: &str, rules: &Rules<'_>) {
    let tap = rules.tap.field();
    new_chain(batch, BRIDGE, table, "group", FORWARD, 0);
    for (own, other) in [(META_IIFNAME, META_OIFNAME), (META_OIFNAME, META_IIFNAME)] {
        new_rule(batch, BRIDGE, table, "group", |rule| {
            rule.meta(own).is(&tap);
            rule.meta(other).is(PREFIX.as_bytes());
            for name in rules.group {
                rule.is_not(&name.field());
            }
            rule.drop();
        });
    }
}

/// The networks that a guest can be in.
fn networks(rules: &Rules<'_>) -> impl Iterator<Item = Network> {
    let networks = rules.bridge.networks.iter().copied();
    networks.filter(|network| network.has_room())
}

/// Only a packet whose address, which is loaded, is in the network and neither the
/// host's nor everybody's.
fn stations(rule: &mut Expressions<'_>, bridge: &Bridge, network: Network) {
    let of_the_host = bridge.networks.iter().map(|network| network.address);
    for address in of_the_host.chain([network.broadcast()]) {
        rule.is_not(&address.octets());
    }
    rule.and(network.mask().octets())
        .is(&network.first().octets());
}

fn packets(batch: &mut Batch, table: &str, rules: &Rules<'_>) {
    let mark = rules.mark.to_ne_bytes();
    let server = rules.server.ip().octets();
    let port = rules.server.port().to_be_bytes();
    new_chain(batch, IPV4, table, "guard", INPUT, -10);
    new_rule(batch, IPV4, table, "guard", |rule| {
        rule.payload(NETWORK, DESTINATION, 4).is(&server);
        rule.meta(META_L4PROTO).is(&[UDP]);
        rule.payload(TRANSPORT, 2, 2).is(&port);
        rule.meta(META_MARK).is_not(&mark).drop();
    });
    new_chain(batch, IPV4, table, "answers", POSTROUTING, 200);
    let answer = |rule: &mut Expressions<'_>| {
        rule.payload(NETWORK, SOURCE, 4).is(&server);
        rule.meta(META_L4PROTO).is(&[UDP]);
        rule.payload(TRANSPORT, 0, 2).is(&port);
    };
    new_rule(batch, IPV4, table, "answers", |rule| {
        answer(rule);
        rule.meta(META_OIFNAME);
        rule.is_not(&rules.bridge.name.field()).drop();
    });
    new_rule(batch, IPV4, table, "answers", |rule| {
        answer(rule);
        rule.load(&mark).set_meta(META_MARK);
        rule.load(&TFTP).set_port(0);
        rule.load(&SERVER.octets()).set_address(SOURCE);
    });
}

const ARP: [u8; 2] = [0x08, 0x06];
const IP: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Where the addresses are in a header of IPv4.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const UDP: u8 = 17;
const TFTP: [u8; 2] = PORT.to_be_bytes();
