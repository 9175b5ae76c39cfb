//! The way of a guest's frames: to the agent's server, and to a DHCP server.
//!
//! Frames are written into the tap as QEMU would, so that each rule of the host and each
//! port of the bridge is on their way.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use super::Finding;
use crate::network::{Bridge, Mac, Strategy, Tap};
use crate::sys::poll::Waited;
use crate::watch::Watch;

/// The time for a request to reach the server. It crosses no wire.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// The time for an offer: dnsmasq(8) tries for 3 seconds whether an address is in use.
const OFFER_TIME: Duration = Duration::from_secs(4);

/// The time after which a frame is sent again.
const RETRY_TIME: Duration = Duration::from_millis(500);

/// The size of `struct virtio_net_hdr`, which precedes each frame of a tap. Its zeros say that
/// the frame is complete.
const VNET_HEADER: usize = 10;

/// UDP ports of DHCP (RFC 2131, section 4.1).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

/// The identifier of the transaction.
const XID: [u8; 4] = *b"bbot";

/// Whether frames are forwarded as soon as the tap is up: not with the spanning tree
/// protocol.
pub(super) fn forwards_at_once(bridge: &Bridge) -> bool {
    let path = format!("/sys/class/net/{}/bridge/stp_state", bridge.name);
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0")
}

/// Sends requests of a guest and looks whether one reaches `server`, to which they are
/// redirected.
pub(super) fn request(
    bridge: &Bridge,
    tap: &Tap,
    strategy: Strategy,
    server: &UdpSocket,
    watch: &Watch,
) -> Finding {
    const SUBJECT: &str = "requests";
    // The host drops sources that are not of the network (rp_filter).
    let address = u32::from(bridge.address);
    let mut networks = bridge.networks.iter();
    let network = networks.find(|network| network.address == bridge.address);
    let end = network.map_or(address, |network| u32::from(network.broadcast()));
    let near = if address + 1 < end {
        address + 1
    } else {
        address - 1
    };
    let guest = Ipv4Addr::from(near);
    let to = SocketAddrV4::new(crate::network::SERVER, crate::network::PORT);
    let sent = bridge.hardware_address().and_then(|gateway| {
        let from = SocketAddrV4::new(guest, 1024);
        let frame = frame(gateway, Mac::random(), from, to, b"check");
        let arrives = || server.recv_from(&mut [0; 16]).is_ok();
        exchange(tap, &frame, server.as_fd(), REQUEST_TIME, watch, arrives)
    });
    let name = &bridge.name;
    match sent {
        Ok(true) => Finding::good(SUBJECT, format!("those of guests reach the agent ({to})")),
        Ok(false) => {
            let port = match strategy {
                Strategy::Nft => "any UDP port".to_owned(),
                Strategy::None => format!("UDP port {}", crate::network::PORT),
            };
            let text = "a request of a guest does not reach the agent: a firewall of this host \
                        drops it";
            Finding::failure(SUBJECT, format!("{text}; guests need {port} on {name}"))
                .remedy(format!("with ufw: ufw allow in on {name}"))
                .remedy(format!(
                    "with firewalld: firewall-cmd --permanent --zone=trusted \
                     --add-interface={name} && firewall-cmd --reload"
                ))
                .remedy("else accept what comes in by it: nft list ruleset shows the rules")
        }
        Err(error) => Finding::error(SUBJECT, &error),
    }
}

/// Looks whether a DHCP server offers an address to a guest. None is taken.
pub(super) fn dhcp(bridge: &Bridge, tap: &Tap, watch: &Watch) -> Finding {
    const SUBJECT: &str = "DHCP";
    let mac = Mac::random();
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, DHCP_CLIENT);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_SERVER);
    let frame = frame(Mac([0xff; 6]), mac, from, to, &discover(mac));
    let mut offered = None;
    let arrives = || {
        let mut buffer = [0; 2048];
        // One read for each wake-up, because the descriptor blocks.
        let length = nix::unistd::read(tap.fd(), &mut buffer).unwrap_or_default();
        offered = offer(buffer.get(VNET_HEADER..length).unwrap_or_default());
        offered.is_some()
    };
    let name = &bridge.name;
    match exchange(tap, &frame, tap.fd(), OFFER_TIME, watch, arrives) {
        Err(error) => Finding::error(SUBJECT, &error),
        Ok(_) => match offered {
            Some(address) => Finding::good(SUBJECT, format!("a guest is offered {address}")),
            None => Finding::warning(
                SUBJECT,
                format!(
                    "no server on {name} offers an address within {} s: only guests with an \
                     address of their own can ask for tasks",
                    OFFER_TIME.as_secs()
                ),
            )
            .remedy("SETTING UP A HOST of the manual has one: bbot-agent --print-man | man -l -")
            .remedy(format!(
                "a server behind a port of {name} needs a firewall that forwards (FORWARD policy)"
            )),
        },
    }
}

