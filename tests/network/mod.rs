//! Taps, bridges and redirects on the real kernel, with guests that are real
//! network stacks.

mod hostile;
mod probe;

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use bbot_agent::network::{Bridge, Mac, Netfilter, Redirect, SERVER, Strategy, Tap, Target};

use nix::libc;

use crate::support::netns::{GATEWAY, Guest, bridge};
use crate::support::{
    PATIENCE, Process, TempDir, eventually, example, isolated, require, require_programs, run,
};

const TFTP: SocketAddrV4 = SocketAddrV4::new(SERVER, 69);

fn mac(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, n])
}

/// Runs `test` with a bridge `br1`, where there are taps.
fn with_bridge(test: impl FnOnce(&Bridge) + Send) {
    isolated(|| {
        let tun = std::path::Path::new("/dev/net/tun").exists();
        if require(tun, "/dev/net/tun") && require_programs(&["ip"]) {
            bridge("br1");
            test(&Bridge::probe("br1").unwrap());
        }
    });
}

/// A guest with its tap, its server and the redirect between them.
struct Station {
    // Released in this order.
    redirect: Option<Redirect>,
    server: UdpSocket,
    guest: Guest,
    tap: Tap,
    netfilter: Netfilter,
    group: Vec<String>,
}

impl Station {
    fn new(bridge: &Bridge, strategy: Strategy, n: u8) -> Station {
        Station::beside(bridge, strategy, n, &[])
    }

    /// The same, for a task with guests on the taps `group`.
    fn beside(bridge: &Bridge, strategy: Strategy, n: u8, group: &[&str]) -> Station {
        let tap = Tap::open(bridge, &format!("bb-{n}")).unwrap();
        let server = UdpSocket::bind(strategy.server_address(bridge)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut station = Station {
            redirect: None,
            guest: Guest::new(tap.fd(), 10 + n, mac(n).0),
            server,
            tap,
            netfilter: Netfilter::default(),
            group: group.iter().map(|name| (*name).to_owned()).collect(),
        };
        station.redirect = Some(station.install(bridge, strategy));
        station
    }

    fn install(&self, bridge: &Bridge, strategy: Strategy) -> Redirect {
        let target = Target {
            bridge,
            tap: &self.tap,
            mac: Some(mac(self.tap.name().as_bytes()[3] - b'0')),
            server: address(&self.server),
            owner: "test-1",
            netfilter: &self.netfilter,
            group: &self.group,
        };
        Redirect::install(strategy, &target).unwrap()
    }

    /// Another server on another port, and the redirect to it.
    fn next_server(&mut self, bridge: &Bridge, strategy: Strategy) {
        self.server = UdpSocket::bind(strategy.server_address(bridge)).unwrap();
        self.server.set_read_timeout(Some(PATIENCE)).unwrap();
        self.redirect = Some(self.install(bridge, strategy));
    }

    /// The guest asks, the server answers; both see the expected other end.
    fn talk(&self, client: &UdpSocket, request: &[u8], answer: &[u8]) {
        client.send_to(request, TFTP).unwrap();
        let peer = self.expect(request);
        self.server.send_to(answer, peer).unwrap();
        let mut buffer = vec![0; 70_000];
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == *answer, "another answer");
        assert_eq!(from, SocketAddr::V4(TFTP));
    }

    fn expect(&self, request: &[u8]) -> SocketAddr {
        let mut buffer = vec![0; 70_000];
        let (length, from) = self.server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == *request, "another request");
        from
    }

    /// Gives b's guest a's address. The gateway is known to it, so that no ARP
    /// is needed.
    fn take_address_of_a(&self) {
        let gateway = run("ip -br link show br1");
        let gateway = gateway.split_whitespace().nth(2).unwrap();
        self.guest.inside(|| {
            run("ip addr flush dev eth0");
            run("ip addr add 192.168.123.11/24 dev eth0");
            run("ip route add default via 192.168.123.1");
            run(&format!(
                "ip neigh replace 192.168.123.1 lladdr {gateway} dev eth0 nud permanent"
            ));
        });
    }

    fn take_own_address(&self) {
        self.guest.inside(|| {
            run("ip addr flush dev eth0");
            run("ip addr add 192.168.123.12/24 dev eth0");
            run("ip route add default via 192.168.123.1");
        });
    }

    /// Nothing is waiting at the server. Whatever was sent before `self` last
    /// talked has arrived by then: a tap is first in, first out.
    fn heard_nothing(&self) {
        self.server.set_nonblocking(true).unwrap();
        let error = self.server.recv_from(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        self.server.set_nonblocking(false).unwrap();
    }
}

fn address(socket: &UdpSocket) -> SocketAddrV4 {
    match socket.local_addr().unwrap() {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("not IPv4"),
    }
}

