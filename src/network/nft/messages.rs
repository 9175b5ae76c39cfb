//! The messages of `nf_tables`, as far as they are needed here.
//!
//! Numbers are those of `<linux/netfilter/nf_tables.h>`.

use crate::sys::netlink::{ACK, APPEND, Batch, CREATE, EXCL};

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
pub(super) const IPV4: u8 = 2;
pub(super) const BRIDGE: u8 = 7;
// Hooks, the same numbers in both families
pub(super) const PREROUTING: u32 = 0;
pub(super) const INPUT: u32 = 1;
pub(super) const FORWARD: u32 = 2;
pub(super) const OUTPUT: u32 = 3;
pub(super) const POSTROUTING: u32 = 4;
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
/// The type that nft(8) calls `ipv4_addr`; the kernel only stores it.
const TYPE_IPV4_ADDR: u32 = 7;
/// The name of the set.
pub(super) const ADDRESS: &str = "address";
// enum nft_meta_keys
pub(super) const META_PROTOCOL: u32 = 1;
pub(super) const META_MARK: u32 = 3;
pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_OIFNAME: u32 = 7;
pub(super) const META_L4PROTO: u32 = 16;
// enum nft_payload_bases
pub(super) const LINK: u32 = 0;
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Everything between begin and end happens together or not at all.
pub(super) fn transaction(batch: &mut Batch, inside: impl FnOnce(&mut Batch)) {
    batch.begin(BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
    inside(batch);
    batch.begin(BATCH_END, 0, &header(0, SUBSYSTEM));
}

fn message(batch: &mut Batch, kind: u16, flags: u16, family: u8) {
    batch.begin(SUBSYSTEM << 8 | kind, flags | ACK, &header(family, 0));
}

/// Removes a table with all that is in it.
pub(super) fn delete_table(batch: &mut Batch, family: u8, table: &str) {
    message(batch, DELTABLE, 0, family);
    batch.put_text(TABLE_NAME, table);
}

pub(super) fn new_table(batch: &mut Batch, family: u8, table: &str, comment: &str) {
    message(batch, NEWTABLE, CREATE | EXCL, family);
    batch.put_text(TABLE_NAME, table);
    batch.put_be32(TABLE_FLAGS, TABLE_OWNER);
    // libnftnl's format: type (0 = comment), length, text with its NUL.
    let mut text: Vec<u8> = comment.bytes().take(128).chain([0]).collect();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    text.splice(0..0, [0, length]);
    batch.put(TABLE_USERDATA, &text);
}

pub(super) fn new_chain(
    batch: &mut Batch,
    family: u8,
    table: &str,
    name: &str,
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
    batch.put_text(CHAIN_TYPE, "filter");
}

pub(super) fn new_rule(
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
pub(super) fn new_address_set(batch: &mut Batch, table: &str) {
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
pub(super) struct Expressions<'a>(&'a mut Batch);

impl Expressions<'_> {
    fn add(&mut self, name: &str, data: impl FnOnce(&mut Batch)) -> &mut Self {
        self.0.nest(ELEMENT, |element| {
            element.put_text(EXPRESSION_NAME, name);
            element.nest(EXPRESSION_DATA, data);
        });
        self
    }

    pub(super) fn meta(&mut self, key: u32) -> &mut Self {
        self.add("meta", |data| {
            data.put_be32(1, 1); // NFTA_META_DREG
            data.put_be32(2, key); // NFTA_META_KEY
        })
    }

    pub(super) fn set_meta(&mut self, key: u32) -> &mut Self {
        self.add("meta", |data| {
            data.put_be32(2, key); // NFTA_META_KEY
            data.put_be32(3, 1); // NFTA_META_SREG
        })
    }

    pub(super) fn payload(&mut self, base: u32, offset: u32, length: u32) -> &mut Self {
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

    pub(super) fn is(&mut self, value: &[u8]) -> &mut Self {
        self.compare(0, value) // NFT_CMP_EQ
    }

    pub(super) fn is_not(&mut self, value: &[u8]) -> &mut Self {
        self.compare(1, value) // NFT_CMP_NEQ
    }

    /// Clears the bits that `mask` does not have.
    pub(super) fn and<const N: usize>(&mut self, mask: [u8; N]) -> &mut Self {
        self.add("bitwise", |data| {
            data.put_be32(1, 1); // NFTA_BITWISE_SREG
            data.put_be32(2, 1); // NFTA_BITWISE_DREG
            data.put_be32(3, u32::try_from(N).unwrap_or_default()); // NFTA_BITWISE_LEN
            data.nest(4, |inside| inside.put(1, &mask)); // NFTA_BITWISE_MASK
            data.nest(5, |inside| inside.put(1, &[0; N])); // NFTA_BITWISE_XOR
        })
    }

    /// Only a packet with a UDP header: the offset of its fragment is 0.
    pub(super) fn has_ports(&mut self) -> &mut Self {
        self.payload(NETWORK, 6, 2).and([0x1f, 0xff]).is(&[0, 0])
    }

    pub(super) fn in_set(&mut self, name: &str) -> &mut Self {
        self.add("lookup", |data| {
            data.put_text(1, name); // NFTA_LOOKUP_SET
            data.put_be32(2, 1); // NFTA_LOOKUP_SREG
        })
    }

    pub(super) fn add_to_set(&mut self, name: &str) -> &mut Self {
        self.add("dynset", |data| {
            data.put_text(1, name); // NFTA_DYNSET_SET_NAME
            data.put_be32(3, 0); // NFTA_DYNSET_OP: NFT_DYNSET_OP_ADD
            data.put_be32(4, 1); // NFTA_DYNSET_SREG_KEY
        })
    }

    pub(super) fn load(&mut self, value: &[u8]) -> &mut Self {
        self.add("immediate", |data| {
            data.put_be32(1, 1); // NFTA_IMMEDIATE_DREG
            data.nest(2, |inside| inside.put(1, value)); // NFTA_IMMEDIATE_DATA
        })
    }

    pub(super) fn drop(&mut self) -> &mut Self {
        self.add("immediate", |data| {
            data.put_be32(1, 0); // into NFT_REG_VERDICT
            data.nest(2, |inside| {
                // NFTA_DATA_VERDICT with NFTA_VERDICT_CODE NF_DROP
                inside.nest(2, |verdict| verdict.put_be32(1, 0));
            });
        })
    }

    /// Writes register 1 to the UDP header.
    pub(super) fn set_port(&mut self, offset: u32) -> &mut Self {
        self.set_payload(TRANSPORT, offset, 2)
    }

    /// Writes register 1 to the IP header.
    pub(super) fn set_address(&mut self, offset: u32) -> &mut Self {
        self.set_payload(NETWORK, offset, 4)
    }

    /// The flag mends the UDP checksum where there is one; the type that nft(8)
    /// has for a port would also "mend" one of 0.
    fn set_payload(&mut self, base: u32, offset: u32, length: u32) -> &mut Self {
        self.add("payload", |data| {
            data.put_be32(2, base); // NFTA_PAYLOAD_BASE
            data.put_be32(3, offset); // NFTA_PAYLOAD_OFFSET
            data.put_be32(4, length); // NFTA_PAYLOAD_LEN
            data.put_be32(5, 1); // NFTA_PAYLOAD_SREG
            if base == NETWORK {
                data.put_be32(6, 1); // NFTA_PAYLOAD_CSUM_TYPE: NFT_PAYLOAD_CSUM_INET
                data.put_be32(7, 10); // NFTA_PAYLOAD_CSUM_OFFSET
            }
            data.put_be32(8, 1); // NFTA_PAYLOAD_CSUM_FLAGS: NFT_PAYLOAD_L4CSUM_PSEUDOHDR
        })
    }
}
