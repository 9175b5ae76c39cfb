//! Bridges, taps and strategies as they are found, and errors that name what is missing.

use std::net::SocketAddrV4;

use bbot_agent::error::Class;
use bbot_agent::network::{Bridge, Peers, Redirect, Strategy, Tap, tap_name};
use bbot_agent::settings::RedirectKind;
use nix::libc;

use super::{Station, TFTP, address, mac, with_bridge};
use crate::support::netns::Guest;
use crate::support::{eventually, isolated, require_programs, run};

#[test]
fn without_a_redirect_the_server_has_the_address_itself() {
    with_bridge(|bridge| {
        let error = Redirect::probe(RedirectKind::None, bridge).unwrap_err();
        assert_eq!(error.class(), Class::Config);
        run("ip addr add 196.254.111.222/32 dev br1");
        let strategy = Redirect::probe(RedirectKind::None, bridge).unwrap();
        assert_eq!(strategy.server_address(bridge), TFTP);
        let a = Station::new(bridge, strategy, 1);
        let client = a.guest.udp(0);
        a.talk(&client, b"1", b"2");
        // The server is told whom to listen to.
        let peers = a.redirect.as_ref().unwrap().peers();
        assert!(matches!(*peers, Peers::Station { .. }));
        let port = address(&client).port();
        assert!(peers.admits(SocketAddrV4::new([192, 168, 123, 11].into(), port)));
        assert!(!peers.admits(SocketAddrV4::new([192, 168, 123, 12].into(), port)));
        let tap = Tap::open(bridge, "bb-2").unwrap();
        let b = Guest::new(tap.fd(), 12, mac(2).0);
        b.udp(0).send_to(b"1", TFTP).unwrap();
        a.expect(b"1");
        assert!(!peers.admits(SocketAddrV4::new([192, 168, 123, 12].into(), port)));
    });
}

#[test]
fn auto_takes_nft_and_else_says_everything_that_is_missing() {
    with_bridge(|bridge| {
        let strategy = Redirect::probe(RedirectKind::Auto, bridge).unwrap();
        assert_eq!(strategy, Strategy::Nft);
        if require_programs(&["nft"]) {
            assert_eq!(run("nft list ruleset"), "", "probing leaves nothing");
        }
    });
}

#[test]
fn what_is_missing_of_a_bridge_is_explained() {
    isolated(|| {
        if !require_programs(&["ip"]) {
            return;
        }
        let explain = || {
            let error = Bridge::probe("br1").unwrap_err();
            assert_eq!(error.class(), Class::Config);
            error.to_string()
        };
        assert_eq!(explain(), "no bridge br1");
        run("ip link add br1 type bridge");
        assert_eq!(explain(), "bridge br1 is down");
        run("ip link set br1 up");
        assert_eq!(explain(), "bridge br1 has no IPv4 address");
        run("ip addr add 10.0.0.1/8 dev br1");
        assert_eq!(
            Bridge::probe("br1").unwrap().address.to_string(),
            "10.0.0.1"
        );
    });
}

#[test]
fn a_tap_is_an_isolated_port_that_is_up_and_goes_with_us() {
    with_bridge(|bridge| {
        let name = tap_name("default", 1, 0);
        let tap = Tap::open(bridge, &name).unwrap();
        let link = run(&format!("ip -d link show {name}"));
        assert!(link.contains("master br1"), "{link}");
        assert!(link.contains("isolated on"), "{link}");
        assert!(link.contains("guard on"), "{link}");
        assert!(link.contains(",UP"), "{link}");
        let error = Tap::open(bridge, &name).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EBUSY));
        tap.close();
        eventually("the tap is gone", || !run("ip link").contains(&name));
    });
}

#[test]
fn a_bridge_keeps_its_address_while_taps_come_and_go() {
    with_bridge(|bridge| {
        let bridge_mac = || {
            run("ip -br link show br1")
                .split_whitespace()
                .nth(2)
                .map(str::to_owned)
        };
        let first = Tap::open(bridge, "bb-1").unwrap();
        let before = bridge_mac();
        let others: Vec<Tap> = (2..8)
            .map(|n| Tap::open(bridge, &format!("bb-{n}")).unwrap())
            .collect();
        assert_eq!(bridge_mac(), before);
        drop(first);
        eventually("the tap is gone", || !run("ip link").contains("bb-1"));
        assert_eq!(bridge_mac(), before);
        drop(others);
    });
}
