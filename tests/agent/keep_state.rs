//! The states of failed guests that are kept.

use std::fs;
use std::path::PathBuf;

use bbot_agent::json::Value;
use bbot_agent::snapshot;

use crate::support::host::{Host, TURN, finish, names};
use crate::support::{guest, isolated, within};

/// A task whose guest counts seconds, and is ended after 3.
pub(super) const COUNT: &str = "target-config: mode=count\n";
pub(super) const KEEP: &[&str] = &["--once", "--keep-state", "--build-timeout", "3"];

/// A host with the machine `m`.
pub(super) fn host() -> Option<Host> {
    let host = Host::new()?;
    host.add_bootstrapped("m", "");
    Some(host)
}

/// The evidence of failed guests, the oldest first.
pub(super) fn failures(host: &Host) -> Vec<PathBuf> {
    let directory = host.path("state/default-1/failed");
    let found = names(&directory);
    found.iter().map(|name| directory.join(name)).collect()
}

pub(super) fn states(host: &Host) -> Vec<String> {
    let is_state = |name: &String| name.starts_with("m-default-@failed.");
    host.subvolumes("m").into_iter().filter(is_state).collect()
}

fn summary(failure: &std::path::Path) -> Value {
    Value::parse(&fs::read_to_string(failure.join("failure.json")).unwrap()).unwrap()
}

/// Has the guest of a task fail.
#[track_caller]
pub(super) fn fail(host: &Host, task: &str, config: &str, words: &[&str]) -> String {
    host.task(task, "m", config);
    let ran = host.run(words);
    assert!(
        ran.err.contains("error: libfoo/1.2.3 on m (session "),
        "{}",
        ran.err
    );
    ran.err
}

#[test]
fn the_state_of_a_failed_guest_is_kept_as_long_as_its_evidence() {
    isolated(|| {
        let Some(host) = host() else { return };
        let said = fail(&host, "one", COUNT, KEEP);
        let [failure] = &failures(&host)[..] else {
            panic!("{said}");
        };
        let [state] = &states(&host)[..] else {
            panic!("{said}");
        };
        let state = host.machine("m").join(state);
        let told = format!(
            "kept memory and disk of the failed guest in {}, ",
            state.display()
        );
        assert!(said.contains(&told), "{said}");
        let told = format!("bbot-agent --resume {}\n", failure.display());
        assert!(said.contains(&told), "{said}");
        // The result goes first.
        let at = |text: &str| said.find(text).unwrap();
        assert!(at("abort in ") < at("kept memory and disk "), "{said}");
        assert_eq!(fs::read_link(failure.join("state")).unwrap(), state);
        assert_eq!(fs::read_link(state.join("evidence")).unwrap(), *failure);
        assert_eq!(
            names(&state),
            ["disk.img", "evidence", "failed.state", "manifest"]
        );
        assert!(
            fs::write(state.join("new"), "").is_err(),
            "it can be written to"
        );
        let kept = summary(failure);
        let kept = kept.get("state").unwrap();
        let memory = fs::metadata(state.join("failed.state")).unwrap().len();
        // Half of the 256 MiB of the guest was never touched.
        assert!((8 << 20..128 << 20).contains(&memory), "{memory}");
        let bytes = kept.get("bytes").and_then(Value::as_u64).unwrap();
        let range = memory..memory + (16 << 20);
        assert!(range.contains(&bytes), "{bytes}, with {memory} of memory");
        let listed = finish(host.agent(&["--status", "--failed"]), TURN).out;
        let line = format!(
            "\n  state     memory and disk, {} MiB, for --resume\n",
            bytes >> 20
        );
        assert!(listed.contains(&line), "{listed}");
        // An idle turn changes nothing.
        let ran = host.run(KEEP);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        assert_eq!(states(&host).len(), 1);

        fs::remove_dir_all(failure).unwrap();
        let dry = finish(host.agent(&["--gc", "--dry-run"]), TURN).out;
        let litter = "state of a failed guest whose evidence is gone";
        assert_eq!(dry, format!("{}: {litter}\n", state.display()));
        let ran = host.run(KEEP);
        assert!(ran.err.contains(litter), "{}", ran.err);
        assert_eq!(host.subvolumes("m"), ["m-1", "m-1.0", "m-default"]);
    });
}

