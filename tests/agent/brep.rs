//! The whole agent, with real guests, and a controller that behaves as brep
//! does: keys, challenges, artifacts, checksums, and bad days.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::brep::{Brep, Setup};
use crate::support::host::{Host, TURN, ended, finish};
use crate::support::http::openssl;
use crate::support::{eventually, guest, isolated, require_programs, run};

fn task(mode: &str) -> String {
    format!(
        "name: libfoo\nversion: 1.2.3\nrepository-url: https://h/1/a\nrepository-type: pkg\n\
         machine: linux-gcc\ntarget: x86_64-linux-gnu\ntarget-config: mode={mode}\n"
    )
}

/// Makes a key pair; the controller gets the public half.
fn key(dir: &Path) -> (PathBuf, PathBuf) {
    openssl(dir, "genrsa -out agent.pem 2048");
    openssl(dir, "pkey -in agent.pem -pubout -out public.pem");
    (dir.join("agent.pem"), dir.join("public.pem"))
}

#[test]
fn an_authenticated_build_with_artifacts_arrives_in_spite_of_a_bad_gateway() {
    if !require_programs(&["openssl"]) {
        return;
    }
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let (private, public) = key(&host.path("state"));
        let brep = Brep::start(Setup {
            keys: vec![public],
            uploads: vec!["bindist".to_owned()],
            ..Setup::default()
        });
        let turn = |with_key: bool| {
            let mut command = host.agent(&["--once", "--toolchain-ver", "0.17.0"]);
            if with_key {
                command.arg("--auth-key").arg(&private);
            }
            command.arg(brep.url());
            finish(command, TURN)
        };

        // Nobody without a key is given anything.
        brep.queue(&task("artifacts"));
        let ran = turn(false);
        assert_eq!(ran.code, Some(69), "{}", ran.err);
        assert!(
            ran.err.contains("refused with 401 unauthorized"),
            "{}",
            ran.err
        );

        brep.state().result_moods = vec![502];
        let ran = {
            let _turn = guest::turn();
            turn(true)
        };
        assert!(
            ran.err.contains("server error 502 bad gateway"),
            "{}",
            ran.err
        );
        assert!(
            ran.err.contains("ignoring artifact other/archive/x"),
            "{}",
            ran.err
        );
        let build = brep.state().builds[0].clone();
        assert_eq!(
            build.uploads,
            [(
                "archive".to_owned(),
                "libfoo-1.2.3.tar.xz".to_owned(),
                b"package of libfoo\n".to_vec()
            )]
        );
        assert_eq!(build.result, None);

        // The next turn, of another process, delivers it, and has nothing to do.
        let ran = turn(true);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let build = brep.state().builds[0].clone();
        let result = build.result.unwrap();
        assert!(result.contains("status: success\n"), "{result}");
        assert!(result.contains("test worker: task "), "{result}");
        assert_eq!(build.agent_checksum.unwrap().len(), 64);
        assert_eq!(build.uploads.len(), 1);
        let state = brep.state();
        assert!(state.ignored.is_empty(), "{:?}", state.ignored);
        assert_eq!(state.refused.len(), 2, "{:?}", state.refused);
    });
}

#[test]
fn a_build_whose_agent_was_killed_is_given_back() {
    if !require_programs(&["openssl"]) {
        return;
    }
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let (private, public) = key(&host.path("state"));
        let brep = Brep::start(Setup {
            keys: vec![public],
            ..Setup::default()
        });
        let agent = || {
            let mut command = host.agent(&["--once", "--toolchain-ver", "0.17.0"]);
            command.arg("--auth-key").arg(&private).arg(brep.url());
            command
        };
        brep.queue(&task("stall"));
        let _turn = guest::turn();
        let mut process = host.start(agent(), "log");
        let journal = || {
            let mut dirs = fs::read_dir(host.path("state")).unwrap();
            let found =
                dirs.find_map(|dir| fs::read_to_string(dir.unwrap().path().join("journal")).ok());
            found.unwrap_or_default()
        };
        eventually("the machine is started", || journal().contains("started"));
        process.kill();
        assert_eq!(brep.state().builds[0].result, None);

        let ran = finish(agent(), TURN);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let state = brep.state();
        let result = state.builds[0].result.clone().unwrap();
        assert!(result.contains("status: interrupt\n"), "{result}");
        assert!(state.ignored.is_empty(), "{:?}", state.ignored);
    });
}

#[test]
fn a_build_that_is_stopped_is_given_back_before_the_agent_ends() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let brep = Brep::start(Setup::default());
        brep.queue(&task("stall"));
        let _turn = guest::turn();
        let mut command = host.agent(&["--toolchain-ver", "0.17.0", "--hold", "600"]);
        command.arg(brep.url());
        let mut process = host.start(command, "log");
        eventually("the task is given", || !brep.state().builds.is_empty());
        let building = || {
            let status = fs::read_to_string(host.path("run/default-1/status.json"));
            status.unwrap_or_default().contains("\"building\"")
        };
        eventually("the build has begun", building);
        let pid = i32::try_from(process.0.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        assert_eq!(ended(&mut process, TURN), Some(0));
        let log = fs::read_to_string(host.path("log")).unwrap();
        assert!(brep.state().builds[0].is_interrupted(), "{log}");
    });
}

#[test]
fn a_host_without_its_bridge_asks_for_no_work() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let brep = Brep::start(Setup::default());
        brep.queue(&task("normal"));
        run("ip link del br1");
        let turn = || {
            let mut command = host.agent(&["--once", "--toolchain-ver", "0.17.0"]);
            command.arg(brep.url());
            finish(command, TURN)
        };
        let ran = turn();
        assert_eq!(ran.code, Some(78), "{}", ran.err);
        assert!(ran.err.contains("no bridge br1"), "{}", ran.err);
        assert_eq!(brep.state().asked, 0);
        guest::bridge("br1");
        let _turn = guest::turn();
        let ran = turn();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(brep.state().asked, 1);
    });
}
