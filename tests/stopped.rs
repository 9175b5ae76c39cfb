//! An agent that is stopped (SIGSTOP) in the middle of a build, or whose host
//! sleeps: the time in which nobody looked is nobody's fault.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::host::{TURN, ended};
use crate::support::site::Site;
use crate::support::{Process, eventually, isolated};

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

fn a_build_survives_a_stop(with_guest: bool) {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        // The guest works for a moment, so that its upload falls into the stop.
        fs::write(site.machine().join("linux-1.0/pause"), "500").unwrap();
        site.task("t");
        let log = site.path("agent.log");
        let mut agent = Process(
            Command::new(Site::agent())
                .args(site.arguments())
                .stdin(Stdio::null())
                .stderr(File::create(&log).unwrap())
                .spawn()
                .unwrap(),
        );
        eventually("the guest has its task", || {
            let machine = fs::read_dir(site.machine()).unwrap();
            machine
                .flatten()
                .any(|entry| entry.path().join("pausing").exists())
        });
        let pid = Pid::from_raw(i32::try_from(agent.0.id()).unwrap());
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
        let said = fs::read_to_string(&log).unwrap();
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