#[test]
fn the_oldest_states_go_when_there_are_too_many_or_too_little_is_free() {
    isolated(|| {
        let Some(host) = host() else { return };
        // Two of them take more than that, and one does not.
        let words = &[KEEP, &["--keep-state=100M"]].concat();
        fail(&host, "one", COUNT, words);
        let first = states(&host);
        let said = fail(&host, "two", COUNT, words);
        let second = states(&host);
        assert_eq!((first.len(), second.len()), (1, 1), "{said}");
        assert_ne!(first, second);
        assert!(
            said.contains(": the oldest state of a failed guest"),
            "{said}"
        );
        // The evidence of both is there.
        assert_eq!(failures(&host).len(), 2);
        let listed = finish(host.agent(&["--status", "--failed"]), TURN).out;
        assert_eq!(listed.matches("\n  state ").count(), 1, "{listed}");

        // One that is larger than all may be is not kept.
        let said = fail(
            &host,
            "three",
            COUNT,
            &[KEEP, &["--keep-state=1M"]].concat(),
        );
        assert!(
            said.contains(", more than the 1.0 MiB of --keep-state"),
            "{said}"
        );
        assert_eq!(states(&host), second);

        // Tasks need the space.
        let available = snapshot::space(&host.machines()).unwrap().available;
        let wanted = format!("{}K", (available >> 10) + 10_000);
        host.task("four", "m", "");
        let ran = host.run(&["--once", "--min-free", &wanted]);
        assert!(
            ran.err.contains(": the oldest state of a failed guest"),
            "{}",
            ran.err
        );
        assert!(states(&host).is_empty());
        assert!(
            host.result("four").unwrap().contains("status: success"),
            "{}",
            ran.err
        );
        // Nor is the memory of a guest written where it may not fit.
        let available = snapshot::space(&host.machines()).unwrap().available;
        let wanted = format!("{}K", (available >> 10) - 100_000);
        let said = fail(
            &host,
            "five",
            COUNT,
            &[KEEP, &["--min-free", &wanted]].concat(),
        );
        assert!(
            said.contains("the memory of the failed guest is not kept: less than "),
            "{said}"
        );
        assert!(
            said.contains("kept the disk of the failed guest in "),
            "{said}"
        );
        let state = host.machine("m").join(&states(&host)[0]);
        assert_eq!(names(&state), ["disk.img", "evidence", "manifest"]);
    });
}

#[test]
fn a_guest_that_has_ended_leaves_its_disk() {
    isolated(|| {
        let Some(host) = host() else { return };
        let said = fail(&host, "one", "target-config: mode=poweroff\n", KEEP);
        assert!(
            said.contains("kept the disk of the failed guest in "),
            "{said}"
        );
        let listed = finish(host.agent(&["--status", "--failed"]), TURN).out;
        assert!(listed.contains("\n  state     disk only, "), "{listed}");
        // A guest that is repeated is not kept: that would delay the result.
        let words = ["--build-startup=1", "--build-retries=1"];
        let said = fail(&host, "two", "", &[KEEP, &words].concat());
        assert_eq!(said.matches("kept memory and disk ").count(), 1, "{said}");
        assert_eq!(failures(&host).len(), 3);
        assert_eq!(states(&host).len(), 2);
    });
}

#[test]
fn a_kill_while_a_state_is_saved_leaves_nothing_after_the_next_start() {
    isolated(|| {
        let Some(host) = host() else { return };
        // QEMU stops for a while as soon as it is to write the memory; the agent is killed
        // then, or when the snapshot was made.
        for awaited in ["saving", "evidence"] {
            host.task("one", "m", COUNT);
            let _turn = guest::turn();
            let mut command = host.agent(&[KEEP, &["--verbose", "3"]].concat());
            command.arg(host.path("controller"));
            let mut agent = host.start(command, "log");
            let log = || fs::read_to_string(host.path("log")).unwrap();
            let status = || fs::read_to_string(host.path("run/default-1/status.json"));
            within(TURN, awaited, || match awaited {
                "saving" => status().is_ok_and(|text| text.contains("\"saving\"")),
                _ => states(&host).iter().any(|state| {
                    host.machine("m")
                        .join(state)
                        .join("evidence")
                        .symlink_metadata()
                        .is_ok()
                }),
            });
            agent.kill();
            assert!(host.result("one").is_some(), "{}", log());
            let ran = host.run(&["--once"]);
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            // Unless the kill came after the evidence was complete.
            let complete = failures(&host);
            assert_eq!(states(&host).len(), complete.len(), "{}", ran.err);
            for failure in complete {
                fs::remove_dir_all(failure).unwrap();
            }
            let ran = host.run(&["--once"]);
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            assert_eq!(host.subvolumes("m"), ["m-1", "m-1.0", "m-default"]);
            fs::remove_file(host.path("controller/results/one.manifest")).unwrap();
        }
    });
}
