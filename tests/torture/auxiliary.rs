//! Kills while a task with two auxiliary machines is performed.

use std::fs;
use std::process::Command;

use super::{
    Call, KILL, Stage, calls, chosen, diagnostics, difference, finish, inventory, recover,
};
use crate::support::{isolated, program, require_programs};

const NAMES: [&str; 2] = ["x86-a", "x86-b"];
const NEEDS: &str = "auxiliary-machine-a: x86-a\nauxiliary-machine-b: x86-b\n";

#[test]
fn killed_with_two_auxiliary_machines_it_loses_and_leaves_nothing() {
    isolated(|| {
        if !require_programs(&["strace"]) {
            return;
        }
        let Some(mut stage) = Stage::new(false) else {
            return;
        };
        stage.options = &["--auxiliary-ram", "300M"];
        let site = &stage.site;
        for name in NAMES {
            site.add_revision(name, 0);
            let revision = site.machines().join(name).join(format!("{name}-1.0"));
            let text = format!(
                ": 1\nid: {name}-1.0\nname: {name}\nsummary: Linux\ntype: kvm\nrole: auxiliary\n\
                 ram-minimum: 131072\n"
            );
            fs::write(revision.join("manifest"), text).unwrap();
            fs::write(revision.join("auxiliary"), "").unwrap();
        }
        // The bootstrap, then the measure.
        let mut turn = Vec::new();
        for task in ["first", "measure"] {
            site.task_for("controller", task, NEEDS);
            turn = calls(&stage);
            assert!(stage.collect(task).is_some(), "{}", diagnostics(site));
        }
        let before = inventory(site);
        let accepted = turn.iter().position(Call::notes_the_task).unwrap();
        let rounds = chosen(turn.split_off(accepted), 6, 2);
        eprintln!("auxiliary: {} calls", rounds.len());
        let mut failures = Vec::new();
        for (n, call) in rounds.iter().enumerate() {
            let task = format!("t-{n}");
            site.task_for("controller", &task, NEEDS);
            let mut tracer = Command::new(program("strace").unwrap());
            tracer
                .args(["-qq", "-o", "/dev/null", "-e"])
                .arg(format!("trace={}", call.name))
                .arg("-e")
                .arg(format!("inject={}:{KILL}:when={}", call.name, call.index));
            eprintln!("auxiliary: {} {}", call.name, call.index);
            let status = finish(&stage, tracer);
            let obstructed = format!("{}[{status}]\n", diagnostics(site));
            let mut wrong = match recover(&stage, &task, stage.identity(&task)) {
                Ok(result) if result.contains("status: success") => String::new(),
                Ok(result) => format!("another result: {result}"),
                Err(why) => why,
            };
            finish(&stage, Command::new("env"));
            wrong.push_str(&difference(site, &before));
            if !wrong.is_empty() {
                let call = &call.line;
                failures.push(format!("{call}\n{obstructed}wrong:\n{wrong}"));
            }
        }
        let count = failures.len();
        assert!(
            failures.is_empty(),
            "{count} of {} rounds failed\n{}",
            rounds.len(),
            failures.join("\n----\n")
        );
    });
}
