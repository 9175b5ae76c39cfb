//! The way of a guest's frames, under rules of the host that drop some of them.

use std::fs;

use super::super::support::{isolated, require_programs, run};
use super::Host;
use super::of_status;
use super::remedies::problem;

#[test]
fn requests_and_offers_are_seen_on_a_good_host_only() {
    isolated(|| {
        let Some(mut host) = Host::new() else { return };
        if !require_programs(&["nft"]) {
            return;
        }
        let spool = host.spool();
        let (_, report) = host.check(&[&spool]);
        let good = of_status(&report, "ok");
        let found = |subject: &str| {
            let mut all = good.iter();
            let found = all.find(|(known, ..)| known == subject);
            found.map(|(_, text, _)| text.clone()).unwrap_or_default()
        };
        let reached = "those of guests reach the agent (196.254.111.222:69)";
        assert_eq!(found("requests"), reached, "{report}");
        assert!(found("DHCP").starts_with("a guest is offered 192.168.123."));

        // A firewall as distributions set it up.
        let rules = host.dir.path().join("rules");
        let text = "table inet firewall { chain input { type filter hook input priority 0; \
                    policy drop\n iifname lo accept\n}\n}\n";
        fs::write(&rules, text).unwrap();
        run(&format!("nft -f {}", rules.display()));
        let (code, report) = host.check(&[&spool]);
        assert_eq!(code, Some(78));
        let (found, remedies) = problem(&report, "requests").unwrap();
        assert!(
            found.contains("a firewall of this host drops it"),
            "{found}"
        );
        assert_eq!(remedies[0], "with ufw: ufw allow in on br1");
        assert!(problem(&report, "DHCP").is_some(), "{report}");

        run("nft add rule inet firewall input iifname br1 accept");
        host.dhcp.kill();
        let (_, report) = host.check(&[&spool]);
        assert!(problem(&report, "requests").is_none(), "{report}");
        let (found, _) = problem(&report, "DHCP").unwrap();
        assert!(
            found.starts_with("no server on br1 offers an address"),
            "{found}"
        );
    });
}
