//! Connection tracking, after a redirect has gone.
//!
//! The kernel remembers a redirected connection for up to two minutes. A guest
//! that starts again with the same source port (firmware counts from a fixed
//! one) would reach the server that is gone and not the new one. So entries
//! that lead to our port go with the rule; others' stay.
//!
//! Numbers are those of `<linux/netfilter/nfnetlink_conntrack.h>`.

use std::io;
use std::net::SocketAddrV4;

use super::{PORT, SERVER};
use crate::sys::netlink::{self, ACK, Batch, DUMP, Socket};

const GET: u16 = 1 << 8 | 1; // subsystem CTNETLINK, IPCTNL_MSG_CT_GET
const DELETE: u16 = 1 << 8 | 2;
/// `struct nfgenmsg`, family IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const ID: u16 = 12;
const UDP: u8 = 17;

/// Forgets the connections of `peers` to the address that guests know.
pub(super) fn forget(peers: &[SocketAddrV4]) -> io::Result<usize> {
    if peers.is_empty() {
        return Ok(0);
    }
    let socket = Socket::netfilter()?;
    let mut count = 0;
    for peer in peers {
        let mut delete = Batch::new();
        delete.begin(DELETE, ACK, &HEADER);
        delete.nest(TUPLE_ORIG, |tuple| {
            tuple.nest(TUPLE_IP, |ip| {
                ip.put(1, &peer.ip().octets()); // CTA_IP_V4_SRC
                ip.put(2, &SERVER.octets()); // CTA_IP_V4_DST
            });
            tuple.nest(TUPLE_PROTO, |protocol| {
                protocol.put(1, &[UDP]); // CTA_PROTO_NUM
                protocol.put(2, &peer.port().to_be_bytes()); // CTA_PROTO_SRC_PORT
                protocol.put(3, &PORT.to_be_bytes()); // CTA_PROTO_DST_PORT
            });
        });
        count += usize::from(request(&socket, &delete)?);
    }
    Ok(count)
}

/// Forgets all connections that were redirected to `server`. The kernel goes
/// through all that it knows for it, which takes some 10 ms.
pub(super) fn forget_all(server: SocketAddrV4) -> io::Result<usize> {
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
        request(&socket, delete)?;
    }
    Ok(deletions.len())
}

/// Whether there was anything to delete: it may have expired.
fn request(socket: &Socket, delete: &Batch) -> io::Result<bool> {
    match socket.request(delete) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true),
    }
}

fn source(tuple: &[u8]) -> Option<SocketAddrV4> {
    end(tuple, 1, 2)
}

fn destination(tuple: &[u8]) -> Option<SocketAddrV4> {
    end(tuple, 2, 3)
}

/// One end of a UDP tuple, by the attribute types of its address and its port.
fn end(tuple: &[u8], address: u16, port: u16) -> Option<SocketAddrV4> {
    let ip = netlink::attribute(tuple, TUPLE_IP)?;
    let protocol = netlink::attribute(tuple, TUPLE_PROTO)?;
    if netlink::attribute(protocol, 1)? != [UDP] {
        return None;
    }
    let address: [u8; 4] = netlink::attribute(ip, address)?.try_into().ok()?;
    let port: [u8; 2] = netlink::attribute(protocol, port)?.try_into().ok()?;
    Some(SocketAddrV4::new(address.into(), u16::from_be_bytes(port)))
}
