//! Kills and faults while a template is made, and while a task starts from it.

use super::faults::ON_DISK;
use super::{
    Call, KILL, Stage, calls, chosen, diagnostics, difference, finish, inventory, recover,
};
use std::process::Command;

use bbot_agent::snapshot;

use crate::support::{isolated, program, require_programs, run};

/// Rounds of a turn that makes the template, or has a task.
fn rounds(fault: &str, has_task: bool, some: usize, offset: usize) {
    isolated(|| {
        if !require_programs(&["strace"]) {
            return;
        }
        let Some(mut stage) = Stage::new(false) else {
            return;
        };
        stage.options = &["--warm"];
        run("ip link set br1 address 02:00:00:00:00:01");
        let site = &stage.site;
        let template = site.machine().join("linux-default-@warm.1");
        let reset = |task: &str| match has_task {
            true => stage.task(task),
            false => snapshot::delete(&template).unwrap(),
        };
        // The bootstrap and a first task, then the template, and the measure.
        stage.task("first");
        finish(&stage, Command::new("env"));
        assert!(stage.collect("first").is_some(), "{}", diagnostics(site));
        finish(&stage, Command::new("env"));
        assert!(template.exists(), "{}", diagnostics(site));
        reset("measure");
        let turn = calls(&stage);
        let said = if has_task {
            ", restore "
        } else {
            "made template"
        };
        assert!(diagnostics(site).contains(said), "{}", diagnostics(site));
        assert_eq!(stage.collect("measure").is_some(), has_task);
        let before = inventory(site);

        let mut failures = Vec::new();
        let is_obstacle = fault != KILL && !has_task;
        // A socket has no disk.
        let is_on_disk =
            |call: &Call| ON_DISK.contains(&call.name.as_str()) && !call.line.contains("execute");
        let applies = |call: &Call| !is_obstacle || is_on_disk(call);
        let turn = turn.into_iter().filter(applies).collect();
        let rounds = chosen(turn, some, offset);
        for (n, call) in rounds.iter().enumerate() {
            let task = format!("t-{n}");
            reset(&task);
            let mut tracer = Command::new(program("strace").unwrap());
            tracer
                .args(["-qq", "-o", "/dev/null", "-e"])
                .arg(format!("trace={}", call.name))
                .arg("-e")
                .arg(format!("inject={}:{fault}:when={}", call.name, call.index));
            eprintln!("warm: {} {}", call.name, call.index);
            let status = finish(&stage, tracer);
            let obstructed = format!("{}[{status}]\n", diagnostics(site));
            let mut wrong = String::new();
            if has_task {
                match recover(&stage, &task, stage.identity(&task)) {
                    Ok(result) if result.contains("status: success") => {}
                    // A call that failed may cost the task, if the result says so.
                    Ok(result)
                        if fault != KILL
                            && result.contains("status: abort")
                            && result.contains("configure-log: bbot-agent: ") => {}
                    Ok(result) => wrong.push_str(&format!("another result: {result}")),
                    Err(why) => wrong.push_str(&why),
                }
            }
            if is_obstacle {
                let said =
                    obstructed.matches("error: ").count() + obstructed.matches("warning: ").count();
                if said > 1 || said == 0 && !template.exists() || obstructed.contains("panicked") {
                    wrong.push_str(&format!("{said} reasons\n"));
                }
                stage.task(&task);
                match recover(&stage, &task, None) {
                    Ok(result) if result.contains("status: success") => {}
                    other => wrong.push_str(&format!("the next task: {other:?}\n")),
                }
            }
            // Turns without a task make the template, if it was lost.
            for _ in 0..2 {
                finish(&stage, Command::new("env"));
            }
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

#[test]
fn killed_while_a_template_is_made_it_leaves_nothing() {
    rounds(KILL, false, 10, 2);
}

#[test]
fn killed_while_a_task_starts_warm_it_loses_and_leaves_nothing() {
    rounds(KILL, true, 10, 1);
}

#[test]
fn a_full_disk_while_a_task_starts_warm_loses_and_leaves_nothing() {
    rounds("error=ENOSPC", true, 10, 4);
}

#[test]
fn a_full_disk_while_a_template_is_made_has_one_reason_and_leaves_nothing() {
    rounds("error=ENOSPC", false, 6, 1);
}

#[test]
fn a_broken_disk_while_a_template_is_made_has_one_reason_and_leaves_nothing() {
    rounds("error=EIO", false, 6, 3);
}
