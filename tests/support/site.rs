//! A host with everything that an agent needs, small: a volume with a machine,
//! a bridge, a toolchain, a directory that plays controller, and a stand-in for
//! QEMU whose guests take milliseconds (tests/tools/instant-guest.rs).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::btrfs::{Volume, subvolume};
use super::host::{Ran, TURN, finish};
use super::{TempDir, guest, program, require, require_programs, run};

/// See the module. To be made inside [`super::isolated`].
#[derive(Debug)]
pub struct Site {
    volume: Volume,
    dir: TempDir,
}

impl Site {
    /// Sets it up, or skips the test.
    #[must_use]
    pub fn new() -> Option<Site> {
        let instant = std::env::current_exe().unwrap();
        let instant = instant
            .ancestors()
            .nth(2)
            .unwrap()
            .join("examples/instant-guest");
        let ready = require(instant.exists(), "instant-guest (cargo build --examples)")
            && require(Path::new("/dev/net/tun").exists(), "/dev/net/tun")
            && require_programs(&["ip", "nft", "bash"]);
        if !ready {
            return None;
        }
        let volume = Volume::new(512)?;
        guest::bridge("br1");
        let site = Site {
            volume,
            dir: TempDir::new(),
        };
        site.add_revision("linux", 0);

        let toolchain = site.path("tftp/toolchain/default");
        fs::create_dir_all(&toolchain).unwrap();
        fs::write(toolchain.join("worker"), "#!/bin/sh\n").unwrap();
        for dir in ["run", "state", "controller/tasks"] {
            fs::create_dir_all(site.path(dir)).unwrap();
        }
        // No unsafe code here, so a shell puts descriptors where std finds them.
        let qemu = site.path("qemu");
        fs::write(
            &qemu,
            format!(
                "#!/bin/bash\n[ \"$1\" != --version ] || exec echo QEMU emulator version 9.0\n\
                 for word; do case $word in\n\
                 tap,*fd=*) tap=${{word##*fd=}} ;;\n\
                 socket,id=monitor,fd=*) mon=${{word##*=}} ;;\n\
                 esac; done\nexec {} \"$@\" <&$mon >&$tap\n",
                instant.display()
            ),
        )
        .unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        Some(site)
    }

    /// Adds a revision of a machine, and makes it the current one.
    pub fn add_revision(&self, name: &str, number: u32) {
        let machine = self.machines().join(name);
        let id = format!("{name}-1.{number}");
        fs::create_dir_all(&machine).unwrap();
        let revision = subvolume(&machine.join(&id));
        let text = format!(
            ": 1\nid: {id}\nname: {name}\nsummary: Linux\ntype: kvm\nmac: 52:54:00:00:01:02\n"
        );
        fs::write(revision.join("manifest"), text).unwrap();
        fs::write(revision.join("disk.img"), vec![7; 1 << 20]).unwrap();
        let link = machine.join(format!("{name}-1"));
        let _ = fs::remove_file(&link);
        symlink(id, link).unwrap();
    }

    /// The volume with machines.
    #[must_use]
    pub fn machines(&self) -> PathBuf {
        self.volume.path().join("v")
    }

    /// Something of the site.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `<machines>/v/linux`.
    #[must_use]
    pub fn machine(&self) -> PathBuf {
        self.machines().join("linux")
    }

    /// Drops a task into the controller.
    pub fn task(&self, name: &str) {
        self.task_for("controller", name, "");
    }

    /// Drops a task into one of several controllers; `extra` are more lines of its
    /// manifest.
    pub fn task_for(&self, controller: &str, name: &str, extra: &str) {
        let tasks = self.path(controller).join("tasks");
        fs::create_dir_all(&tasks).unwrap();
        let hidden = tasks.join(format!(".{name}"));
        fs::write(
            &hidden,
            format!(
                ": 1\nname: {name}\nversion: 1.2.3\nrepository-url: https://example.org/1\n\
                 repository-type: pkg\nmachine: linux\ntarget: x86_64-linux-gnu\n{extra}"
            ),
        )
        .unwrap();
        fs::rename(hidden, tasks.join(format!("{name}.manifest"))).unwrap();
    }

    /// The result of a task, if it is there.
    #[must_use]
    pub fn result(&self, name: &str) -> Option<String> {
        fs::read_to_string(
            self.path("controller/results")
                .join(format!("{name}.manifest")),
        )
        .ok()
    }

