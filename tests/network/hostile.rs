//! Guests that send what no network stack would: frames are written to their
//! taps by hand.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use bbot_agent::network::{Bridge, Strategy};
use bbot_agent::sys::net::InterfaceName;
use bbot_agent::sys::tap;

use super::{Station, TFTP, mac, with_bridge};
use crate::support::netns::{GATEWAY, Guest};
use crate::support::{PATIENCE, eventually, require_programs, run};

const ALL: [u8; 6] = [0xff; 6];
/// 802.1AB: a bridge keeps frames to this address to itself.
const LLDP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
/// The host's side of every tap of ours, which the host also listens to.
const HOST_SIDE: &str = "fe:ff:ff:62:62:74";

const IP: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;

fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 123, n)
}

fn frame(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// A UDP packet without a checksum of its own.
fn udp(from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    let length = |more: usize| u16::try_from(data.len() + more).unwrap().to_be_bytes();
    let mut ip = [&[0x45, 0][..], &length(28), &[0, 7, 0, 0, 64, 17, 0, 0]].concat();
    ip.extend(from.ip().octets());
    ip.extend(to.ip().octets());
    let words = ip.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum = words.sum::<u32>();
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
    for port in [from.port(), to.port()] {
        ip.extend(port.to_be_bytes());
    }
    ip.extend(length(8));
    ip.extend([0, 0]);
    ip.extend(data);
    ip
}

/// An answer to the gateway that says that `from` has `address`.
fn arp(from: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 2];
    arp.extend(from);
    arp.extend(address.octets());
    arp.extend(ALL);
    arp.extend(GATEWAY.octets());
    arp
}

fn bridge_mac() -> [u8; 6] {
    let text = fs::read_to_string("/sys/class/net/br1/address").unwrap();
    let mut bytes = text.trim().split(':');
    std::array::from_fn(|_| u8::from_str_radix(bytes.next().unwrap(), 16).unwrap())
}

/// Ten bytes of virtio header come first.
fn send(tap: impl std::os::fd::AsFd, frame: &[u8]) {
    nix::unistd::write(tap, &[&[0; 10], frame].concat()).unwrap();
}

/// A port that is no tap of ours: what is behind a card of the host.
fn uplink() -> OwnedFd {
    let card = tap::create(&InterfaceName::new("lan0").unwrap()).unwrap();
    run("ip link set lan0 master br1 up");
    card
}

/// A card of the host in 10.9.9.0/24, which is no port of the bridge.
fn another_card() -> OwnedFd {
    let card = tap::create(&InterfaceName::new("up0").unwrap()).unwrap();
    run("ip link set up0 addrgenmode none up");
    run("ip addr add 10.9.9.1/24 dev up0");
    card
}

fn is_silent(socket: &UdpSocket) {
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let error = socket.recv_from(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

fn forward() {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
}

#[test]
fn a_guest_claims_no_address_that_is_not_for_guests() {
    with_bridge(|bridge| {
        if !require_programs(&["nft"]) {
            return;
        }
        run("ip link set br1 address 02:00:00:00:00:b1");
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        let no_guests = [
            Ipv4Addr::UNSPECIFIED,
            GATEWAY,
            host(0),
            host(255),
            Ipv4Addr::new(8, 8, 8, 8),
        ];
        for address in no_guests {
            let request = udp(SocketAddrV4::new(address, 1000), TFTP, b"x");
            send(a.tap.fd(), &frame(bridge_mac(), mac(1).0, IP, &request));
        }
        // Who has no address yet asks for one.
        let dhcp = UdpSocket::bind("0.0.0.0:67").unwrap();
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        let discover = udp(SocketAddrV4::new(no_guests[0], 68), everybody, b"DISCOVER");
        send(b.tap.fd(), &frame(ALL, mac(2).0, IP, &discover));
        dhcp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(dhcp.recv_from(&mut [0; 64]).unwrap().0, 8);
        assert!(!run("nft list set bridge bbot-agent-bb-1 address").contains("elements"));
        b.talk(&b.guest.udp(0), b"1", b"2");
        let claimed = run("nft list set bridge bbot-agent-bb-2 address");
        assert!(
            claimed.contains("elements = { 192.168.123.12 }"),
            "{claimed}"
        );
    });
}

#[test]
fn tags_do_not_hide_what_a_guest_sends() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        // The kernel shall believe every answer once the clock has ticked.
        fs::write("/proc/sys/net/ipv4/neigh/br1/locktime", "0").unwrap();
        a.talk(&a.guest.udp(0), b"1", b"2");
        let claim = arp(mac(2).0, host(11));
        let once = [&[0, 0][..], &ARP.to_be_bytes(), &claim].concat();
        let twice = [&[0, 0][..], &VLAN.to_be_bytes(), &once].concat();
        for (kind, payload) in [
            (ARP, &claim),
            (VLAN, &once),
            (VLAN, &twice),
            (0x88a8, &once),
        ] {
            std::thread::sleep(Duration::from_millis(30));
            send(b.tap.fd(), &frame(bridge_mac(), mac(2).0, kind, payload));
        }
        b.talk(&b.guest.udp(0), b"1", b"2");
        let neighbours = run("ip neigh show 192.168.123.11");
        assert!(neighbours.contains("52:54:00:00:00:01"), "{neighbours}");
    });
}

