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

use std::io;
use std::net::SocketAddrV4;

use super::tap::PREFIX;
use super::{Mac, PORT, SERVER};
use crate::sys::net::Name;
use crate::sys::netlink::{ACK, APPEND, Batch, CREATE, EXCL, Socket};

/// The tables of one redirect; gone when this is.
#[derive(Debug)]
pub(super) struct Tables {
    socket: Socket,
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
    pub(super) fn install(rules: &Rules<'_>) -> io::Result<Tables> {
        let socket = Socket::netfilter()?;
        let name = format!("bbot-agent-{}", rules.tap);
        socket.request(&installation(&name, rules))?;
        Ok(Tables { socket, name })
    }

    /// Removes the rules and waits for it.
    pub(super) fn remove(self) -> io::Result<()> {
        let mut batch = Batch::new();
        transaction(&mut batch, |batch| {
            for family in [BRIDGE, IPV4] {
                message(batch, DELTABLE, 0, family);
                batch.put_text(TABLE_NAME, &self.name);
            }
        });
        self.socket.request(&batch)
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
        new_chain(batch, BRIDGE, table, "others", "filter", PREROUTING, -301);
        // Where the sender's address is in an ARP packet, and in an IP one.
        for (protocol, offset) in [([0x08, 0x06], 14), ([0x08, 0x00], 12)] {
            new_rule(batch, BRIDGE, table, "others", |rule| {
                rule.meta(META_IIFNAME).is(PREFIX.as_bytes()).is_not(&tap);
                rule.meta(META_PROTOCOL).is(&protocol);
                rule.payload(NETWORK, offset, 4).in_set(ADDRESS).drop();
            });
        }
        new_chain(batch, BRIDGE, table, "guest", "filter", PREROUTING, -300);
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
        new_chain(batch, IPV4, table, "guard", "filter", INPUT, -10);
        new_rule(batch, IPV4, table, "guard", |rule| {
            rule.payload(NETWORK, 16, 4).is(&server);
            rule.meta(META_L4PROTO).is(&[UDP]);
            rule.payload(TRANSPORT, 2, 2).is(&port);
            rule.meta(META_MARK).is_not(&mark).drop();
        });
        new_chain(batch, IPV4, table, "answers", "filter", POSTROUTING, 200);
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

// <linux/netfilter/nfnetlink.h>
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
// enum nf_tables_msg_types
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
// Families, NFPROTO_*
const IPV4: u8 = 2;
const BRIDGE: u8 = 7;
// Hooks, the same numbers in both families
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const POSTROUTING: u32 = 4;
// NFTA_TABLE_*
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_USERDATA: u16 = 6;
/// `NFT_TABLE_F_OWNER`
const TABLE_OWNER: u32 = 2;
// NFTA_CHAIN_*, NFTA_HOOK_*
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
// NFTA_RULE_*, NFTA_LIST_ELEM, NFTA_EXPR_*
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
// NFTA_SET_*, NFTA_SET_DESC_*
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const SET_SIZE: u16 = 1;
/// `NFT_SET_EVAL`
const SET_DYNAMIC: u32 = 0x20;
/// What nft(8) calls `ipv4_addr`; the kernel only keeps it.
const TYPE_IPV4_ADDR: u32 = 7;
/// The name of the set.
const ADDRESS: &str = "address";
// enum nft_meta_keys
const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_L4PROTO: u32 = 16;
// enum nft_payload_bases
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Everything between begin and end happens together or not at all.
fn transaction(batch: &mut Batch, inside: impl FnOnce(&mut Batch)) {
    batch.begin(BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
    inside(batch);
    batch.begin(BATCH_END, 0, &header(0, SUBSYSTEM));
}

fn message(batch: &mut Batch, kind: u16, flags: u16, family: u8) {
    batch.begin(SUBSYSTEM << 8 | kind, flags | ACK, &header(family, 0));
}

fn new_table(batch: &mut Batch, family: u8, table: &str, comment: &str) {
    message(batch, NEWTABLE, CREATE | EXCL, family);
    batch.put_text(TABLE_NAME, table);
    batch.put_be32(TABLE_FLAGS, TABLE_OWNER);
    // libnftnl's format: type (0 = comment), length, text with its NUL.
    let mut text: Vec<u8> = comment.bytes().take(128).chain([0]).collect();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    text.splice(0..0, [0, length]);
    batch.put(TABLE_USERDATA, &text);
}

fn new_chain(
    batch: &mut Batch,
    family: u8,
    table: &str,
    name: &str,
    kind: &str,
    hook: u32,
    priority: i32,
) {
    message(batch, NEWCHAIN, CREATE, family);
    batch.put_text(CHAIN_TABLE, table);
    batch.put_text(CHAIN_NAME, name);
    batch.nest(CHAIN_HOOK, |inside| {
        inside.put_be32(HOOK_NUMBER, hook);
        inside.put_be32(HOOK_PRIORITY, priority.cast_unsigned());
    });
    batch.put_text(CHAIN_TYPE, kind);
}

fn new_rule(
    batch: &mut Batch,
    family: u8,
    table: &str,
    chain: &str,
    build: impl FnOnce(&mut Expressions<'_>),
) {
    message(batch, NEWRULE, CREATE | APPEND, family);
    batch.put_text(RULE_TABLE, table);
    batch.put_text(RULE_CHAIN, chain);
    batch.nest(RULE_EXPRESSIONS, |inside| build(&mut Expressions(inside)));
}

/// A set for one IPv4 address, which rules add.
fn new_address_set(batch: &mut Batch, table: &str) {
    message(batch, NEWSET, CREATE, BRIDGE);
    batch.put_text(SET_TABLE, table);
    batch.put_text(SET_NAME, ADDRESS);
    batch.put_be32(SET_FLAGS, SET_DYNAMIC);
    batch.put_be32(SET_KEY_TYPE, TYPE_IPV4_ADDR);
    batch.put_be32(SET_KEY_LENGTH, 4);
    batch.nest(SET_DESCRIPTION, |inside| inside.put_be32(SET_SIZE, 1));
    batch.put_be32(SET_ID, 1);
}

/// The expressions of a rule: loads into register 1, and what is done with it.
struct Expressions<'a>(&'a mut Batch);

impl Expressions<'_> {
    fn add(&mut self, name: &str, data: impl FnOnce(&mut Batch)) -> &mut Self {
        self.0.nest(ELEMENT, |element| {
            element.put_text(EXPRESSION_NAME, name);
            element.nest(EXPRESSION_DATA, data);
        });
        self
    }

    fn meta(&mut self, key: u32) -> &mut Self {
        self.add("meta", |data| {
            data.put_be32(1, 1); // NFTA_META_DREG
            data.put_be32(2, key); // NFTA_META_KEY
        })
    }

    fn set_meta(&mut self, key: u32) -> &mut Self {
        self.add("meta", |data| {
            data.put_be32(2, key); // NFTA_META_KEY
            data.put_be32(3, 1); // NFTA_META_SREG
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) -> &mut Self {
        self.add("payload", |data| {
            data.put_be32(1, 1); // NFTA_PAYLOAD_DREG
            data.put_be32(2, base); // NFTA_PAYLOAD_BASE
            data.put_be32(3, offset); // NFTA_PAYLOAD_OFFSET
            data.put_be32(4, length); // NFTA_PAYLOAD_LEN
        })
    }

    fn compare(&mut self, operation: u32, value: &[u8]) -> &mut Self {
        self.add("cmp", |data| {
            data.put_be32(1, 1); // NFTA_CMP_SREG
            data.put_be32(2, operation); // NFTA_CMP_OP
            data.nest(3, |inside| inside.put(1, value)); // NFTA_CMP_DATA
        })
    }

    fn is(&mut self, value: &[u8]) -> &mut Self {
        self.compare(0, value) // NFT_CMP_EQ
    }

    fn is_not(&mut self, value: &[u8]) -> &mut Self {
        self.compare(1, value) // NFT_CMP_NEQ
    }

    /// Only a packet with a UDP header: the offset of its fragment is 0.
    fn has_ports(&mut self) -> &mut Self {
        self.payload(NETWORK, 6, 2);
        self.add("bitwise", |data| {
            data.put_be32(1, 1); // NFTA_BITWISE_SREG
            data.put_be32(2, 1); // NFTA_BITWISE_DREG
            data.put_be32(3, 2); // NFTA_BITWISE_LEN
            data.nest(4, |inside| inside.put(1, &[0x1f, 0xff])); // NFTA_BITWISE_MASK
            data.nest(5, |inside| inside.put(1, &[0, 0])); // NFTA_BITWISE_XOR
        });
        self.is(&[0, 0])
    }

    fn in_set(&mut self, name: &str) -> &mut Self {
        self.add("lookup", |data| {
            data.put_text(1, name); // NFTA_LOOKUP_SET
            data.put_be32(2, 1); // NFTA_LOOKUP_SREG
        })
    }

    fn add_to_set(&mut self, name: &str) -> &mut Self {
        self.add("dynset", |data| {
            data.put_text(1, name); // NFTA_DYNSET_SET_NAME
            data.put_be32(3, 0); // NFTA_DYNSET_OP: NFT_DYNSET_OP_ADD
            data.put_be32(4, 1); // NFTA_DYNSET_SREG_KEY
        })
    }

    fn load(&mut self, value: &[u8]) -> &mut Self {
        self.add("immediate", |data| {
            data.put_be32(1, 1); // NFTA_IMMEDIATE_DREG
            data.nest(2, |inside| inside.put(1, value)); // NFTA_IMMEDIATE_DATA
        })
    }

    fn drop(&mut self) -> &mut Self {
        self.add("immediate", |data| {
            data.put_be32(1, 0); // into NFT_REG_VERDICT
            data.nest(2, |inside| {
                // NFTA_DATA_VERDICT with NFTA_VERDICT_CODE NF_DROP
                inside.nest(2, |verdict| verdict.put_be32(1, 0));
            });
        })
    }

    /// Writes register 1 to the UDP header.
    fn set_port(&mut self, offset: u32) -> &mut Self {
        self.set_payload(TRANSPORT, offset, |_| ())
    }

    /// Writes register 1 to the IP header.
    fn set_address(&mut self, offset: u32) -> &mut Self {
        self.set_payload(NETWORK, offset, |data| {
            data.put_be32(6, 1); // NFTA_PAYLOAD_CSUM_TYPE: NFT_PAYLOAD_CSUM_INET
            data.put_be32(7, 10); // NFTA_PAYLOAD_CSUM_OFFSET
        })
    }

    /// The flag mends the UDP checksum where there is one; the type that nft(8)
    /// has for a port would also "mend" one of 0.
    fn set_payload(
        &mut self,
        base: u32,
        offset: u32,
        checksum: impl FnOnce(&mut Batch),
    ) -> &mut Self {
        let length = if base == TRANSPORT { 2 } else { 4 };
        self.add("payload", |data| {
            data.put_be32(2, base); // NFTA_PAYLOAD_BASE
            data.put_be32(3, offset); // NFTA_PAYLOAD_OFFSET
            data.put_be32(4, length); // NFTA_PAYLOAD_LEN
            data.put_be32(5, 1); // NFTA_PAYLOAD_SREG
            checksum(data);
            data.put_be32(8, 1); // NFTA_PAYLOAD_CSUM_FLAGS: NFT_PAYLOAD_L4CSUM_PSEUDOHDR
        })
    }
}
