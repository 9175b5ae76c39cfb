//! Connection tracking, after rules of iptables have gone: these are NAT.
//!
//! The kernel remembers a redirected connection for up to two minutes. A guest
//! that starts again with the same source port (firmware counts from a fixed
//! one) would reach the server that is gone and not the new one. So entries
//! that lead to our port go with the rule; others' stay.
//!
//! Numbers are those of `<linux/netfilter/nfnetlink_conntrack.h>`.

use std::io;
use std::net::SocketAddrV4;

use crate::sys::netlink::{self, ACK, Batch, DUMP, Socket};

const GET: u16 = 1 << 8 | 1; // subsystem CTNETLINK, IPCTNL_MSG_CT_GET
const DELETE: u16 = 1 << 8 | 2;
/// `struct nfgenmsg`, family IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const UDP: u8 = 17;

/// Forgets the connections that were redirected to `server`.
pub(super) fn forget(server: SocketAddrV4) -> io::Result<usize> {
    let socket = Socket::netfilter()?;
    let mut all = Batch::new();
    all.begin(GET, DUMP, &HEADER);
    let mut deletions = Vec::new();
    socket.exchange(&all, |message| {
        let entry = message.payload.get(HEADER.len()..).unwrap_or_default();
        let attribute = |kind| netlink::attribute(entry, kind).unwrap_or_default();
        let (original, reply) = (attribute(TUPLE_ORIG), attribute(TUPLE_REPLY));
        // Answers come from us, the request was to somewhere else.
        if source(reply) != Some(server) || destination(original) == Some(server) {
            return;
        }
        let mut delete = Batch::new();
        delete.begin(DELETE, ACK, &HEADER);
        delete.nest(TUPLE_ORIG, |inside| {
            for (kind, value) in netlink::attributes(original) {
                inside.nest(kind, |inside| {
                    for (kind, value) in netlink::attributes(value) {
                        inside.put(kind, value);
                    }
                });
            }
        });
        delete.put(ID, attribute(ID));
        deletions.push(delete);
    })?;
    for delete in &deletions {
        match socket.request(delete) {
            // It has expired since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(deletions.len())
}

fn source(tuple: &[u8]) -> Option<SocketAddrV4> {
    end(tuple, 1, 2)
}

fn destination(tuple: &[u8]) -> Option<SocketAddrV4> {
    end(tuple, 2, 3)
}

/// One end of a UDP tuple, by the attribute types of its address and its port.
fn end(tuple: &[u8], address: u16, port: u16) -> Option<SocketAddrV4> {
    let ip = netlink::attribute(tuple, 1)?; // CTA_TUPLE_IP
    let protocol = netlink::attribute(tuple, 2)?; // CTA_TUPLE_PROTO
    if netlink::attribute(protocol, 1)? != [UDP] {
        return None;
    }
    let address: [u8; 4] = netlink::attribute(ip, address)?.try_into().ok()?;
    let port: [u8; 2] = netlink::attribute(protocol, port)?.try_into().ok()?;
    Some(SocketAddrV4::new(address.into(), u16::from_be_bytes(port)))
}
