//! Finished results, and tasks that were taken on, while the disk or the key of
//! the host refuses: none is lost, and no further work is drawn meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bbot_agent::json::Value;

use crate::support::brep::{Brep, Setup};
use crate::support::http::openssl;
use crate::support::site::Site;
use crate::support::{
    Process, await_idle, eventually, isolated, program, require_programs, run, status,
};

/// An agent that makes turns until it is killed. The controller is the site's
/// own, or another.
fn start(site: &Site, tracer: &[&str], more: &[&str], controller: Option<&str>) -> Process {
    let mut arguments = site.arguments();
    arguments.retain(|argument| argument != "--once");
    if let Some(controller) = controller {
        *arguments.last_mut().unwrap() = controller.to_owned();
    }
    let mut command = Command::new("env");
    command
        .args(tracer)
        .arg(Site::agent())
        .args(["--poll-interval", "1", "--toolchain-ver", "0.17.0"])
        .args(more)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(fs::File::create(site.path("agent.log")).unwrap());
    Process(command.spawn().unwrap())
}

fn said(site: &Site) -> String {
    fs::read_to_string(site.path("agent.log")).unwrap()
}

/// Where the agent stores results.
fn store(site: &Site) -> PathBuf {
    let dirs = fs::read_dir(site.path("state")).unwrap();
    dirs.map(|dir| dir.unwrap().path().join("results"))
        .find(|dir| dir.is_dir())
        .unwrap()
}

/// As a file system becomes after errors.
fn read_only(dir: &Path) {
    let dir = dir.display();
    run(&format!("mount --bind {dir} {dir}"));
    run(&format!("mount -o remount,bind,ro {dir}"));
}

const TASK: &str = "name: libfoo\nversion: 1.2.3\nrepository-url: https://h/1/a\n\
                    repository-type: pkg\nmachine: linux\ntarget: x86_64-linux-gnu\n";

#[test]
fn a_result_that_cannot_be_stored_is_sent_or_kept_until_it_can_be() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        if !require_programs(&["mount", "umount"]) {
            return;
        }
        let run_dir = site.path("run/default-1");
        let _agent = start(&site, &[], &["--breaker", "0"], None);
        await_idle(&run_dir, "no-task");

        read_only(&store(&site));
        site.task("one");
        eventually("the result is sent", || site.result("one").is_some());
        eventually("it is said", || {
            said(&site).contains("Read-only file system")
        });

        let results = site.path("controller/results");
        read_only(&results);
        site.task("two");
        await_idle(&run_dir, "results-waiting");
        site.task("three");
        let since = || {
            let status = status(&run_dir)?;
            status.get("since_monotonic").and_then(Value::as_u64)
        };
        let before = since().unwrap();
        eventually("two turns pass", || since() >= Some(before + 2));
        assert!(site.path("controller/tasks/three.manifest").exists());

        run(&format!("umount {}", results.display()));
        for name in ["two", "three"] {
            eventually("the result is sent", || site.result(name).is_some());
            assert!(site.result(name).unwrap().contains("status: success\n"));
        }
    });
}

#[test]
fn a_task_that_cannot_be_noted_is_given_back_and_after_some_none_is_asked_for() {
    if !require_programs(&["strace"]) {
        return;
    }
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let brep = Brep::start(Setup::default());
        for _ in 0..4 {
            brep.queue(TASK);
        }
        // Of all the files of the agent, only the journal is synced like that.
        let strace = program("strace").unwrap();
        let trace = site.path("trace");
        let _agent = start(
            &site,
            &[
                strace.to_str().unwrap(),
                // The agent is the process that is killed in the end, and not strace.
                "-D",
                "-f",
                "-o",
                trace.to_str().unwrap(),
                "-e",
                "inject=fdatasync:error=EIO",
            ],
            &["--breaker", "2"],
            Some(&brep.url()),
        );
        await_idle(&site.path("run/default-1"), "breaker-open");
        let state = brep.state();
        assert_eq!(state.builds.len(), 2, "{}", said(&site));
        for build in &state.builds {
            assert!(
                build.is_interrupted(),
                "{:?}: {}",
                build.result,
                said(&site)
            );
        }
    });
}

#[test]
fn a_result_that_cannot_be_signed_waits_for_the_key() {
    if !require_programs(&["openssl"]) {
        return;
    }
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let dir = site.path("keys");
        fs::create_dir(&dir).unwrap();
        openssl(&dir, "genrsa -out agent.pem 2048");
        openssl(&dir, "pkey -in agent.pem -pubout -out public.pem");
        let brep = Brep::start(Setup {
            keys: vec![dir.join("public.pem")],
            ..Setup::default()
        });
        let wrapper = dir.join("openssl");
        let broken = dir.join("broken");
        let text = format!(
            "#!/bin/sh\n[ -e {} ] && exit 1\nexec openssl \"$@\"\n",
            broken.display()
        );
        fs::write(&wrapper, text).unwrap();
        run(&format!("chmod 755 {}", wrapper.display()));

        let key = dir.join("agent.pem");
        let options = [
            "--auth-key",
            key.to_str().unwrap(),
            "--openssl",
            wrapper.to_str().unwrap(),
        ];
        let _agent = start(&site, &[], &options, Some(&brep.url()));
        let run_dir = site.path("run/default-1");
        await_idle(&run_dir, "no-task");
        fs::write(&broken, "").unwrap();
        brep.queue(TASK);
        await_idle(&run_dir, "results-waiting");
        assert!(brep.state().builds[0].result.is_none());
        fs::remove_file(&broken).unwrap();
        eventually("the result is sent", || {
            let result = brep.state().builds[0].result.clone();
            result.is_some_and(|result| result.contains("status: success\n"))
        });
    });
}