/// The agent's rules in the namespace as nft lists them.
fn rules() -> String {
    let rules = run("nft list ruleset");
    rules.lines().filter(|line| line.contains("bbot")).collect()
}

#[test]
fn two_guests_on_one_bridge_reach_each_its_own_server() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        let (client_a, client_b) = (a.guest.udp(0), b.guest.udp(0));
        for _ in 0..3 {
            a.talk(&client_a, b"from a", b"to a");
            b.talk(&client_b, b"from b", b"to b");
        }
    });
}

#[test]
fn blocks_of_any_size_pass_in_fragments() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let client = a.guest.udp(0);
        for size in [1468, 1469, 8192, 65464] {
            let (up, down) = (vec![1; size + 4], vec![2; size + 4]);
            a.talk(&client, &up, &down);
        }
    });
}

#[test]
fn a_packet_without_a_checksum_stays_so() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let client = a.guest.udp(0);
        // socket(7): as firmware does.
        nix::sys::socket::setsockopt(&client, NoCheck, &true).unwrap();
        a.talk(&client, b"1", b"2");
    });
}

#[derive(Clone, Copy)]
struct NoCheck;

nix::setsockopt_impl!(
    NoCheck,
    libc::SOL_SOCKET,
    libc::SO_NO_CHECK,
    bool,
    nix::sys::socket::sockopt::SetBool
);

#[test]
fn only_the_guest_of_the_tap_reaches_the_server() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        let client = a.guest.udp(2000);
        a.talk(&client, b"hello", b"welcome");

        // Straight to the port, from the other guest and from the host itself.
        let stranger = b.guest.udp(0);
        stranger.send_to(b"direct", address(&a.server)).unwrap();
        let local = UdpSocket::bind((GATEWAY, 0)).unwrap();
        local.send_to(b"local", address(&a.server)).unwrap();

        // With the address and port of a connection that the kernel knows.
        b.take_address_of_a();
        let forger = b.guest.udp(2000);
        forger.send_to(b"forged", TFTP).unwrap();

        // What b's own server gets shows that all of it is through by now.
        b.take_own_address();
        b.talk(&b.guest.udp(0), b"done", b"well");
        a.heard_nothing();
        a.talk(&client, b"still here", b"good");
    });
}

#[test]
fn a_guest_cannot_claim_the_address_of_another() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        let client = a.guest.udp(2000);
        a.talk(&client, b"1", b"2");
        // By ARP: who asks for the gateway also says who it is.
        b.take_address_of_a();
        b.guest
            .inside(|| run("ip neigh del 192.168.123.1 dev eth0"));
        let thief = b.guest.udp(0);
        thief.send_to(b"arp", TFTP).unwrap();
        thief
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        assert!(thief.recv_from(&mut [0; 8]).is_err());
        b.heard_nothing();
        a.talk(&client, b"3", b"4");
        let neighbours = run("ip neigh show 192.168.123.11");
        assert!(neighbours.contains("52:54:00:00:00:01"), "{neighbours}");
    });
}

#[test]
fn guests_do_not_reach_each_other() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        let (from, to) = (a.guest.udp(0), b.guest.udp(3000));
        // Not by way of the host either: it does not forward.
        from.send_to(b"psst", "192.168.123.12:3000").unwrap();
        a.talk(&a.guest.udp(0), b"1", b"2");
        b.talk(&b.guest.udp(0), b"1", b"2");
        to.set_nonblocking(true).unwrap();
        let error = to.recv_from(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn only_the_guests_of_one_task_reach_each_other() {
    with_bridge(|bridge| {
        let station = |n, group: &[&str]| Station::beside(bridge, Strategy::Nft, n, group);
        let first = [
            station(1, &["bb-2", "bb-3"]),
            station(2, &["bb-1", "bb-3"]),
            station(3, &["bb-1", "bb-2"]),
        ];
        let second = [station(4, &["bb-5"]), station(5, &["bb-4"])];
        let alone = station(6, &[]);
        let all: Vec<_> = first.iter().chain(&second).chain([&alone]).collect();
        let heard: Vec<_> = all.iter().map(|station| station.guest.udp(3000)).collect();
        // The redirects are as without a group, and the addresses are known from here on.
        for station in &all {
            station.talk(&station.guest.udp(0), b"1", b"2");
        }
        for station in &all {
            let from = station.guest.udp(0);
            let own = &station.tap.name().as_bytes()[3..];
            for n in (1..=6).filter(|n| own != [b'0' + n]) {
                let _ = from.send_to(own, format!("192.168.123.{}:3000", 10 + n));
            }
        }
        let groups: [&[u8]; 6] = [b"23", b"13", b"12", b"5", b"4", b""];
        for (socket, group) in heard.iter().zip(groups) {
            let mut senders = Vec::new();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            while senders.len() < group.len() {
                let mut sender = [0; 8];
                let length = socket.recv(&mut sender).unwrap();
                assert_eq!(length, 1);
                senders.push(sender[0]);
            }
            senders.sort_unstable();
            assert_eq!(senders, group);
        }
        // Whatever was to come has come.
        for (socket, group) in heard.iter().zip(groups) {
            socket.set_nonblocking(true).unwrap();
            let error = socket.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{group:?}");
        }
    });
}

#[test]
fn frames_with_another_source_address_are_dropped() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        a.talk(&a.guest.udp(0), b"1", b"2");
        // The bridge would send the other's packets to whoever claims them; and
        // nobody at all has the second address.
        for stolen in ["52:54:00:00:00:01", "52:54:00:00:00:77"] {
            b.guest
                .inside(|| run(&format!("ip link set eth0 address {stolen}")));
            let client = b.guest.udp(0);
            client.send_to(b"forged", TFTP).unwrap();
            client
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            assert!(client.recv_from(&mut [0; 8]).is_err());
            b.heard_nothing();
            a.talk(&a.guest.udp(0), b"1", b"2");
        }
        b.guest
            .inside(|| run("ip link set eth0 address 52:54:00:00:00:02"));
        b.talk(&b.guest.udp(0), b"3", b"4");
    });
}

