//! Kills of two agents, one of which has the task of the other one paused or interrupted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use super::{CALLS, Call, HANG, STARTS, chosen, difference, inventory, of_log};
use crate::support::site::Site;
use crate::support::{Process, isolated, program, require_programs};

/// An agent of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Its task makes room.
    Low,
    /// It asks for it.
    High,
}

use Role::{High, Low};

impl Role {
    fn name(self) -> &'static str {
        match self {
            Low => "low",
            High => "high",
        }
    }

    /// Whether the calls from this one on belong to what is examined.
    fn begins(self, call: &Call) -> bool {
        match self {
            // The connection of the other agent.
            Low => call.name == "accept4" && !call.line.contains(" = -1 "),
            High => call.line.contains("/host.lock"),
        }
    }
}

/// Two agents of a host, each with a controller.
struct Pair {
    site: Site,
    options: &'static [&'static str],
}

/// How a round ended.
struct Round {
    statuses: [ExitStatus; 2],
}

impl Pair {
    fn said(&self, role: Role) -> String {
        let log = self.site.path(&format!("{}.log", role.name()));
        fs::read_to_string(log).unwrap_or_default()
    }

    fn task(&self, role: Role, task: &str) {
        // Long enough for the other agent to come.
        let length = if role == Low { 600 } else { 100 };
        let extra = format!("target-config: pause={length}\n");
        self.site.task_for(role.name(), task, &extra);
    }

    fn start(&self, role: Role, mut tracer: Command) -> Process {
        let (instance, priority) = if role == Low { (1, 100) } else { (2, 200) };
        let log = self.site.path(&format!("{}.log", role.name()));
        let output = fs::File::create(log).unwrap();
        tracer
            .arg(Site::agent())
            .args(self.options)
            .args(self.site.arguments_of(instance, &[(priority, role.name())]))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        Process(tracer.spawn().unwrap())
    }

