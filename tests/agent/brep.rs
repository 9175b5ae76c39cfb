//! The whole agent, with real guests, and a controller that behaves as brep
//! does: keys, challenges, artifacts, checksums, and bad days.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::brep::{Brep, Setup};
use crate::support::host::{Host, TURN, finish};
use crate::support::http::openssl;
use crate::support::{eventually, guest, isolated, require_programs};

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
