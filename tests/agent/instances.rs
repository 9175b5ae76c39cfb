//! Several agents for one toolchain on one host.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::host::{Host, TURN, ended, finish, names};
use crate::support::{Process, eventually, guest, isolated};

use super::turns::signal;

/// The owners of the claims that are there.
fn claims(host: &Host) -> Vec<String> {
    let run_dir = host.path("run");
    let mut agents = names(&run_dir);
    agents.retain(|agent| run_dir.join(agent).join("claim").exists());
    agents
}

#[test]
fn three_instances_share_machines_and_the_memory_for_two_guests() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        for name in ["one", "two", "three"] {
            host.task(name, "linux-gcc", "");
        }
        let _turns = guest::turns(2);
        let start = |instance: &str| {
            let mut command = host.agent(&[
                "--verbose=2",
                "--poll-interval=1",
                // Two guests of 256 MiB.
                "--host-ram=600M",
                "--host-cpu=8",
                "--instance",
                instance,
            ]);
            command.arg(host.path("controller"));
            host.start(command, &format!("{instance}.log"))
        };
        let mut agents: Vec<Process> = ["1", "2"].map(start).into();
        eventually("two guests have claims", || claims(&host).len() == 2);
        agents.push(start("3"));
        let deadline = Instant::now() + TURN * 2;
        let (mut most, mut status) = (0, String::new());
        let done = |name: &str| {
            let result = host.result(name);
            result.is_some_and(|text| text.contains("status: success\n"))
        };
        while !["one", "two", "three"].into_iter().all(done) {
            assert!(Instant::now() < deadline, "there are not three results");
            let count = claims(&host).len();
            if count > most {
                status = finish(host.agent(&["--status"]), TURN).out;
            }
            most = most.max(count);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(most, 2);
        assert!(
            status.contains("host: 512.0 MiB of 600.0 MiB and 2 of 8 processors in use"),
            "{status}"
        );
        assert!(
            status.contains("256.0 MiB and 1 processor for a task of priority 0000"),
            "{status}"
        );
        for agent in &agents {
            signal(agent, Signal::SIGTERM);
        }
        for agent in &mut agents {
            assert_eq!(ended(agent, Duration::from_secs(20)), Some(0));
        }
        let logs = ["1", "2", "3"].map(|instance| {
            let log = host.path(&format!("{instance}.log"));
            fs::read_to_string(log).unwrap()
        });
        assert!(
            logs.iter()
                .any(|log| log.contains("host full: memory: 256.0 MiB wanted")),
            "{logs:#?}"
        );
        assert!(logs.iter().all(|log| !log.contains("error: ")), "{logs:#?}");
        eventually("no claim is left", || claims(&host).is_empty());
    });
}

#[test]
fn guests_that_never_fit_keep_the_agent_from_starting() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let ran = host.run(&["--once", "--host-ram=100M"]);
        assert_eq!(ran.code, Some(78), "{}", ran.err);
        assert!(
            ran.err
                .contains("the guests of a task never fit: 256.0 MiB (--ram)")
                && ran.err.contains("allow more: --host-ram 262144"),
            "{}",
            ran.err
        );
        let ran = finish(host.agent(&["--check", "--host-ram=100M"]), TURN);
        assert_eq!(ran.code, Some(78), "{}", ran.out);
        assert!(
            ran.out.contains("allow more: --host-ram 262144"),
            "{}",
            ran.out
        );
    });
}
