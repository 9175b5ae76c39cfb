//! Two agents of a host, one of which has tasks of higher priority.

use std::fs;
use std::process::Command;
use std::time::Instant;

use bbot_agent::json::Value;

use crate::support::brep::{Brep, Setup};
use crate::support::host::{Host, TURN, finish};
use crate::support::{Process, guest, isolated, status, within};

/// A host with a controller of lower and one of higher priority.
struct Pair {
    host: Host,
    low: Brep,
    high: Brep,
}

fn task(mode: &str) -> String {
    format!("name: libfoo\nversion: 1.2.3\nmachine: linux-gcc\ntarget-config: mode={mode}\n")
}

impl Pair {
    fn new() -> Option<Pair> {
        let host = Host::new()?;
        host.add_bootstrapped("linux-gcc", "");
        let [low, high] = [(); 2].map(|()| Brep::start(Setup::default()));
        Some(Pair { host, low, high })
    }

    /// The agent for the controller of lower priority.
    fn start_low(&self, words: &[&str]) -> Process {
        let mut command = self.host.agent(&["--poll-interval", "1"]);
        command.args(["--toolchain-ver", "0.17.0", "--instance-max", "1"]);
        command.args(words).arg(format!("100={}", self.low.url()));
        self.host.start(command, "low.log")
    }

    /// The other one.
    fn high(&self, words: &[&str]) -> Command {
        let mut command = self.host.agent(&["--once", "--instance", "2"]);
        command.args(["--toolchain-ver", "0.17.0", "--instance-max", "1"]);
        command.args(words).arg(format!("200={}", self.high.url()));
        command
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.host.path(name)).unwrap()
    }

    /// Waits until the guest of the agent of lower priority is in a phase.
    fn await_low(&self, phase: &str) {
        let run = self.host.path("run/default-1");
        within(TURN, phase, || {
            let status = status(&run);
            let word = status.and_then(|status| {
                let word = status.get("phase").and_then(Value::as_str)?;
                Some(word.to_owned())
            });
            word.as_deref() == Some(phase)
        });
    }

    /// The last result at a controller.
    fn result(brep: &Brep) -> Option<String> {
        brep.state().builds.last()?.result.clone()
    }

    fn await_success(&self) {
        within(TURN, "the result is there", || {
            Pair::result(&self.low).is_some()
        });
        let result = Pair::result(&self.low).unwrap();
        let said = self.log("low.log");
        assert!(result.contains("\nstatus: success\n"), "{result} {said}");
    }
}

#[test]
fn a_task_is_paused_for_one_of_higher_priority_and_goes_on() {
    isolated(|| {
        let Some(pair) = Pair::new() else { return };
        let _turns = guest::turns(2);
        // Less than it takes with the pause.
        let _agent = pair.start_low(&["--build-timeout", "14"]);
        pair.low.queue(&task("slow"));
        pair.await_low("building");
        pair.high.queue(&task("slow"));
        let ran = finish(pair.high(&[]), TURN);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let said = "the task of default-1 is paused";
        assert!(ran.err.contains(said), "{}", ran.err);
        let result = Pair::result(&pair.high).unwrap();
        assert!(result.contains("\nstatus: success\n"), "{result}");
        pair.await_success();
        let log = pair.log("low.log");
        assert!(log.contains("paused for a task of default-2"), "{log}");
        assert!(log.contains("goes on after "), "{log}");

        // The agent of the higher one is killed.
        pair.low.queue(&task("slow"));
        pair.await_low("building");
        pair.high.queue(&task("stall"));
        let mut high = pair.host.start(pair.high(&[]), "high.log");
        pair.await_low("paused");
        high.kill();
        pair.await_success();
    });
}

#[test]
fn a_task_is_given_back_for_one_of_higher_priority_that_needs_its_memory() {
    isolated(|| {
        let Some(pair) = Pair::new() else { return };
        let _turns = guest::turns(2);
        let _agent = pair.start_low(&[]);
        pair.low.queue(&task("stall"));
        pair.await_low("building");
        pair.high.queue(&task("slow"));
        // A guest has 256 MiB.
        let high = pair.high(&["--host-ram", "400M"]);
        let high = pair.host.start(high, "high.log");
        within(TURN, "the higher task is handed out", || {
            !pair.high.state().builds.is_empty()
        });
        let start = Instant::now();
        within(TURN, "the lower task is given back", || {
            Pair::result(&pair.low).is_some()
        });
        let took = start.elapsed();
        assert!(pair.low.state().builds[0].is_interrupted());
        within(TURN, "the higher task is done", || {
            Pair::result(&pair.high).is_some()
        });
        drop(high);
        let log = pair.log("high.log");
        assert!(
            log.contains("the task of default-1 is interrupted"),
            "{log}"
        );
        assert!(took.as_secs() < 2, "{took:?}: {log}");
        let log = pair.log("low.log");
        assert!(log.lines().all(|line| line.starts_with("info: ")), "{log}");
    });
}
