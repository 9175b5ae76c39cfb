//! Guests that behave like Windows while it installs itself: they reboot, and they do not
//! answer the power button.

use std::fs;

use bbot_agent::json::Value;

use crate::support::host::{Host, names};
use crate::support::isolated;

/// Adds a machine with these settings and a task for it.
fn add(host: &Host, settings: &str) {
    host.add("linux-gcc", settings);
    host.task("one", "linux-gcc", "");
}

/// Whether a turn has bootstrapped the machine and built its task.
#[track_caller]
fn has_built(host: &Host, options: &[&str]) -> String {
    let ran = host.run(options);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let result = host.result("one").unwrap();
    assert!(result.contains("status: success"), "{result}");
    ran.err
}

#[test]
fn a_guest_may_reboot_twice_while_it_is_bootstrapped() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        add(&host, "reboots=2\n");
        let log = has_built(&host, &["--once", "--verbose", "2"]);
        for reboot in [1, 2] {
            let text = format!("reboot {reboot} of the guest, 3 are allowed");
            assert_eq!(log.matches(&text).count(), 1, "{text}: {log}");
        }
        // The guest of the build runs with `-no-reboot`.
        assert_eq!(log.matches(" -no-reboot ").count(), 1, "{log}");
    });
}

#[test]
fn a_guest_that_reboots_once_too_often_is_a_failed_bootstrap() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        add(&host, "reboots=9\n");
        let ran = host.run(&["--once", "--bootstrap-reboots", "1"]);
        let reason = "the guest rebooted 2 times before it had uploaded its manifest";
        assert_eq!(ran.err.matches(reason).count(), 2, "{}", ran.err);
        assert!(ran.err.contains("bootstrap failure for machine "));
        assert!(!ran.err.contains("trying again"), "{}", ran.err);
        assert_eq!(host.result("one"), None);
        assert_eq!(
            host.subvolumes("linux-gcc"),
            ["linux-gcc-1", "linux-gcc-1.0"]
        );
        let failed = host.path("state/default-1/failed");
        let summary = failed.join(&names(&failed)[0]).join("failure.json");
        let summary = Value::parse(&fs::read_to_string(summary).unwrap()).unwrap();
        assert_eq!(summary.get("reboots").and_then(Value::as_u64), Some(2));
    });
}

#[test]
fn without_reboots_the_first_one_ends_the_bootstrap() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        add(&host, "reboots=1\n");
        let options = ["--bootstrap-reboots", "0", "--bootstrap-retries", "0"];
        let ran = host.run(&[&["--once"], &options[..]].concat());
        let reason = "the guest rebooted before it made a first request";
        assert!(ran.err.contains(reason), "{}", ran.err);
        assert_eq!(host.result("one"), None);
    });
}

#[test]
fn a_guest_that_hears_no_power_button_powers_itself_off() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        add(&host, "mode=leaves\n");
        has_built(&host, &["--once"]);
    });
}

#[test]
fn the_disk_of_a_guest_that_does_not_power_off_is_not_kept() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        add(&host, "mode=deaf\n");
        let ran = host.run(&["--once", "--bootstrap-shutdown", "3"]);
        for said in [
            "bootstrap shutdown timeout for machine ",
            "3 seconds passed before it had powered off",
            "has to power itself off after its upload",
        ] {
            assert!(ran.err.contains(said), "{said}: {}", ran.err);
        }
        assert_eq!(host.result("one"), None);
        assert_eq!(
            host.subvolumes("linux-gcc"),
            ["linux-gcc-1", "linux-gcc-1.0"]
        );
    });
}
