//! Guests that go wrong in ways that take an agent's patience.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bbot_agent::json::Value;
use bbot_agent::network::{Bridge, Tap, tap_name};

use crate::support::host::{Host, TURN, ended, finish, names};
use crate::support::{eventually, guest, isolated, within};

#[test]
fn a_guest_that_never_asks_is_tried_again_and_then_its_task_is_given_back() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "mode=silent\n");
        host.task("one", "linux-gcc", "");
        let ran = host.run(&["--once", "--build-startup", "2", "--build-retries", "1"]);
        // The failure is this host's, so it is one of the turn.
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert_eq!(ran.err.matches("trying again").count(), 1, "{}", ran.err);
        assert!(
            ran.err.contains("build startup timeout for machine "),
            "{}",
            ran.err
        );
        assert!(
            ran.err.contains("is not offered in the next 300 s"),
            "{}",
            ran.err
        );
        assert_eq!(host.result("one"), None);
        assert!(host.path("controller/tasks/one.manifest").exists());

        // The next turn is one of another process, as by cron.
        let ran = host.run(&["--once"]);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        fs::remove_file(host.path("state/default-1/resting")).unwrap();
        let ran = host.run(&["--once", "--build-startup", "2", "--build-retries", "0"]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
    });
}

#[test]
fn a_failed_guest_is_held_for_inspection() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        host.task("one", "linux-gcc", "target-config: mode=stall\n");
        let ran = host.run(&["--once", "--build-timeout", "2", "--hold", "3"]);
        assert!(ran.err.contains(", suspending"), "{}", ran.err);
        assert!(!ran.err.contains("guest running"), "{}", ran.err);
        assert!(ran.err.contains("holding it for 3 seconds"), "{}", ran.err);
        assert!(ran.err.contains("vnc socket "), "{}", ran.err);
    });
}

#[test]
fn the_evidence_of_a_failed_guest_outlasts_it() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        host.task("one", "linux-gcc", "target-config: mode=stall\n");
        let ran = host.run(&["--once", "--build-timeout", "2"]);
        let directory = host.path("state/default-1/failed");
        let found = names(&directory);
        let [name] = &found[..] else {
            panic!("{found:?}: {}", ran.err);
        };
        assert!(name.ends_with("Z-linux-gcc"), "{name}");
        let failure = directory.join(name);
        let told = format!("evidence in {}\n", failure.display());
        assert!(ran.err.contains(&told), "{}", ran.err);
        let mode = |name: &str| {
            let metadata = fs::metadata(failure.join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(""), 0o700);
        let files = names(&failure);
        assert_eq!(
            files,
            [
                "agent.txt",
                "block.json",
                "console.txt",
                "events.txt",
                "failure.json",
                "qemu.txt",
                "registers.txt",
                "screen.png",
                "start-machine.sh",
                "task.manifest",
            ]
        );
        for name in &files {
            assert_eq!(mode(name), 0o600, "{name}");
        }
        let read = |name: &str| fs::read(failure.join(name)).unwrap();
        let text = |name: &str| String::from_utf8(read(name)).unwrap();
        assert!(text("agent.txt").contains("error: libfoo/1.2.3 on linux-gcc"));
        // Essential steps are kept whether they were shown or not.
        assert!(text("agent.txt").contains("start_machine: qemu-system-x86_64 -name"));
        assert!(!ran.err.contains("start_machine"));
        let block = Value::parse(&text("block.json")).unwrap();
        assert!(!block.as_array().unwrap().is_empty(), "{block}");
        assert!(text("console.txt").contains("guest: task"));
        assert!(text("events.txt").contains("\"event\": \"STOP\""));
        assert!(text("registers.txt").contains("RIP="));
        assert!(read("screen.png").starts_with(b"\x89PNG\r\n\x1a\n"));
        assert!(text("task.manifest").contains("target-config: mode=stall"));

        let summary = Value::parse(&text("failure.json")).unwrap();
        let word = |name| summary.get(name).and_then(Value::as_str);
        for (name, value) in [
            ("machine", "linux-gcc"),
            ("task", "libfoo/1.2.3"),
            ("session", "one"),
            ("what", "build timeout"),
            (
                "reason",
                "2 seconds passed before it had uploaded its manifest",
            ),
            ("purpose", "build"),
            ("phase", "work"),
            ("qemu", "running"),
        ] {
            assert_eq!(word(name), Some(value), "{summary}");
        }
        let missing = summary.get("missing").unwrap();
        assert_eq!(missing.as_array().unwrap().len(), 0, "{missing}");
        assert!(summary.get("console_bytes").and_then(Value::as_u64) > Some(100));

        let listed = finish(host.agent(&["--status", "--failed"]), TURN);
        assert_eq!(listed.code, Some(0), "{}", listed.err);
        let (head, rest) = listed.out.split_once('\n').unwrap();
        assert_eq!(Some(head.split_once(' ').unwrap().0), word("time"));
        assert!(head.ends_with(" libfoo/1.2.3 on linux-gcc: build timeout"));
        assert_eq!(
            rest,
            format!(
                "  reason    2 seconds passed before it had uploaded its manifest\n  evidence  {}\n",
                failure.display()
            )
        );
        let listed = finish(host.agent(&["--status=json", "--failed"]), TURN);
        let listed = Value::parse(&listed.out).unwrap();
        let path = listed.as_array().unwrap()[0].get("path").unwrap();
        assert_eq!(path.as_str(), failure.to_str());
    });
}

