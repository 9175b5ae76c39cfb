//! What can go wrong with a guest: each way ends in a result, or in a machine
//! left alone for a while, with a sentence that says what happened, and leaves
//! nothing behind.

use crate::support::isolated;
use crate::support::world::{MACHINE, World};

#[test]
fn a_build_that_fails_in_any_way_is_a_result_that_says_why() {
    isolated(|| {
        let Some(world) = World::new("") else { return };
        world.turn(&[]).succeeded();
        let clean = world.inventory();
        for (mode, status, why) in [
            ("error", "error", "main.cxx:1: error: wanted"),
            ("panic", "abort", "the guest panicked before"),
            ("reboot", "abort", "reboot"),
            ("nothing", "abort", "powered"),
            ("garbage", "abort", "invalid result manifest"),
            ("stall", "abort", "was given 12 seconds, which were over"),
            ("abnormal", "abnormal", ""),
        ] {
            world.task(mode, &format!("target-config: mode={mode}\n"));
            let limit = if mode == "stall" { "12" } else { "60" };
            let turn = world.turn(&["--build-timeout", limit]);
            turn.succeeded();
            let result = world.result(mode).unwrap_or_default();
            // A long line of a manifest is folded.
            let flat = result.replace("\\\n", "");
            let head = format!(": 1\nname: {mode}\nversion: 1.0.0\nstatus: {status}\n");
            assert!(
                flat.starts_with(&head) && flat.contains(why),
                "{mode}: {result}\n{}",
                turn.said()
            );
            if status == "abort" {
                // The evidence.
                let said = turn.said();
                for part in ["info: qemu ", "info: console, ", "info: messages of qemu"] {
                    assert!(said.contains(part), "{mode}: no {part} in {said}");
                }
            }
            assert_eq!(world.inventory(), clean, "left by {mode}");
        }
    });
}

#[test]
fn a_bootstrap_that_fails_in_any_way_leaves_nothing_and_the_others_work() {
    isolated(|| {
        let Some(world) = World::new("") else { return };
        let failing = ["garbage", "panic", "nothing", "deaf", "silent", "stall"];
        for mode in failing {
            world.add_machine(mode, &format!("mode={mode}\n"));
        }
        world.task("honest", "");
        let turn = world.turn(&[
            "--bootstrap-startup",
            "25",
            "--bootstrap-timeout",
            "25",
            "--bootstrap-shutdown",
            "5",
            "--bootstrap-retries",
            "0",
        ]);
        let said = turn.said();
        let result = world.result("honest").unwrap_or_default();
        assert!(result.contains("\nstatus: success\n"), "{result}\n{said}");
        for mode in failing {
            let left: Vec<_> = std::fs::read_dir(world.machine(mode))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.contains("default"))
                .collect();
            assert!(left.is_empty(), "{mode}: {left:?}\n{said}");
            let machine = format!("/{mode}/{mode}-default");
            assert!(said.contains(&machine), "nothing of {mode}: {said}");
        }
        for why in [
            "invalid bootstrap manifest",
            "the guest panicked",
            "shutdown timeout",
            "startup timeout",
        ] {
            assert!(said.contains(why), "no {why}: {said}");
        }
        assert!(
            world
                .machine(MACHINE)
                .join(format!("{MACHINE}-default"))
                .exists()
        );
    });
}
