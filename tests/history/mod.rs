//! Three agents share a host for ten tasks of two controllers, and a model judges what
//! happened: what the controllers have, what the agents' journals say, and what the host
//! was used for at each time.

mod judge;
mod watcher;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bbot_agent::json::Value;
use bbot_agent::ledger::Capacity;
use nix::sys::signal::Signal;

use crate::agent::turns::signal;
use crate::support::brep::{Brep, Build, Setup};
use crate::support::host::{Host, TURN, ended};
use crate::support::site::Site;
use crate::support::{Process, guest, isolated, status, within};
use watcher::Watcher;

/// Tasks of the controller of lower priority, which is 1, and of the other one: 1000.
const LOW_TASKS: usize = 7;
const HIGH_TASKS: usize = 3;

/// The machines; the last one is upgraded.
const MACHINES: [&str; 2] = ["linux", "other"];

/// The host of the agents.
struct Ground<'g> {
    /// An agent without controllers.
    agent: &'g dyn Fn(u16) -> Command,
    /// What has run, state and log files.
    dir: PathBuf,
    machines: PathBuf,
    /// The host has room for two guests, and not for three.
    capacity: Capacity,
    /// Adds a revision of a machine.
    upgrade: &'g dyn Fn(&str),
    /// The target-config of the tasks of lower and of higher priority.
    work: [&'static str; 2],
}

impl Ground<'_> {
    fn start(&self, instance: u16, controllers: &[(u32, &Brep)]) -> Process {
        let mut command = (self.agent)(instance);
        let Capacity { ram_kb, cpus, .. } = self.capacity;
        command
            .args(["--agent-name", &format!("default-{instance}")])
            .args(["--poll-interval", "1", "--toolchain-ver", "0.17.0"])
            .args(["--host-ram", &format!("{ram_kb}")])
            .args(["--host-cpu", &format!("{cpus}")])
            .args(
                controllers
                    .iter()
                    .map(|(priority, brep)| format!("{priority}={}", brep.url())),
            );
        let log = fs::File::create(self.log(instance)).unwrap();
        Process(command.stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn log(&self, instance: u16) -> PathBuf {
        self.dir.join(format!("{instance}.log"))
    }

    /// How many agents are in this phase.
    fn count_in(&self, phase: &str) -> usize {
        let is_in = |instance: &u16| {
            let status = status(&self.dir.join(format!("run/default-{instance}")));
            let word = status.and_then(|status| Some(status.get("phase")?.as_str()?.to_owned()));
            word.as_deref() == Some(phase)
        };
        (1..=3).filter(is_in).count()
    }

    fn task(&self, number: usize, is_high: bool) -> String {
        let name = if is_high { "high" } else { "low" };
        format!(
            "name: {name}-{number}\nversion: 1.2.3\nrepository-url: https://example.org/1\n\
             repository-type: pkg\nmachine: {}\ntarget: x86_64-linux-gnu\ntarget-config: {}\n",
            MACHINES[number % MACHINES.len()],
            self.work[usize::from(is_high)],
        )
    }

    /// The long history. Its judgement is at the end.
    fn play(&self) {
        let [low, high] = [(); 2].map(|()| Brep::start(Setup::default()));
        let watcher = Watcher::start(self.dir.join("run"), self.machines.clone());
        for number in 0..LOW_TASKS {
            low.queue(&self.task(number, false));
        }
        let mut agents: Vec<_> = (1..=3)
            .map(|instance| self.start(instance, &[(1, &low), (1000, &high)]))
            .collect();
        let mut again = BTreeSet::new();
        for number in 0..HIGH_TASKS {
            // Both are in the middle of a task: one keeps its memory, the other one's is
            // needed.
            within(TURN, "two agents build", || {
                queue_again(&low, &mut again);
                self.count_in("building") == 2
            });
            high.queue(&self.task(number, true));
            if number == 0 {
                (self.upgrade)(MACHINES[1]);
            }
            within(TURN, "the higher task is done", || {
                queue_again(&low, &mut again);
                queue_again(&high, &mut again);
                done(&high).len() == number + 1
            });
        }
        within(TURN * 2, "all tasks are done", || {
            queue_again(&low, &mut again);
            done(&low).len() == LOW_TASKS && self.count_in("idle") == 3
        });
        for agent in &agents {
            signal(agent, Signal::SIGTERM);
        }
        for agent in &mut agents {
            assert_eq!(ended(agent, TURN), Some(0));
        }
        judge::judge(self, &[(1, &low), (1000, &high)], &watcher.end());
    }
}

/// Has the controller queue tasks again that were given back, as it does at once.
fn queue_again(brep: &Brep, again: &mut BTreeSet<String>) {
    let builds = brep.state().builds.clone();
    for build in builds.into_iter().filter(Build::is_interrupted) {
        if again.insert(build.session) {
            brep.queue(&build.task);
        }
    }
}

/// The tasks with a result that is final.
fn done(brep: &Brep) -> BTreeSet<String> {
    let state = brep.state();
    let builds = state.builds.iter();
    let done = builds.filter(|build| build.result.is_some() && !build.is_interrupted());
    done.map(|build| build.task.clone()).collect()
}

/// The value of a member of a JSON object.
fn word<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn ten_tasks_of_two_controllers_pass_by_each_other() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        site.add_revision("other", 0);
        Ground {
            agent: &|instance| {
                let mut command = Command::new(Site::agent());
                command.args(
                    site.arguments_of(instance, &[])
                        .iter()
                        .filter(|word| *word != "--once"),
                );
                command
            },
            dir: site.path(""),
            machines: site.machines(),
            capacity: Capacity {
                ram_kb: 300 << 10,
                cpus: 8,
                instances: None,
            },
            upgrade: &|machine| site.add_revision(machine, 1),
            work: ["pause=1500", "pause=300"],
        }
        .play();
    });
}

#[test]
#[ignore = "real guests take minutes: make torture"]
fn ten_tasks_of_two_controllers_pass_by_each_other_in_real_guests() {
    isolated(|| {
        let Some(host) = Host::of_size(2048) else {
            return;
        };
        let _turns = guest::turns(2);
        for machine in MACHINES {
            host.add_bootstrapped(machine, "");
        }
        Ground {
            agent: &|instance| host.agent(&["--instance", &instance.to_string()]),
            dir: host.path(""),
            machines: host.machines(),
            capacity: Capacity {
                ram_kb: 600 << 10,
                cpus: 8,
                instances: None,
            },
            upgrade: &|machine| {
                guest::install(&host.revision(machine, 1), "");
            },
            work: ["mode=slow", ""],
        }
        .play();
    });
}
