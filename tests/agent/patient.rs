//! Guests that behave like Windows while it installs itself: they reboot, and they do not
//! answer the power button.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use bbot_agent::json::Value;

use crate::support::host::{Host, TURN, finish, names};
use crate::support::{guest, isolated, run, skip};

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

/// The options in the section WINDOWS of the manual, a line each.
fn documented_options() -> Vec<&'static str> {
    let manual = include_str!("../../src/cli/render/manual.txt");
    let (_, section) = manual.split_once("\n# WINDOWS\n").unwrap();
    let block = section.split("    \\\n").nth(1).unwrap();
    block.lines().map(str::trim).collect()
}

/// Adds a machine with these options and a kernel that has drivers for their devices, or
/// skips the test.
fn add_with_options(host: &Host, options: &str, settings: &str) -> bool {
    let image = match guest::image_with_large_kernel() {
        Ok(image) => image,
        Err(why) => {
            skip(&why);
            return false;
        }
    };
    let revision = host.revision("linux-gcc", 0);
    guest::install_image(&image, &revision, settings);
    let path = revision.join("manifest");
    let manifest = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{manifest}options:\n\\\n{options}\n\\\n")).unwrap();
    true
}

#[test]
fn the_documented_options_are_a_guest_with_neither_virtio_nor_utc() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        // An emulated processor has no Hyper-V interfaces.
        let emulated = |line: &&'static str| match line.starts_with("-cpu host") {
            true => "-cpu max",
            false => *line,
        };
        let documented = documented_options();
        let mut options: Vec<_> = documented.iter().map(emulated).collect();
        options.push("-object filter-buffer,id=slow,netdev=net0,interval=50000");
        let settings = "mode=leaves\nreboots=2\n";
        if !add_with_options(&host, &options.join("\n"), settings) {
            return;
        }
        host.task("one", "linux-gcc", "target-config: mode=clock\n");
        let mut command = host.agent(&["--once", "--verbose", "2"]);
        command.arg(host.path("controller"));
        command.env("TZ", "EAST-5");
        let ran = {
            let _turn = guest::turn();
            finish(command, TURN)
        };
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.err.contains("reboot 2 of the guest, 3 are allowed"));
        let result = host.result("one").unwrap();
        assert!(result.contains(", sda, e1000e\n"), "{result}");
        let (_, time) = result.split_once("now ").unwrap();
        let time: u64 = time.split(',').next().unwrap().parse().unwrap();
        let ahead = time.saturating_sub(now());
        assert!((17_900..18_100).contains(&ahead), "{ahead} s ahead of UTC");
    });
}

#[test]
fn qemu_knows_the_documented_processor() {
    if guest::image().is_err() {
        return skip("no qemu");
    }
    let known = run(&format!("{} -device max-x86_64-cpu,help", guest::QEMU));
    let options = documented_options();
    let processor = options
        .iter()
        .find_map(|line| line.strip_prefix("-cpu host,"));
    let mut count = 0;
    for feature in processor.unwrap().split(',') {
        let name = feature.split('=').next().unwrap();
        assert!(known.contains(&format!(" {name}=<")), "{name} in {known}");
        count += 1;
    }
    assert!(count > 5);
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}