#[test]
fn nothing_but_ip_and_arp_leaves_a_guest() {
    with_bridge(|bridge| {
        let lan = uplink();
        let a = Station::new(bridge, Strategy::Nft, 1);
        // LLDP, a test protocol, one with a length for its kind (spanning tree).
        for kind in [0x88cc, 0x88b5, 0x9100, 0x8864, 38] {
            send(a.tap.fd(), &frame(ALL, mac(1).0, kind, &[0x42; 60]));
        }
        send(
            a.tap.fd(),
            &frame(ALL, mac(1).0, ARP, &arp(mac(1).0, host(11))),
        );
        let mut kinds = Vec::new();
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&lan, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        eventually("the last frame is through", || {
            let mut buffer = [0; 2000];
            while let Ok(length) = nix::unistd::read(&lan, &mut buffer) {
                let frame = &buffer[10..length];
                if frame[6..12] == mac(1).0 {
                    kinds.push(u16::from_be_bytes([frame[12], frame[13]]));
                }
            }
            kinds.contains(&ARP)
        });
        // The guest's own stack may have said something in IPv6.
        kinds.retain(|kind| *kind != 0x86dd);
        assert!(kinds.iter().all(|kind| *kind == ARP), "{kinds:x?}");
    });
}

#[test]
fn what_is_sent_to_a_guest_goes_to_no_other_port() {
    with_bridge(|bridge| {
        let lan = uplink();
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        let client = a.guest.udp(0);
        // No rule sees a frame to that address; it is the bridge that learns.
        for (thief, to) in [(b.tap.fd(), LLDP), (lan.as_fd(), LLDP), (lan.as_fd(), ALL)] {
            a.talk(&client, b"1", b"2");
            client.send_to(b"3", TFTP).unwrap();
            let peer = a.expect(b"3");
            send(thief, &frame(to, mac(1).0, 0x88cc, &[0; 60]));
            // That one is learned from, as it should be: then so is the first.
            b.talk(&b.guest.udp(0), b"1", b"2");
            a.server.send_to(b"4", peer).unwrap();
            let mut buffer = [0; 8];
            assert_eq!(
                client.recv_from(&mut buffer).unwrap(),
                (1, SocketAddr::V4(TFTP))
            );
            assert_eq!(buffer[0], b'4');
        }
    });
}

#[test]
fn a_guest_takes_no_address_of_a_station_beyond_the_bridge() {
    with_bridge(|bridge| {
        let _lan = uplink();
        let a = Station::new(bridge, Strategy::Nft, 1);
        send(a.tap.fd(), &frame(LLDP, mac(9).0, 0x88cc, &[0; 60]));
        a.talk(&a.guest.udp(0), b"1", b"2");
        if require_programs(&["bridge"]) {
            let stations = run("bridge fdb show br br1");
            assert!(!stations.contains("52:54:00:00:00:09"), "{stations}");
        }
    });
}