/// Sends a frame again and again until `arrives` says so, at most for `time`, each time
/// when `fd` can be read. Returns whether it did.
fn exchange(
    tap: &Tap,
    frame: &[u8],
    fd: BorrowedFd<'_>,
    time: Duration,
    watch: &Watch,
    mut arrives: impl FnMut() -> bool,
) -> crate::error::Result<bool> {
    use crate::error::Context as _;
    let unable = || format!("unable to send a frame by {}", tap.name());
    let end = Instant::now() + time;
    loop {
        let sent = nix::unistd::write(tap.fd(), frame).map_err(io::Error::from);
        sent.context(unable)?;
        let retry = (Instant::now() + RETRY_TIME).min(end);
        loop {
            match watch.wait(&[fd], retry).context(unable)? {
                Waited::Readable if arrives() => return Ok(true),
                Waited::Readable => {}
                Waited::Stopped => return Ok(false),
                Waited::Deadline => break,
            }
        }
        if Instant::now() >= end {
            return Ok(false);
        }
    }
}

/// A UDP packet in a frame of a tap. Its own checksum is left out (RFC 768).
fn frame(to: Mac, from: Mac, source: SocketAddrV4, target: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    // The callers' data have at most some hundred bytes.
    let length = |headers: usize| {
        u16::try_from(data.len() + headers)
            .unwrap_or(u16::MAX)
            .to_be_bytes()
    };
    let mut ip = [&[0x45, 0][..], &length(28), &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
    ip.extend(source.ip().octets());
    ip.extend(target.ip().octets());
    let words = ip
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!u16::try_from(sum).unwrap_or(u16::MAX)).to_be_bytes());
    let ports = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
    let ipv4 = [0x08, 0x00];
    [
        &[0; VNET_HEADER][..],
        &to.0,
        &from.0,
        &ipv4,
        &ip,
        &ports,
        &length(8),
        &[0, 0],
        data,
    ]
    .concat()
}

/// A DHCPDISCOVER whose answer is to be broadcast (RFC 2131, section 2; RFC 2132, section
/// 9.6).
fn discover(mac: Mac) -> Vec<u8> {
    let mut message = vec![0; 236];
    // A request, on Ethernet, with addresses of 6 bytes.
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&XID);
    message[10] = 0x80;
    message[28..34].copy_from_slice(&mac.0);
    message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    // A BOOTP message has at least this size (RFC 1542, section 2.1).
    message.resize(300, 0);
    message
}

/// The address in a DHCPOFFER, if the frame is one.
fn offer(frame: &[u8]) -> Option<Ipv4Addr> {
    let ip = frame.get(14..)?;
    let header = usize::from(*ip.first()? & 0x0f) * 4;
    let udp = ip.get(header..)?;
    let is_udp = frame[12..14] == [0x08, 0x00] && *ip.get(9)? == 17;
    let is_to_client = udp.get(2..4)? == DHCP_CLIENT.to_be_bytes();
    let message = udp.get(8..)?;
    let is_answer = *message.first()? == 2 && message.get(4..8)? == XID;
    let address: [u8; 4] = message.get(16..20)?.try_into().ok()?;
    (is_udp && is_to_client && is_answer).then(|| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_read_and_no_other_frame() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), DHCP_SERVER);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT);
        let mut message = discover(mac);
        message[0] = 2;
        message[16..20].copy_from_slice(&[10, 0, 0, 7]);
        let good = frame(mac, mac, from, to, &message);
        let read = |frame: &[u8]| offer(&frame[VNET_HEADER..]);
        assert_eq!(read(&good), Some(Ipv4Addr::new(10, 0, 0, 7)));
        for length in VNET_HEADER..VNET_HEADER + 62 {
            assert_eq!(read(&good[..length]), None, "{length}");
        }
        for at in [12, 23, 37, 42, 46].map(|at| at + VNET_HEADER) {
            let mut other = good.clone();
            other[at] ^= 1;
            assert_eq!(read(&other), None, "{at}");
        }
        // The header's checksum makes its sum 0xffff (RFC 1071).
        let words = good[VNET_HEADER + 14..VNET_HEADER + 34].chunks(2);
        let sum: u32 = words
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
