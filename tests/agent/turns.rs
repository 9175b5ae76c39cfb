//! Turns that go well, and how they end.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::host::{Host, TURN, ended, names};
use crate::support::{Process, eventually, guest, isolated, require_programs};

pub fn signal(process: &Process, signal: Signal) {
    let pid = i32::try_from(process.0.id()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn a_machine_is_bootstrapped_builds_and_the_result_is_delivered() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add("linux-gcc", "");
        host.task(
            "one",
            "linux-gcc",
            "target: x86_64-linux-gnu\nx-unknown: kept\n",
        );
        let ran = host.run(&["--once"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(ran.out, "");
        assert!(
            ran.err
                .contains("info: libfoo/1.2.3 on linux-gcc (session one): success in "),
            "{}",
            ran.err
        );
        let result = host.result("one").unwrap();
        assert!(
            result.starts_with(": 1\nname: libfoo\nversion: 1.2.3\nstatus: success\n"),
            "{result}"
        );
        assert_eq!(
            host.subvolumes("linux-gcc"),
            ["linux-gcc-1", "linux-gcc-1.0", "linux-gcc-default"]
        );
        let manifest =
            fs::read_to_string(host.machine("linux-gcc").join("linux-gcc-default/manifest"))
                .unwrap();
        assert!(
            manifest.starts_with(": 1\n:\nid: linux-gcc-1.0\nname: linux-gcc\n"),
            "{manifest}"
        );
        assert!(manifest.ends_with(
            ":\nid: bogus\n:\nbbot-version: 0.17.0\nlibbbot-version: 0.17.0\n\
             libbpkg-version: 0.17.0\nlibbutl-version: 0.17.0\n"
        ));

        // Nothing left to do: nothing is said, and nothing left behind.
        let ran = host.run(&["--once"]);
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.as_str()),
            (Some(0), "", "")
        );
        assert_eq!(names(&host.path("tftp/build")), [""; 0]);
        assert_eq!(names(&host.path("tftp/bootstrap")), [""; 0]);
        assert_eq!(crate::support::run("nft list ruleset"), "");
    });
}

#[test]
fn two_agents_for_two_toolchains_share_a_bridge() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.toolchain("other");
        host.add("linux-gcc", "");
        let controllers = ["a", "b"].map(|name| {
            let dir = host.path(name);
            fs::create_dir_all(dir.join("tasks")).unwrap();
            let task = crate::support::host::task("linux-gcc", "");
            let task = task.replace("libfoo", &format!("lib-{name}"));
            fs::write(dir.join("tasks/t.manifest"), task).unwrap();
            dir
        });
        let _turns = guest::turns(2);
        let mut agents: Vec<Process> = ["default", "other"]
            .into_iter()
            .zip(&controllers)
            .map(|(toolchain, controller)| {
                let mut command = host.agent(&["--once", "--toolchain-name", toolchain]);
                command.arg(controller);
                host.start(command, &format!("{toolchain}.log"))
            })
            .collect();
        for (agent, log) in agents.iter_mut().zip(["default.log", "other.log"]) {
            let code = ended(agent, TURN * 2);
            assert_eq!(
                code,
                Some(0),
                "{}",
                fs::read_to_string(host.path(log)).unwrap()
            );
        }
        for (controller, name) in controllers.iter().zip(["a", "b"]) {
            let result = fs::read_to_string(controller.join("results/t.manifest")).unwrap();
            // Each guest got the task of its own agent.
            assert!(result.contains(&format!("name: lib-{name}\n")), "{result}");
            assert!(result.contains("status: success\n"), "{result}");
        }
        assert_eq!(
            host.subvolumes("linux-gcc"),
            [
                "linux-gcc-1",
                "linux-gcc-1.0",
                "linux-gcc-default",
                "linux-gcc-other"
            ]
        );
    });
}

/// An agent that has started a guest.
fn building(host: &Host) -> Process {
    let mut command = host.agent(&["--verbose", "3"]);
    command.arg(host.path("controller"));
    let agent = host.start(command, "log");
    eventually("guest started", || {
        fs::read_to_string(host.path("log"))
            .unwrap()
            .contains("start_machine")
    });
    agent
}

#[test]
fn sigterm_in_the_middle_of_a_build_cleans_up_within_five_seconds() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        host.task("one", "linux-gcc", "target-config: mode=stall\n");
        let _turn = guest::turn();
        let mut agent = building(&host);
        let start = Instant::now();
        signal(&agent, Signal::SIGTERM);
        assert_eq!(ended(&mut agent, Duration::from_secs(10)), Some(0));
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(
            host.subvolumes("linux-gcc"),
            ["linux-gcc-1", "linux-gcc-1.0", "linux-gcc-default"]
        );
        assert_eq!(names(&host.path("tftp/build")), [""; 0]);
        assert_eq!(crate::support::run("nft list ruleset"), "");

        // The task is not lost: the next agent gets it again.
        host.add_bootstrapped("other", "");
        fs::remove_dir_all(host.path("controller/results")).unwrap();
        let ran = host.run(&["--once", "--build-timeout", "3"]);
        assert!(host.result("one").is_some(), "{}", ran.err);
    });
}

#[test]
fn sighup_finishes_the_task_in_hand_and_asks_to_be_started_again() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        host.task("one", "linux-gcc", "");
        host.task("two", "linux-gcc", "");
        let _turn = guest::turn();
        let mut agent = building(&host);
        signal(&agent, Signal::SIGHUP);
        assert_eq!(ended(&mut agent, TURN), Some(3));
        let results = names(&host.path("controller/results"));
        assert_eq!(results.len(), 1, "{results:?}");
    });
}

/// What an agent with nothing to do must not do: start processes, write or
/// change anything below a directory. Requests to controllers are its purpose.
#[test]
fn an_idle_turn_spawns_nothing_and_writes_nothing() {
    isolated(|| {
        if !require_programs(&["strace"]) {
            return;
        }
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let server = crate::support::http::Server::answering("200 OK", ": 1\nsession:\n");
        let mut command = host.agent(&["--poll-interval", "1"]);
        command.arg(server.url("/?build-task"));
        let _agent = {
            let agent = host.start(command, "log");
            // The first time that it is idle is news, and written down.
            eventually("two turns", || server.connections() >= 2);
            agent
        };
        let trace = host.path("trace");
        let pid = _agent.0.id().to_string();
        let strace = Command::new("strace")
            .args(["-f", "-q", "-p", &pid, "-o"])
            .arg(&trace)
            .spawn()
            .unwrap();
        let strace = Process(strace);
        let before = server.connections();
        eventually("three more turns", || server.connections() >= before + 3);
        drop(strace);
        let text = fs::read_to_string(&trace).unwrap();
        let calls: Vec<&str> = text.lines().filter(|line| line.contains('(')).collect();
        assert!(
            calls.iter().any(|line| line.contains("readlink")),
            "no turn in the trace: {text}"
        );
        for call in &calls {
            for bad in [
                "clone",
                "fork",
                "execve",
                "mkdir",
                "rename",
                "unlink",
                "rmdir",
                "O_CREAT",
                "O_WRONLY",
                "O_RDWR",
                "fsync",
                "fdatasync",
                "ftruncate",
                "SNAP_CREATE",
                "SNAP_DESTROY",
                "SUBVOL_SETFLAGS",
                "BTRFS_IOC_SYNC",
            ] {
                // A signalfd, a socket and /dev/null are no files.
                assert!(!call.contains(bad), "{bad} in an idle turn: {call}");
            }
        }
    });
}