    /// The arguments of an agent that makes one turn.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let pairs = [
            ("--machines", self.volume.path().display().to_string()),
            ("--tftp", path("tftp")),
            ("--run-dir", path("run")),
            ("--state", path("state")),
            ("--qemu", path("qemu")),
            ("--accel", "tcg".to_owned()),
            ("--bridge", "br1".to_owned()),
            ("--ram", "131072".to_owned()),
            ("--hold", "0".to_owned()),
            // Ten times what anything takes, so that what is lost is missed.
            ("--bootstrap-startup", "5".to_owned()),
            ("--bootstrap-timeout", "5".to_owned()),
            ("--bootstrap-shutdown", "5".to_owned()),
            ("--build-startup", "5".to_owned()),
            ("--build-timeout", "5".to_owned()),
            ("--request-timeout", "5".to_owned()),
        ];
        let mut arguments = vec!["--once".to_owned()];
        for (option, value) in pairs {
            arguments.extend([option.to_owned(), value]);
        }
        arguments.push(path("controller"));
        arguments
    }

    /// The arguments of one of several agents, for these controllers of the site.
    #[must_use]
    pub fn arguments_of(&self, instance: u16, controllers: &[(u32, &str)]) -> Vec<String> {
        let mut arguments = self.arguments();
        arguments.pop();
        arguments.extend(["--instance".to_owned(), instance.to_string()]);
        let url =
            |&(priority, name): &(u32, &str)| format!("{priority}={}", self.path(name).display());
        arguments.extend(controllers.iter().map(url));
        arguments
    }

    /// Whether a guest works that was told to take time for it.
    #[must_use]
    pub fn has_busy_guest(&self) -> bool {
        let scratch = fs::read_dir(self.machine()).unwrap();
        scratch
            .flatten()
            .any(|entry| entry.path().join("pausing").exists())
    }

    /// The program.
    #[must_use]
    pub fn agent() -> PathBuf {
        std::env::var_os("BBOT_AGENT_TEST_BINARY")
            .map_or_else(|| env!("CARGO_BIN_EXE_bbot-agent").into(), PathBuf::from)
    }

    /// Runs the agent to its end. `path` has the programs of the host, unless they are the
    /// usual ones.
    #[track_caller]
    pub fn run(&self, path: Option<&str>, words: &[&str]) -> Ran {
        let mut command = Command::new(Site::agent());
        command.args(self.arguments()).args(words);
        command.envs(path.map(|path| ("PATH", path)));
        finish(command, TURN)
    }

    /// A turn and `--check` both name `cause` and `remedy`, and no guest starts.
    #[track_caller]
    pub fn cannot_bootstrap(&self, path: Option<&str>, cause: &str, remedy: &str) {
        let turn = self.run(path, &[]).err;
        let check = self.run(path, &["--check"]).out;
        for said in [&turn, &check] {
            assert!(said.contains(cause) && said.contains(remedy), "{said}");
        }
        assert!(!self.machine().join("linux-default").exists());
    }

    /// All that an agent could leave behind: files, interfaces, rules, mounts
    /// and processes, a line each.
    #[must_use]
    pub fn inventory(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for root in [self.volume.path(), self.dir.path()] {
            files(root, root, &mut all);
        }
        let links = run("ip -o link");
        all.extend(links.lines().filter_map(|line| {
            let name = line.split(' ').nth(1)?.split(['@', ':']).next()?;
            Some(format!("interface {name}"))
        }));
        if program("nft").is_some() {
            let rules = run("nft list ruleset");
            let lines = rules.lines().filter(|line| line.contains("bbot-agent"));
            all.extend(lines.map(|line| format!("rule {line}")));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        all.extend(mounts.lines().map(|line| format!("mount {line}")));
        all.extend(self.processes());
        all
    }

    /// Processes that have something of the site in their command line.
    fn processes(&self) -> Vec<String> {
        let mine = self.dir.path().as_os_str().to_str().unwrap();
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                line.contains(mine).then(|| format!("process {line}"))
            })
            .collect()
    }
}

fn files(root: &Path, dir: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display();
        all.insert(format!("file {name}"));
        if path.is_dir() && !path.is_symlink() {
            files(root, &path, all);
        }
    }
}