#[test]
fn a_guest_that_sleeps_is_ended_by_the_idle_limit() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        host.task("one", "linux-gcc", "target-config: mode=stall\n");
        let ran = host.run(&["--once", "--idle-limit", "8"]);
        let text = "build idle timeout for machine";
        assert!(ran.err.contains(text), "{}", ran.err);
        let result = host.result("one").unwrap();
        assert!(result.contains("status: abort"), "{result}");
        assert!(result.contains("the guest was idle for "), "{result}");
    });
}

#[test]
fn the_result_of_a_failed_guest_is_delivered_before_the_hold() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        host.task("one", "linux-gcc", "target-config: mode=stall\n");
        let mut command = host.agent(&["--once", "--build-timeout", "2", "--hold", "600"]);
        command.arg(host.path("controller"));
        let _turn = guest::turn();
        let mut agent = host.start(command, "log");
        within(TURN, "the result is there", || host.result("one").is_some());
        let phase = || {
            let path = host.path("run/default-1/status.json");
            fs::read_to_string(path).unwrap_or_default()
        };
        eventually("the guest is held", || phase().contains("\"holding\""));
        assert!(host.result("one").unwrap().contains("status: abort"));
        agent.kill();
    });
}

#[test]
fn a_guest_waits_while_the_hosts_disk_is_full_and_then_goes_on() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        host.task("one", "linux-gcc", "target-config: mode=fill\n");
        let _turn = guest::turn();
        let mut command = host.agent(&["--once", "--min-free", "0", "--build-timeout", "120"]);
        command
            .args(["--verbose", "3"])
            .arg(host.path("controller"));
        let mut agent = host.start(command, "log");
        let log = || fs::read_to_string(host.path("log")).unwrap();
        let wait = |what: &str| {
            within(TURN, what, || log().contains(what));
        };
        // Before the guest has come to write, nothing is left.
        wait("start_machine");
        let ballast = host.machine("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[7; 1 << 20]).is_ok() {}
        drop(file);
        wait("waits for space");
        fs::remove_file(&ballast).unwrap();
        ended(&mut agent, TURN);
        // The guest was not told of any of it: its own disk became full in the
        // end, as that is what it does.
        assert!(log().contains("disk filled"), "{}", log());
        assert!(host.result("one").unwrap().contains("status: abort"));
    });
}

#[test]
fn a_tap_that_is_about_to_go_is_waited_for() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let bridge = Bridge::probe("br1").unwrap();
        let take = || Tap::open(&bridge, &tap_name("default", 1, 0)).unwrap();

        // As a killed agent's does; how long it takes is up to the kernel.
        let tap = take();
        host.task("one", "linux-gcc", "");
        let ran = std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_secs(1));
                tap.close();
            });
            host.run(&["--once", "--verbose", "3"])
        });
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.err.matches("ip tuntap add").count() > 1, "{}", ran.err);
        assert!(host.result("one").unwrap().contains("status: success"));

        let _tap = take();
        host.task("two", "linux-gcc", "");
        let ran = host.run(&["--once"]);
        assert!(ran.err.contains("Resource busy"), "{}", ran.err);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        // Nothing of the package ran, so the task is given back.
        assert_eq!(host.result("two"), None);
        assert!(host.path("controller/tasks/two.manifest").exists());
    });
}
