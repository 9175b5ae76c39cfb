//! The program as operators meet it: exit statuses, cron, systemd, a host with
//! next to nothing on it.

mod addresses;
mod airgap;
mod console;
mod cron;
mod evidence;
mod exit;
mod first_steps;
mod follow;
mod idle;
mod needrestart;
mod notify;
mod qemu;
mod readme;
mod recipes;
mod surroundings;
mod systemd;
mod systemd_root;
mod trial;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bbot_agent::json::Value;
use bbot_agent::manifest::{
    BootstrapManifest, BootstrappedMachine, MachineManifest, Style, ToolchainManifest,
};

use super::support::btrfs::Volume;
use super::support::{self, TempDir, netns, require_programs, run};

const TASK: &str = ": 1\nname: libfoo\nversion: 1.2.3\nrepository-url: https://h/1/a\n\
                    repository-type: pkg\nmachine: linux\n";

/// A host with one machine, bootstrapped already, and a directory controller.
struct Host {
    volume: Volume,
    dir: TempDir,
}

impl Host {
    /// To be called inside `isolated`.
    fn new() -> Option<Host> {
        if !require_programs(&["btrfs", "ip"]) {
            return None;
        }
        let host = Host {
            volume: Volume::new(256)?,
            dir: TempDir::new(),
        };
        netns::bridge("br1");
        for dir in ["tftp/toolchains/default", "spool/tasks", "spool/results"] {
            fs::create_dir_all(host.dir.path().join(dir)).unwrap();
        }
        let dir = host.volume.path().join("default/linux");
        fs::create_dir_all(&dir).unwrap();
        let text = ": 1\nid: linux-1.0\nname: linux\nsummary: Linux\ntype: kvm\n\
                    mac: 52:54:00:12:34:56\n";
        let machine = MachineManifest::parse(text.as_bytes(), "test").unwrap();
        let bootstrapped = BootstrappedMachine {
            machine,
            toolchain: ToolchainManifest::new("bogus"),
            bootstrap: BootstrapManifest::new([("bbot", "0.17.0")]),
        };
        let bootstrapped = bootstrapped.to_text(Style::TODAY).unwrap();
        for (name, text) in [("linux-1.0", text), ("linux-default", &bootstrapped)] {
            let path = dir.join(name);
            run(&format!("btrfs subvolume create {}", path.display()));
            fs::write(path.join("manifest"), text).unwrap();
            fs::write(path.join("disk.img"), "disk").unwrap();
        }
        symlink("linux-1.0", dir.join("linux-1")).unwrap();
        Some(host)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spool(&self) -> String {
        self.path("spool").display().to_string()
    }

    /// The options that make the agent use this host and nothing else.
    fn options(&self) -> Vec<String> {
        let named = |name: &str, path: &Path| format!("--{name}={}", path.display());
        vec![
            named("machines", self.volume.path()),
            named("tftp", &self.path("tftp")),
            named("run-dir", &self.path("run")),
            named("state", &self.path("state")),
            "--min-free=1M".to_owned(),
            "--agent-name=a".to_owned(),
            "--accel=tcg".to_owned(),
        ]
    }

    /// A QEMU that is a shell script. Returns the option that names it.
    fn qemu(&self, script: &str) -> String {
        let path = self.path("qemu");
        let version = "[ \"$1\" != --version ] || exec echo QEMU emulator version 9.0";
        fs::write(&path, format!("#!/bin/bash\n{version}\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        format!("--qemu={}", path.display())
    }

    fn agent(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bbot-agent"));
        command
            .args(self.options())
            .args(more)
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.agent(more).output().unwrap()
    }

    fn status(&self) -> Option<Value> {
        support::status(&self.path("run/default-1"))
    }

    /// Waits until the agent is idle, for this reason.
    #[track_caller]
    fn await_idle(&self, reason: &str) {
        support::await_idle(&self.path("run/default-1"), reason);
    }

    /// Drops a task; the result appears where the second path says.
    fn drop_task(&self, name: &str) -> PathBuf {
        let task = format!("spool/tasks/{name}.manifest");
        fs::write(self.path(&task), TASK).unwrap();
        self.path(&format!("spool/results/{name}.manifest"))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}
