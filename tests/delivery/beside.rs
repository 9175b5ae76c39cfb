//! Deliveries beside the agent's work, by a process of their own.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::brep::{Brep, Setup};
use crate::support::http::Server;
use crate::support::site::Site;
use crate::support::{Process, await_idle, eventually, isolated};

const TASK: &str = "name: libfoo\nversion: 1.2.3\nrepository-url: https://h/1/a\n\
                    repository-type: pkg\nmachine: linux\ntarget: x86_64-linux-gnu\n";

/// An agent that makes turns until it is killed.
fn start(site: &Site, controllers: &[String]) -> Process {
    let mut arguments = site.arguments();
    arguments.retain(|argument| argument != "--once");
    arguments.pop();
    let mut command = Command::new(Site::agent());
    command
        .args(arguments)
        .args(["--poll-interval", "1", "--toolchain-ver", "0.17.0"])
        .args(["--build-timeout", "60"])
        .args(controllers)
        .stdin(Stdio::null())
        .stderr(fs::File::create(site.path("agent.log")).unwrap());
    Process(command.spawn().unwrap())
}

/// The deliverer of an agent.
fn deliverer(agent: &Process) -> Option<u32> {
    let pid = agent.0.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let mut pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.find(|pid| is_deliverer(*pid))
}

fn is_deliverer(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split('\0').any(|word| word == "--deliver"))
}

#[test]
fn a_result_is_sent_again_while_a_guest_works() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        fs::write(site.machine().join("linux-1.0/pause"), "13000").unwrap();
        let brep = Brep::start(Setup::default());
        brep.queue(TASK);
        brep.queue(TASK);
        brep.state().result_moods = vec![502];
        let agent = start(&site, &[brep.url()]);
        let log = || fs::read_to_string(site.path("agent.log")).unwrap();
        eventually("the first result is refused", || {
            log().contains("next attempt in 10 s")
        });
        // The second attempt is due after ten seconds, the second build needs more.
        eventually("the first result is there", || {
            let state = brep.state();
            let first = state.builds.first();
            first.is_some_and(|build| build.result.is_some())
        });
        assert_eq!(brep.state().builds.len(), 2, "{}", log());
        assert!(brep.state().builds[1].result.is_none(), "{}", log());
        eventually("the second result is there", || {
            brep.state().builds[1].result.is_some()
        });
        eventually("the deliverer has ended", || deliverer(&agent).is_none());
    });
}

#[test]
fn a_controller_that_hangs_keeps_its_results_and_not_the_agent() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let server = Server::start(|mut connection| {
            let Ok(request) = connection.request() else {
                return;
            };
            if !request.target.contains("build-task") {
                return connection.hang();
            }
            let host = request.header("host").unwrap().to_owned();
            let task = format!("session: s\nresult-url: http://{host}/?r\n:\n{TASK}");
            connection.answer("200 OK", &format!(": 1\n{task}"));
        });
        let agent = start(&site, &[server.url("/?build-task")]);
        eventually("several tasks are built", || {
            fs::read_to_string(site.path("agent.log"))
                .unwrap()
                .matches("success in ")
                .count()
                > 2
        });
        // The deliverer dies with the agent.
        let pid = deliverer(&agent).unwrap();
        drop(agent);
        eventually("the deliverer is gone", || !is_deliverer(pid));
    });
}

#[test]
fn an_agent_without_results_has_no_deliverer() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let brep = Brep::start(Setup::default());
        let agent = start(&site, &[brep.url()]);
        await_idle(&site.path("run/default-1"), "no-task");
        assert_eq!(deliverer(&agent), None);
    });
}