    fn end(&self, role: Role, process: &mut Process) -> ExitStatus {
        let deadline = Instant::now() + HANG;
        loop {
            if let Some(status) = process.0.try_wait().unwrap() {
                return status;
            }
            let said = [Low, High].map(|role| self.said(role));
            assert!(Instant::now() < deadline, "{role:?} hangs: {said:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// One task for each agent, the higher one during the lower one.
    fn round(&self, task: &str, mut tracer: impl FnMut(Role) -> Command) -> Round {
        self.task(Low, task);
        let mut low = self.start(Low, tracer(Low));
        let deadline = Instant::now() + HANG;
        while !self.site.has_busy_guest() && low.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "no task: {}", self.said(Low));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.task(High, task);
        let mut high = self.start(High, tracer(High));
        Round {
            statuses: [self.end(Low, &mut low), self.end(High, &mut high)],
        }
    }

    fn result(&self, role: Role, task: &str) -> Option<(String, (u64, i64))> {
        let results = self.site.path(role.name()).join("results");
        let path = results.join(format!("{task}.manifest"));
        let text = fs::read_to_string(&path).ok()?;
        let file = fs::metadata(&path).unwrap();
        Some((text, (file.ino(), file.mtime_nsec())))
    }

    /// Starts the agent until its task has a result, which is one and a success, and once
    /// more.
    fn recover(&self, role: Role, task: &str) -> Result<(), String> {
        let first = self.result(role, task);
        let mut all = String::new();
        for _ in 0..STARTS {
            let before = self.result(role, task);
            let status = self.end(role, &mut self.start(role, Command::new("env")));
            all.push_str(&format!("{}[{status}]\n", self.said(role)));
            if first.is_some() && self.result(role, task) != first {
                return Err(format!("{role:?}: the result is sent twice\n{all}"));
            }
            let Some((text, _)) = before else { continue };
            for dir in ["results", "done"] {
                let file = self.site.path(role.name()).join(dir);
                let _ = fs::remove_file(file.join(format!("{task}.manifest")));
            }
            return match text.contains("status: success") {
                true => Ok(()),
                false => Err(format!("{role:?}: another result: {text}\n{all}")),
            };
        }
        Err(format!("{role:?}: the task is lost\n{all}"))
    }
}

/// Kills the agent of `role` at calls while its task makes room, or it waits for that.
fn rounds(role: Role, pauses: bool, some: usize, offset: usize) {
    isolated(|| {
        if !require_programs(&["strace"]) {
            return;
        }
        let Some(site) = Site::new() else { return };
        // A guest has 128 MiB.
        let options: &[&str] = match pauses {
            true => &["--instance-max", "1"],
            false => &["--host-ram", "200M"],
        };
        let pair = Pair { site, options };
        let site = &pair.site;
        // The bootstrap and the directories that stay, then the measure.
        let mut calls = Vec::new();
        let mut before = BTreeSet::new();
        let log = site.path("strace.log");
        for n in 0..2 {
            let task = format!("warm-{n}");
            let round = pair.round(&task, |of| {
                let mut tracer = Command::new(program("strace").unwrap());
                let log = if of == role {
                    log.as_path()
                } else {
                    "/dev/null".as_ref()
                };
                tracer.args(["-qq", "-s", "256", "-o"]).arg(log);
                tracer.arg("-e").arg(format!("trace={CALLS}"));
                tracer
            });
            let said = [Low, High].map(|role| pair.said(role));
            assert!(round.statuses.iter().all(ExitStatus::success), "{said:?}");
            let words = if pauses {
                "goes on after"
            } else {
                "has a higher priority"
            };
            assert!(said[0].contains(words), "{said:?}");
            assert_eq!(pair.result(Low, &task).is_some(), pauses, "{said:?}");
            for role in [Low, High] {
                pair.recover(role, &task).unwrap();
            }
            calls = of_log(&log);
            before = inventory(site);
        }
        let total = calls.len();
        let first = calls.iter().position(|call| role.begins(call)).unwrap();
        let window = calls.split_off(first);
        let count = window.len();
        let what = format!(
            "{} {}",
            role.name(),
            if pauses { "paused" } else { "interrupted" }
        );
        let calls = chosen(window, some, offset);
        eprintln!("{what}: {} of {count} calls, of {total}", calls.len());

        let mut failures = Vec::new();
        let mut killed = 0;
        for (n, call) in calls.iter().enumerate() {
            let task = format!("t-{n}");
            let round = pair.round(&task, |of| {
                if of != role {
                    return Command::new("env");
                }
                let mut tracer = Command::new(program("strace").unwrap());
                let Call { name, index, .. } = call;
                tracer.args(["-qq", "-o", "/dev/null", "-e"]);
                tracer.arg(format!("trace={name}"));
                tracer.arg("-e");
                tracer.arg(format!("inject={name}:signal=KILL:when={index}"));
                tracer
            });
            let said = [Low, High].map(|role| pair.said(role));
            let [of_low, of_high] = round.statuses;
            killed += usize::from(
                round
                    .statuses
                    .iter()
                    .any(|status| status.signal().is_some()),
            );
            let mut wrong = String::new();
            // The other agent is not in need of a start.
            let other = if role == Low { High } else { Low };
            let has_result = pair.result(other, &task).is_some();
            let gives_back = said[0].contains("has a higher priority");
            if !has_result && (other == High || !gives_back) {
                wrong.push_str("the other agent has no result\n");
            }
            for role in [Low, High] {
                if let Err(why) = pair.recover(role, &task) {
                    wrong.push_str(&why);
                }
            }
            wrong.push_str(&difference(site, &before));
            eprintln!("{what}: {} {}: {of_low}, {of_high}", call.name, call.index);
            if !wrong.is_empty() {
                let [low, high] = said;
                failures.push(format!(
                    "{}\nlow [{of_low}]:\n{low}high [{of_high}]:\n{high}wrong:\n{wrong}",
                    call.line
                ));
                before = inventory(site);
            }
        }
        let count = failures.len();
        assert!(
            failures.is_empty(),
            "{what}: {count} of {} rounds failed\n{}",
            calls.len(),
            failures.join("\n----\n")
        );
        // The calls are not the same in each round.
        eprintln!("{what}: {killed} of {} rounds had a kill", calls.len());
        assert!(killed * 4 >= calls.len() * 3, "{killed} of {}", calls.len());
    });
}

#[test]
fn killed_while_its_task_is_paused_an_agent_loses_and_leaves_nothing() {
    rounds(Low, true, 4, 0);
}

#[test]
fn killed_while_its_task_is_interrupted_an_agent_loses_and_leaves_nothing() {
    rounds(Low, false, 4, 0);
}

#[test]
fn killed_while_it_has_a_task_paused_an_agent_loses_and_leaves_nothing() {
    rounds(High, true, 4, 0);
}

#[test]
fn killed_while_it_has_a_task_interrupted_an_agent_loses_and_leaves_nothing() {
    rounds(High, false, 4, 0);
}