#[test]
fn a_redirect_leaves_nothing_behind() {
    with_bridge(|bridge| {
        if !require_programs(&["nft"]) {
            return;
        }
        let mut a = Station::new(bridge, Strategy::Nft, 1);
        let b = Station::new(bridge, Strategy::Nft, 2);
        assert!(rules().contains("bbot-agent"), "{}", rules());
        a.redirect.take().unwrap().close().unwrap();
        assert!(!rules().contains("bb-1"), "{}", rules());
        assert!(rules().contains("bb-2"), "another's is untouched");
        b.talk(&b.guest.udp(0), b"1", b"2");
        drop(b);
        assert_eq!(rules(), "");
    });
}

#[test]
fn a_guest_with_the_same_port_reaches_the_next_server() {
    with_bridge(|bridge| {
        let mut a = Station::new(bridge, Strategy::Nft, 1);
        let client = a.guest.udp(2000);
        a.talk(&client, b"1", b"2");
        a.redirect.take().unwrap().close().unwrap();
        a.next_server(bridge, Strategy::Nft);
        a.talk(&client, b"3", b"4");
        a.redirect.take();
        a.next_server(bridge, Strategy::Nft);
        a.talk(&client, b"5", b"6");
    });
}

#[test]
fn a_host_that_routes_for_its_guests_does_not_mind() {
    with_bridge(|bridge| {
        if !require_programs(&["nft"]) {
            return;
        }
        // So connections are tracked, and bridged packets see these rules.
        run("ip link set br1 type bridge nf_call_iptables 1");
        run("nft add table ip host");
        run("nft add chain ip host out { type nat hook postrouting priority 100 ; }");
        run("nft add rule ip host out ip saddr 192.168.123.0/24 masquerade");
        run("nft add chain ip host in { type filter hook input priority 0 ; }");
        run("nft add rule ip host in ct state invalid drop");
        let a = Station::new(bridge, Strategy::Nft, 1);
        let client = a.guest.udp(0);
        for size in [1, 1468, 8192, 65464] {
            a.talk(&client, &vec![1; size + 4], &vec![2; size + 4]);
        }
    });
}

#[test]
fn nothing_but_tftp_is_redirected() {
    with_bridge(|bridge| {
        let a = Station::new(bridge, Strategy::Nft, 1);
        let local = UdpSocket::bind((GATEWAY, 70)).unwrap();
        let client = a.guest.udp(0);
        client.send_to(b"not tftp", (SERVER, 70)).unwrap();
        // Nor the server by its own port.
        let port = address(&a.server).port();
        client.send_to(b"not tftp", (SERVER, port)).unwrap();
        a.talk(&client, b"1", b"2");
        a.heard_nothing();
        local.set_nonblocking(true).unwrap();
        let error = local.recv_from(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn a_killed_owner_leaves_nothing() {
    with_bridge(|_| {
        if !require_programs(&["nft"]) {
            return;
        }
        let dir = TempDir::new();
        let mut owner = Process(
            Command::new(example("owner"))
                .arg("redirect")
                .arg(dir.path())
                .stdin(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        eventually("the owner is ready", || dir.path().join("ready").exists());
        assert!(rules().contains("bb-1"));
        owner.kill();
        eventually("the tap is gone", || !run("ip link").contains("bb-1"));
        eventually("the rules are gone", || rules().is_empty());
    });
}
