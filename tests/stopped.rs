//! An agent that is stopped (SIGSTOP) in the middle of a build, or whose host
//! sleeps: the time in which nobody looked is nobody's fault.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use bbot_agent::sys::flock::{How, Locked};

use crate::support::host::{TURN, ended, names};
use crate::support::http::{Connection, Server};
use crate::support::site::Site;
use crate::support::{PATIENCE, Process, eventually, isolated};

/// More than the limit of any phase ([`Site::arguments`]) and then some.
const STOPPED: Duration = Duration::from_secs(8);

/// The processes that `pid` has started.
fn children(pid: Pid) -> Vec<Pid> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap()
        .split_whitespace()
        .map(|child| Pid::from_raw(child.parse().unwrap()))
        .collect()
}

fn start(site: &Site, arguments: &[String]) -> Process {
    Process(
        Command::new(Site::agent())
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(File::create(site.path("agent.log")).unwrap())
            .spawn()
            .unwrap(),
    )
}

fn pid(agent: &Process) -> Pid {
    Pid::from_raw(i32::try_from(agent.0.id()).unwrap())
}

fn a_build_survives_a_stop(with_guest: bool) {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        // The guest works for a moment, so that its upload falls into the stop.
        fs::write(site.machine().join("linux-1.0/pause"), "500").unwrap();
        site.task("t");
        let mut agent = start(&site, &site.arguments());
        eventually("the guest has its task", || site.has_busy_guest());
        let pid = pid(&agent);
        let mut all = vec![pid];
        if with_guest {
            all.extend(children(pid));
            assert_eq!(all.len(), 2);
        }
        for pid in &all {
            kill(*pid, Signal::SIGSTOP).unwrap();
        }
        std::thread::sleep(STOPPED);
        for pid in &all {
            kill(*pid, Signal::SIGCONT).unwrap();
        }
        let code = ended(&mut agent, TURN);
        let said = fs::read_to_string(site.path("agent.log")).unwrap();
        assert_eq!(code, Some(0), "{said}");
        let result = site.result("t").unwrap_or_default();
        assert!(result.contains("status: success"), "{said}{result}");
        assert!(!said.contains("error: "), "{said}");
    });
}

#[test]
fn a_stopped_agent_does_not_blame_its_guest() {
    a_build_survives_a_stop(false);
}

#[test]
fn an_agent_and_a_guest_that_were_stopped_together_go_on() {
    a_build_survives_a_stop(true);
}

#[test]
fn a_sweep_of_another_agent_that_is_stopped_holds_up_nothing_for_ever() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        site.task("t");
        let sweep = || {
            let directory = File::open(site.machine()).unwrap();
            Locked::take(directory, How::TryExclusive).unwrap()
        };
        let held = sweep();
        let mut arguments = site.arguments();
        arguments.splice(..0, ["--verbose", "3"].map(str::to_owned));
        let waits = |agent: &Process| {
            let said = || fs::read_to_string(site.path("agent.log")).unwrap();
            eventually("it tries again", || {
                said().matches("subvolume snapshot").count() > 2
            });
            pid(agent)
        };

        // Told to stop it does.
        let mut agent = start(&site, &arguments);
        kill(waits(&agent), Signal::SIGTERM).unwrap();
        assert_eq!(ended(&mut agent, PATIENCE), Some(0));
        assert_eq!(site.result("t"), None);

        // The sweep is over: it goes on by itself.
        let mut agent = start(&site, &arguments);
        waits(&agent);
        drop(held);
        assert_eq!(ended(&mut agent, TURN), Some(0));
        assert!(site.result("t").unwrap().contains("status: success"));

        // The same for the snapshot of a task.
        let held = sweep();
        site.task("u");
        let mut agent = start(&site, &arguments);
        kill(waits(&agent), Signal::SIGTERM).unwrap();
        assert_eq!(ended(&mut agent, PATIENCE), Some(0));
        // Given back, and no failure of the package's.
        let result = site.result("u").unwrap_or_default();
        assert!(!result.contains("abort"), "{result}");
        drop(held);
    });
}

/// What a controller of one task has got: results, and whether the first was
/// answered.
fn answer(mut connection: Connection, results: &AtomicU32, may_answer: &AtomicU32) {
    let Ok(request) = connection.request() else {
        return;
    };
    let host = request.header("host").unwrap().to_owned();
    if request.target.contains("build-task") {
        let task = if results.load(Ordering::SeqCst) == 0 {
            format!(
                "session: s\nresult-url: http://{host}/?build-result\n:\nname: t\n\
                 version: 1.2.3\nrepository-url: https://example.org/1\nrepository-type: pkg\n\
                 machine: linux\ntarget: x86_64-linux-gnu\n"
            )
        } else {
            "session:\n".to_owned()
        };
        return connection.answer("200 OK", &format!(": 1\n{task}"));
    }
    assert!(request.text().contains("status: success"));
    results.fetch_add(1, Ordering::SeqCst);
    eventually("it may answer", || may_answer.load(Ordering::SeqCst) > 0);
    connection.answer("200 OK", "");
}

#[test]
fn a_result_whose_answer_came_while_the_agent_was_stopped_is_delivered() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let results = Arc::new(AtomicU32::new(0));
        let may_answer = Arc::new(AtomicU32::new(0));
        let (count, permit) = (results.clone(), may_answer.clone());
        let server = Server::start(move |connection| answer(connection, &count, &permit));
        let mut arguments = site.arguments();
        arguments.pop();
        arguments
            .extend(["--toolchain-ver", "0.17.0", &server.url("/?build-task")].map(str::to_owned));
        let mut agent = start(&site, &arguments);
        eventually("the result is sent", || results.load(Ordering::SeqCst) > 0);
        kill(pid(&agent), Signal::SIGSTOP).unwrap();
        may_answer.store(1, Ordering::SeqCst);
        std::thread::sleep(STOPPED);
        kill(pid(&agent), Signal::SIGCONT).unwrap();
        assert_eq!(ended(&mut agent, TURN), Some(0));
        // If it thinks that the time was over, the next one sends it once more.
        let mut next = start(&site, &arguments);
        assert_eq!(ended(&mut next, TURN), Some(0));
        assert!(results.load(Ordering::SeqCst) <= 2);
        let waiting = names(&site.path("state"));
        let left = |name: &String| names(&site.path("state").join(name).join("results"));
        assert!(
            waiting.iter().all(|name| left(name).is_empty()),
            "{waiting:?}"
        );
        eprintln!("sent {} times", results.load(Ordering::SeqCst));
    });
}