#[test]
fn guests_do_not_reach_each_other_by_way_of_a_host_that_routes() {
    with_bridge(|bridge| {
        run("ip link set br1 address 02:00:00:00:00:b1");
        forward();
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        b.talk(&b.guest.udp(0), b"1", b"2");
        let (from, to) = (a.guest.udp(0), b.guest.udp(3000));
        for gateway in ["02:00:00:00:00:b1", HOST_SIDE] {
            a.guest.inside(|| {
                run(&format!(
                    "ip neigh replace 192.168.123.12 lladdr {gateway} dev eth0 nud permanent"
                ))
            });
            from.send_to(b"psst", "192.168.123.12:3000").unwrap();
            a.talk(&a.guest.udp(0), b"1", b"2");
            b.talk(&b.guest.udp(0), b"1", b"2");
            is_silent(&to);
        }
    });
}

#[test]
fn a_guest_reaches_the_host_and_what_is_beyond_it() {
    with_bridge(|_| {
        // The host has another address there, and routes.
        run("ip addr add 192.168.123.53/24 dev br1");
        forward();
        let bridge = Bridge::probe("br1").unwrap();
        let lan = Guest::new(uplink().as_fd(), 99, mac(9).0);
        let _card = another_card();
        let a = Station::new(&bridge, Strategy::Nft, 1);
        let client = a.guest.udp(0);
        let here = |address: Ipv4Addr| UdpSocket::bind((address, 4000)).unwrap();
        for (address, server) in [
            (GATEWAY, here(GATEWAY)),
            (host(53), here(host(53))),
            (Ipv4Addr::new(10, 9, 9, 1), here(Ipv4Addr::new(10, 9, 9, 1))),
            (host(99), lan.udp(4000)),
        ] {
            server
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            client.send_to(b"1", (address, 4000)).unwrap();
            let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
            server.send_to(b"2", peer).unwrap();
            assert_eq!(client.recv_from(&mut [0; 8]).unwrap().0, 1);
        }
        // To all: who asks for an address, or for a name.
        let open = UdpSocket::bind("0.0.0.0:4001").unwrap();
        open.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for address in [host(255), Ipv4Addr::BROADCAST] {
            client.set_broadcast(true).unwrap();
            client.send_to(b"1", (address, 4001)).unwrap();
            assert_eq!(open.recv_from(&mut [0; 8]).unwrap().0, 1);
        }
    });
}

#[test]
fn answers_go_to_the_tap_or_nowhere() {
    with_bridge(|bridge| {
        let _card = another_card();
        run("ip neigh replace 10.9.9.9 lladdr 02:00:00:00:00:09 dev up0");
        let lan = Guest::new(uplink().as_fd(), 99, mac(9).0);
        let here = UdpSocket::bind((GATEWAY, 4000)).unwrap();
        here.set_read_timeout(Some(PATIENCE)).unwrap();
        let knock = || {
            lan.udp(0).send_to(b"1", (GATEWAY, 4000)).unwrap();
            assert_eq!(here.recv_from(&mut [0; 8]).unwrap().0, 1);
        };
        let a = Station::new(bridge, Strategy::Nft, 1);
        a.talk(&a.guest.udp(0), b"1", b"2");
        knock();
        let victim = lan.udp(3000);
        for address in [host(99), Ipv4Addr::new(10, 9, 9, 9)] {
            let forged = udp(SocketAddrV4::new(address, 3000), TFTP, b"RRQ");
            send(a.tap.fd(), &frame(bridge_mac(), mac(1).0, IP, &forged));
            let peer = a.expect(b"RRQ");
            assert_eq!(peer, SocketAddr::from((address, 3000)));
            // We may be told; nobody else gets anything, whole or in fragments.
            for size in [1, 60_000] {
                let _ = a.server.send_to(&vec![0; size], peer);
            }
        }
        knock();
        is_silent(&victim);
        let sent = fs::read_to_string("/sys/class/net/up0/statistics/tx_packets").unwrap();
        assert_eq!(sent.trim(), "0");
        a.talk(&a.guest.udp(0), b"3", b"4");
    });
}

#[test]
fn a_guest_may_get_another_address() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        a.talk(&a.guest.udp(0), b"firmware", b"2");
        for n in [21, 22] {
            a.guest.inside(|| {
                run("ip addr flush dev eth0");
                run(&format!("ip addr add 192.168.123.{n}/24 dev eth0"));
                run("ip route add default via 192.168.123.1");
            });
            a.talk(&a.guest.udp(0), b"system", &vec![4; 9000]);
        }
    });
}
