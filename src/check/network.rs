//! Bridge, tap and redirect. Tap and redirect are made, and removed again.

use std::net::SocketAddrV4;

use super::Finding;
use crate::cli::Options;
use crate::network::{Bridge, Netfilter, Redirect, Strategy, Tap, Target};
use crate::settings::RedirectKind;
use crate::watch::Watch;

/// A port without a listener (RFC 863). The rule is removed before a guest starts.
const DISCARD: u16 = 9;

/// Examines the three in this order: each needs the one before.
pub(super) fn all(options: &Options, _watch: &Watch) -> Vec<Finding> {
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

    findings.push(redirect(options.redirect, &bridge, &tap));
    tap.close();
    findings
}

fn redirect(kind: RedirectKind, bridge: &Bridge, tap: &Tap) -> Finding {
    const SUBJECT: &str = "redirect";
    let strategy = match Redirect::probe(kind, bridge) {
        Ok(strategy) => strategy,
        Err(error) => return Finding::error(SUBJECT, &error),
    };
    let port = match strategy {
        Strategy::None => crate::network::PORT,
        _ => DISCARD,
    };
    let address = strategy.server_address(bridge);
    let target = Target {
        bridge,
        tap,
        mac: None,
        server: SocketAddrV4::new(*address.ip(), port),
        owner: "check",
        netfilter: &Netfilter::default(),
        group: &[],
    };
    let tried = Redirect::install(strategy, &target).and_then(Redirect::close);
    match tried {
        Ok(()) => Finding::good(SUBJECT, format!("by {}", strategy.name())),
        Err(error) => Finding::error(SUBJECT, &error),
    }
}
