//! A QEMU that does not do what the agent expects of it, played by a script.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::super::support::host::names;
use super::super::support::{Process, eventually, isolated, require, run};
use super::{Host, said, signal};

/// A host whose QEMU is a script.
pub(super) struct Stage {
    pub(super) host: Host,
    /// The number of seconds that the script's processes sleep, and no others.
    length: String,
}

impl Stage {
    pub(super) fn new(test: u32, script: &str) -> Option<Stage> {
        let host = Host::new()?;
        let length = format!("{}.{}", 86400 + test, std::process::id());
        let run = host.path("run/default-1");
        host.qemu(&format!("length={length} run={}\n{script}", run.display()));
        Some(Stage { host, length })
    }

    pub(super) fn agent(&self) -> Command {
        let option = format!("--qemu={}", self.host.path("qemu").display());
        let words = ["--once", "--build-retries=0", &option, &self.host.spool()];
        let mut command = self.host.agent(&words);
        command
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self) -> Process {
        Process(self.agent().spawn().unwrap())
    }

    /// The number of the script's processes that sleep.
    fn sleepers(&self) -> usize {
        let lines = fs::read_dir("/proc").unwrap().map(|entry| {
            let line = entry.unwrap().path().join("cmdline");
            fs::read_to_string(line).unwrap_or_default()
        });
        lines
            .filter(|line| line.starts_with("sleep\0") && line.contains(&self.length))
            .count()
    }

    /// Removes the bootstrapped copy of the machine.
    pub(super) fn remove_copy(&self) {
        let copy = self.host.volume.path().join("default/linux/linux-default");
        run(&format!("btrfs subvolume delete {}", copy.display()));
    }

    fn subvolumes(&self) -> Vec<String> {
        names(&self.host.volume.path().join("default/linux"))
    }
}

#[test]
fn a_signal_ends_the_start_of_a_qemu_that_does_not_open_its_monitor() {
    isolated(|| {
        let Some(stage) = Stage::new(1, "exec sleep $length") else {
            return;
        };
        let before = stage.subvolumes();
        let result = stage.host.drop_task("one");
        let mut process = stage.start();
        eventually("qemu runs", || stage.sleepers() == 1);
        let begin = Instant::now();
        signal(&process.0, Signal::SIGTERM);
        let code = process.0.wait().unwrap().code();
        let time = begin.elapsed();
        assert_eq!(code, Some(0));
        assert!(time < Duration::from_secs(5), "{time:?}");
        assert_eq!(stage.sleepers(), 0);
        assert_eq!(stage.subvolumes(), before);
        // The controller has its task again.
        assert!(stage.host.path("spool/tasks/one.manifest").exists());
        assert!(!result.exists());
    });
}

#[test]
fn a_signal_ends_the_probe_of_an_accelerator() {
    isolated(|| {
        if !require(Path::new("/dev/kvm").exists(), "/dev/kvm") {
            return;
        }
        let Some(stage) = Stage::new(5, "exec sleep $length") else {
            return;
        };
        stage.host.drop_task("one");
        let mut command = stage.agent();
        let mut process = Process(command.arg("--accel=kvm").spawn().unwrap());
        eventually("qemu runs", || stage.sleepers() == 1);
        let begin = Instant::now();
        signal(&process.0, Signal::SIGTERM);
        let code = process.0.wait().unwrap().code();
        let time = begin.elapsed();
        assert_eq!(code, Some(0));
        assert!(time < Duration::from_secs(5), "{time:?}");
        assert_eq!(stage.sleepers(), 0);
    });
}

#[test]
fn a_qemu_that_goes_to_the_background_ends_with_all_that_it_started() {
    isolated(|| {
        // As `-daemonize` does, with a helper that closes its descriptors.
        let script = "setsid sleep $length &\n\
                      (for fd in {0..63}; do eval \"exec $fd>&-\"; done; exec sleep $length) &\n\
                      exit 0";
        let Some(stage) = Stage::new(2, script) else {
            return;
        };
        stage.host.drop_task("one");
        let output = stage.agent().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let text = "qemu ended at once, exit status: 0";
        assert!(said(&output).contains(text), "{}", said(&output));
        assert_eq!(stage.sleepers(), 0);
    });
}

#[test]
fn a_start_that_failed_leaves_no_files_of_a_dead_agent() {
    isolated(|| {
        // QEMU's user owns the directory of the socket for VNC.
        let script = "mkdir -p $run/vm/a/b && touch $run/vm/a/b/c && exit 1";
        let Some(stage) = Stage::new(4, script) else {
            return;
        };
        stage.host.drop_task("one");
        let output = stage.agent().output().unwrap();
        assert!(
            said(&output).contains("qemu ended at once"),
            "{}",
            said(&output)
        );
        let left = names(&stage.host.path("run/default-1"));
        for name in ["qmp", "vm"] {
            assert!(!left.iter().any(|file| file == name), "{left:?}");
        }
        // The same if QEMU cannot even be executed.
        fs::write(stage.host.path("qemu"), "no program").unwrap();
        let output = stage.agent().output().unwrap();
        let text = "unable to run ";
        assert!(said(&output).contains(text), "{}", said(&output));
        let output = stage.agent().output().unwrap();
        assert!(!said(&output).contains("dead agent"), "{}", said(&output));
    });
}

#[test]
fn all_that_qemu_started_ends_with_a_killed_agent() {
    isolated(|| {
        let script = "setsid sleep $length &\nsleep $length";
        let Some(stage) = Stage::new(3, script) else {
            return;
        };
        stage.host.drop_task("one");
        let mut process = stage.start();
        eventually("qemu has helpers", || stage.sleepers() == 2);
        process.kill();
        eventually("all of it ended", || stage.sleepers() == 0);
    });
}

#[test]
fn a_qemu_that_is_too_old_is_refused() {
    isolated(|| {
        let Some(stage) = Stage::new(5, "exit 1") else {
            return;
        };
        let version = "QEMU emulator version 5.2.0 (Debian 1:5.2+dfsg-11)";
        let script = format!("#!/bin/sh\necho '{version}'\n");
        let qemu = stage.host.path("qemu");
        fs::write(&qemu, script).unwrap();

        // With a machine that is bootstrapped, a task shows the fault, and is given back.
        let result = stage.host.drop_task("one");
        let output = stage.agent().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(stage.host.path("spool/tasks/one.manifest").exists());
        assert!(!result.exists());

        stage.remove_copy();
        let output = stage.agent().output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(78), "{text}");
        let error = format!(
            "error: QEMU 5.2.0 (Debian 1:5.2+dfsg-11) is too old ({}): the agent needs 6.0 or \
             later\n",
            qemu.display()
        );
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
        assert!(text.starts_with(&error), "{text}");
        assert!(text.contains("bbot-agent --check"), "{text}");
    });
}

#[test]
fn a_bootstrap_that_fails_is_a_failure_of_the_turn() {
    isolated(|| {
        let Some(stage) = Stage::new(6, "echo 'qemu: odd' >&2; exit 1") else {
            return;
        };
        stage.remove_copy();
        let output = stage.agent().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("qemu: odd"), "{}", said(&output));
    });
}
