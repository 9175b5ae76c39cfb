//! `--idle-limit`, with a QEMU that a script plays.

use std::time::{Duration, Instant};

use super::super::support::isolated;
use super::evidence::silent;
use super::qemu::Stage;
use super::said;

/// Runs a guest that makes no request in 6 s, with an idle limit of 2 s. Returns the
/// diagnostics and the time that the turn took.
fn run(test: u32, asked: &str) -> Option<(String, Duration)> {
    let stage = Stage::new(test, &silent(asked))?;
    stage.host.drop_task("one");
    let mut command = stage.agent();
    command.args(["--hold=0", "--build-startup=6", "--idle-limit=2"]);
    let begun = Instant::now();
    let output = command.output().unwrap();
    Some((said(&output), begun.elapsed()))
}

#[test]
fn a_guest_that_does_nothing_is_ended_before_its_limit() {
    isolated(|| {
        // The answer of the disks is the same each time.
        let Some((text, time)) = run(21, r#"answer '[{"stats":{"rd_bytes":512}}]'"#) else {
            return;
        };
        assert!(
            text.contains("error: libfoo/1.2.3 on linux (session one): build startup idle timeout"),
            "{text}"
        );
        assert!(
            text.contains("info: the guest was idle for 2 seconds before it made a first request"),
            "{text}"
        );
        assert!(time < Duration::from_secs(6), "{time:?}");
    });
}

/// Requires that a guest reaches the other limit.
fn is_not_idle(test: u32, asked: &str) {
    isolated(|| {
        let Some((text, time)) = run(test, asked) else {
            return;
        };
        assert!(
            text.contains("6 seconds passed before it made a first"),
            "{text}"
        );
        assert!(!text.contains("idle"), "{text}");
        assert!(time >= Duration::from_secs(6), "{time:?}");
    });
}

#[test]
fn a_guest_that_uses_its_disk_is_not_idle() {
    is_not_idle(22, r#"answer "[{\"stats\":{\"wr_bytes\":$((n += 512))}}]""#);
}

#[test]
fn a_guest_that_writes_to_its_console_is_not_idle() {
    is_not_idle(23, "echo >&$con; answer []");
}
