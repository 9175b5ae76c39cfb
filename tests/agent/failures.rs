//! Guests that go wrong: the result says what happened, and nothing is left.

use std::fs;

use crate::support::host::{Host, Ran, names};
use crate::support::isolated;

/// Runs one turn with a guest that does `mode` in its build; returns the run and
/// the result.
fn build(host: &Host, mode: &str, words: &[&str]) -> (Ran, String) {
    host.task("one", "linux-gcc", &format!("target-config: mode={mode}\n"));
    let words = [&["--once", "--build-startup", "90"], words].concat();
    let ran = host.run(&words);
    let result = host
        .result("one")
        .unwrap_or_else(|| panic!("no result: {}", ran.err));
    assert_eq!(
        host.subvolumes("linux-gcc"),
        ["linux-gcc-1", "linux-gcc-1.0", "linux-gcc-default"],
        "{}",
        ran.err
    );
    assert_eq!(names(&host.path("tftp/build")), [""; 0]);
    fs::remove_dir_all(host.path("controller/results")).unwrap();
    (ran, result)
}

#[test]
fn whatever_a_worker_does_to_its_build_is_told_in_the_result() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let cases = [
            ("panic", "the guest panicked before"),
            ("reboot", "the guest rebooted before"),
            ("nothing", "the guest powered off before"),
            ("garbage", "invalid result manifest"),
        ];
        for (mode, sentence) in cases {
            let (ran, result) = build(&host, mode, &[]);
            assert!(result.contains("status: abort\n"), "{mode}: {result}");
            assert!(result.contains(sentence), "{mode}: {result}");
            assert!(
                ran.err.contains("error: libfoo/1.2.3 on linux-gcc: build "),
                "{mode}: {}",
                ran.err
            );
            // The evidence: what the guest said last.
            assert!(ran.err.contains("console, "), "{mode}: {}", ran.err);
        }

        let (ran, result) = build(&host, "stall", &["--build-timeout", "5"]);
        assert!(result.contains("status: abort\n"), "{result}");
        assert!(result.contains("5 seconds, which were over"), "{result}");
        assert!(
            ran.err.contains("build work timeout for machine "),
            "{}",
            ran.err
        );

        let (ran, result) = build(&host, "abnormal", &[]);
        assert!(
            result.contains("name: libfoo\nversion: 1.2.3\nstatus: abnormal\n"),
            "{result}"
        );
        assert!(
            ran.err.contains("build terminated abnormally for machine "),
            "{}",
            ran.err
        );

        // Neither the result nor the console of the evidence steers a terminal.
        let (ran, result) = build(&host, "escapes", &[]);
        assert!(result.contains("invalid result manifest"), "{result}");
        assert!(ran.err.contains("red"), "{}", ran.err);
        for text in [&result, &ran.err] {
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    });
}

#[test]
fn a_guest_that_never_asks_is_tried_again_and_then_given_up() {
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
        let result = host.result("one").unwrap();
        assert!(
            result.contains("2 seconds, which were over before it made a first request"),
            "{result}"
        );
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
        assert!(
            ran.err.contains("guest suspended") || ran.err.contains("guest running"),
            "{}",
            ran.err
        );
        assert!(ran.err.contains("holding it for 3 seconds"), "{}", ran.err);
        assert!(ran.err.contains("vnc socket "), "{}", ran.err);
        let hold = ran
            .err
            .split("hold ")
            .last()
            .and_then(|rest| rest.split('s').next())
            .unwrap();
        assert!(
            hold.parse::<f64>().is_ok_and(|hold| hold >= 3.0),
            "{}",
            ran.err
        );
    });
}

#[test]
fn a_bootstrap_that_fails_is_reported_and_leaves_nothing() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let cases = [
            ("deaf", "bootstrap shutdown timeout for machine "),
            ("garbage", "invalid bootstrap manifest"),
            ("nothing", "the guest powered off before it had uploaded"),
        ];
        for (mode, said) in cases {
            host.add(mode, &format!("mode={mode}\n"));
            let ran = host.run(&["--once", "--bootstrap-shutdown", "3"]);
            assert!(ran.err.contains(said), "{mode}: {}", ran.err);
            assert_eq!(
                host.subvolumes(mode),
                [format!("{mode}-1"), format!("{mode}-1.0")]
            );
            fs::remove_file(host.machine(mode).join(format!("{mode}-1"))).unwrap();
        }
    });
}
