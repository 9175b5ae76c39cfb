//! Bridge, tap and redirect, and what a guest reaches by them. Tap and redirect are made,
//! and removed again.

use std::net::{SocketAddr, UdpSocket};

use super::{Finding, frames};
use crate::cli::Options;
use crate::network::{Bridge, Netfilter, Redirect, Tap, Target};
use crate::settings::RedirectKind;
use crate::watch::Watch;

/// Examines them in this order: each needs the one before.
pub(super) fn all(options: &Options, watch: &Watch) -> Vec<Finding> {
    let bridge = match Bridge::probe(&options.bridge) {
        Ok(bridge) => bridge,
        Err(error) => return vec![Finding::error("bridge", &error)],
    };
    let text = format!("{} is up, {}", bridge.name, bridge.address);
    let mut findings = vec![Finding::good("bridge", text)];

    // Another name than that of a tap of an agent, which may be running.
    let name = format!("bbcheck{}", std::process::id() % 10_000_000);
    let tap = match Tap::open(&bridge, &name) {
        Ok(tap) => tap,
        Err(error) => {
            findings.push(Finding::error("tap", &error));
            return findings;
        }
    };
    findings.push(Finding::good("tap", "made, attached to the bridge, up"));

    findings.extend(redirect(options.redirect, &bridge, &tap, watch));
    if frames::forwards_at_once(&bridge) {
        findings.push(frames::dhcp(&bridge, &tap, watch));
    }
    tap.close();
    findings
}

/// The redirect, and whether a request takes it.
fn redirect(kind: RedirectKind, bridge: &Bridge, tap: &Tap, watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "redirect";
    let strategy = match Redirect::probe(kind, bridge) {
        Ok(strategy) => strategy,
        Err(error) => return vec![Finding::error(SUBJECT, &error)],
    };
    // Without rules, an agent that runs has the address, and nothing is tried.
    let server = UdpSocket::bind(strategy.server_address(bridge)).ok();
    let bound = server.as_ref().and_then(|server| server.local_addr().ok());
    let address = match bound {
        Some(SocketAddr::V4(address)) => address,
        _ => strategy.server_address(bridge),
    };
    let target = Target {
        bridge,
        tap,
        mac: None,
        server: address,
        owner: "check",
        netfilter: &Netfilter::default(),
        group: &[],
    };
    let redirect = match Redirect::install(strategy, &target) {
        Ok(redirect) => redirect,
        Err(error) => return vec![Finding::error(SUBJECT, &error)],
    };
    let server = server.filter(|server| server.set_nonblocking(true).is_ok());
    let request = server
        .filter(|_| frames::forwards_at_once(bridge))
        .map(|server| frames::request(bridge, tap, strategy, &server, watch));
    let finding = match redirect.close() {
        Ok(()) => Finding::good(SUBJECT, format!("by {}", strategy.name())),
        Err(error) => Finding::error(SUBJECT, &error),
    };
    [Some(finding), request].into_iter().flatten().collect()
}
