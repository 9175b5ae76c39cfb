//! Every exit status that the manual lists, and the lock behind one of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bbot_agent::lock::{self, Attempt, Lock};
use nix::sys::signal::Signal;

use super::super::support::http::closed_port;
use super::super::support::{Process, eventually, isolated, require_programs, run};
use super::{Host, TASK, said, signal};

#[test]
fn an_idle_turn_exits_0_and_says_nothing() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let output = host.run(&["--once", &host.spool()]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(said(&output), "");
        assert!(output.stdout.is_empty());
    });
}

#[test]
fn an_explained_failure_exits_1() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let task = host.path("task.manifest");
        fs::write(&task, "nonsense\n").unwrap();
        let option = format!("--fake-request={}", task.display());
        let output = host.run(&["--once", "--dump-result", &option]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("invalid task manifest"));
    });
}

#[test]
fn signals_end_an_idle_agent_with_their_status() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        for (number, status) in [
            (Signal::SIGTERM, 0),
            (Signal::SIGINT, 0),
            (Signal::SIGUSR1, 0),
            (Signal::SIGHUP, 3),
        ] {
            let _ = fs::remove_file(host.path("run/default-1/status.json"));
            let child = host.agent(&[&host.spool()]).spawn().unwrap();
            let mut child = Process(child);
            host.await_idle("no-task");
            signal(&child.0, number);
            assert_eq!(child.0.wait().unwrap().code(), Some(status), "{number}");
            let phase = host.status().unwrap();
            let phase = phase.get("phase").unwrap().as_str().unwrap().to_owned();
            assert_eq!(phase, "stopped", "{number}");
        }
    });
}

#[test]
fn a_fake_turn_leaves_the_files_of_a_living_agent_alone() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let Attempt::Ours(lock) = Lock::take(&host.path("run/default-1")).unwrap() else {
            panic!("nobody else has it");
        };
        let upload = host.path("tftp/build/default-1/put/manifest");
        fs::create_dir_all(upload.parent().unwrap()).unwrap();
        fs::write(&upload, "half a result\n").unwrap();
        let header = host.path("header.manifest");
        fs::write(&header, ": 1\nid: linux-1.0\nname: linux\nsummary: Linux\n").unwrap();
        let task = host.path("task.manifest");
        fs::write(&task, TASK).unwrap();
        let options = [
            "--once".to_owned(),
            format!("--fake-machine={}", header.display()),
            format!("--fake-request={}", task.display()),
            "--dump-result".to_owned(),
        ];
        let output = host.run(&options.each_ref().map(String::as_str));
        assert_eq!(output.status.code(), Some(75), "{}", said(&output));
        assert_eq!(fs::read_to_string(&upload).unwrap(), "half a result\n");

        // Alone, it answers what was uploaded by whoever plays the guest.
        drop(lock);
        let child = host.agent(&options.each_ref().map(String::as_str));
        let mut child = Process({ child }.stdout(Stdio::null()).spawn().unwrap());
        let offered = host.path("tftp/build/default-1/get/manifest");
        eventually("the task is there", || offered.exists());
        fs::write(
            &upload,
            ": 1\nname: libfoo\nversion: 1.2.3\nstatus: success\n",
        )
        .unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn no_controller_that_answers_exits_69() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let url = format!("http://127.0.0.1:{}/", closed_port());
        let output = host.run(&["--once", &url]);
        assert_eq!(output.status.code(), Some(69), "{}", said(&output));
        assert!(said(&output).contains("connection refused"));
        // One of two is enough.
        let output = host.run(&["--once", &url, &host.spool()]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    });
}

#[test]
fn a_run_directory_that_cannot_be_made_exits_71() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let output = host.run(&["--once", "--run-dir=/dev/null/x", &host.spool()]);
        assert_eq!(output.status.code(), Some(71), "{}", said(&output));
        assert!(said(&output).contains("unable to make directory /dev/null/x"));
    });
}

#[test]
fn a_busy_lock_exits_0_silently_or_75() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let dir = lock::directory(&host.path("run"), "default", 1);
        let Attempt::Ours(lock) = Lock::take(&dir).unwrap() else {
            panic!("the lock is free");
        };
        let output = host.run(&["--once", &host.spool()]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(said(&output), "");
        for more in [&["--once", "--no-wait"][..], &[]] {
            let output = host.agent(more).arg(host.spool()).output().unwrap();
            assert_eq!(output.status.code(), Some(75), "{}", said(&output));
            let pid = format!("(pid {})", std::process::id());
            assert!(said(&output).contains(&pid), "{}", said(&output));
        }
        let output = host.run(&["--once", "--no-wait", "--instance=2", &host.spool()]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        drop(lock);
        let output = host.run(&["--once", "--no-wait", &host.spool()]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    });
}

#[test]
fn a_missing_permission_exits_77() {
    isolated(|| {
        if !require_programs(&["setpriv"]) {
            return;
        }
        let Some(host) = Host::new() else { return };
        // Somewhere everybody may read, whoever owns the build.
        let agent = Path::new("/tmp").join(format!("bbot-agent-{}", std::process::id()));
        fs::copy(env!("CARGO_BIN_EXE_bbot-agent"), &agent).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&agent)
            .args(["--once", "--run-dir=/run/bbot-agent-of-root"])
            .arg(host.spool())
            .stdin(Stdio::null())
            .output();
        let _ = fs::remove_file(&agent);
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(77), "{}", said(&output));
        assert!(said(&output).contains("run as root"), "{}", said(&output));
    });
}

#[test]
fn a_host_that_is_not_set_up_exits_78() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let key = host.path("key.pem");
        fs::write(&key, "not a key\n").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let option = format!("--auth-key={}", key.display());
        let output = host.run(&["--once", &option, &host.spool()]);
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));

        let output = host.run(&["--check", "--bridge=br7"]);
        assert_eq!(output.status.code(), Some(78));

        // Whatever is missing: the status is the same, and the whole is examined next.
        if Path::new("/build").exists() {
            // The default directories, if this machine has them.
            run("mount -t tmpfs none /build");
        }
        for (missing, more) in [
            ("--machines=", "--once"),
            ("--tftp=", "--once"),
            ("--accel=", "--qemu=/nowhere/qemu"),
            ("--accel=", "--bridge=br7"),
        ] {
            let options = host.options().into_iter();
            let output = Command::new(env!("CARGO_BIN_EXE_bbot-agent"))
                .args(options.filter(|option| !option.starts_with(missing)))
                .args(["--once", more, &host.spool()])
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let text = said(&output);
            assert_eq!(output.status.code(), Some(78), "{missing} {more}: {text}");
            assert_eq!(text.matches("error: ").count(), 1, "{text}");
            assert!(text.contains("bbot-agent --check"), "{text}");
        }
    });
}

#[test]
fn garbage_is_shown_with_its_reason_before_it_is_collected() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let tree = host.path("tftp/build/default-1/put");
        fs::create_dir_all(&tree).unwrap();
        let output = host.run(&["--gc", "--dry-run"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let tree = tree.parent().unwrap();
        let line = format!("{}: tftp directory of a dead agent\n", tree.display());
        assert_eq!(shown, line);
        assert!(tree.exists());
        let output = host.run(&["--gc"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(shown, format!("removed {line}"));
        assert!(!tree.exists());
        let output = host.run(&["--gc"]);
        assert_eq!((said(&output).as_str(), output.stdout.len()), ("", 0));
    });
}
