//! A host for a whole agent: a volume with a machine on btrfs, a bridge, a
//! toolchain, a directory that plays controller; and the agent's own program.
//!
//! Everything is under `/mnt`, on a file system in memory that only this test's
//! thread and its children see. To be used inside [`super::isolated`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::btrfs::Volume;
use super::{Process, guest, require, run, skip};

/// Where everything is.
const ROOT: &str = "/mnt";

/// The machine's name.
pub const MACHINE: &str = "linux-gcc";

/// The host.
#[derive(Debug)]
pub struct World {
    _volume: Volume,
}

impl World {
    /// Makes one with a machine [`MACHINE`] that plays `settings`, or skips the
    /// test.
    #[must_use]
    pub fn new(settings: &str) -> Option<World> {
        if let Err(why) = guest::image() {
            skip(why);
            return None;
        }
        if !require(Path::new("/dev/net/tun").exists(), "/dev/net/tun") {
            return None;
        }
        let volume = Volume::new(512)?;
        run(&format!("mount -t tmpfs -o mode=755 none {ROOT}"));
        let world = World { _volume: volume };
        for directory in [
            "machines/volume",
            "tftp/toolchain/default",
            "controller/tasks",
        ] {
            fs::create_dir_all(world.path(directory)).unwrap();
        }
        let at = world.path("machines/volume");
        run(&format!(
            "mount --bind {} {}",
            world._volume.path().display(),
            at.display()
        ));
        guest::bridge("br1");
        world.add_machine(MACHINE, settings);
        Some(world)
    }

    /// A path below the root of everything.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        Path::new(ROOT).join(relative)
    }

    /// The directory of a machine.
    #[must_use]
    pub fn machine(&self, name: &str) -> PathBuf {
        self.path("machines/volume").join(name)
    }

    /// Adds a machine, as an operator would.
    pub fn add_machine(&self, name: &str, settings: &str) {
        let directory = self.machine(name);
        let revision = directory.join(format!("{name}-1.0"));
        fs::create_dir(&directory).unwrap();
        run(&format!("btrfs -q subvolume create {}", revision.display()));
        guest::install(&revision, settings);
        let manifest =
            format!(": 1\nid: {name}-1.0\nname: {name}\nsummary: Test guest\ntype: kvm\n");
        fs::write(revision.join("manifest"), manifest).unwrap();
        std::os::unix::fs::symlink(format!("{name}-1.0"), directory.join(format!("{name}-1")))
            .unwrap();
    }

    /// Drops a task for the machine into the controller's directory; `more` is
    /// further lines of its manifest.
    pub fn task(&self, name: &str, more: &str) {
        let text = format!(
            ": 1\nname: {name}\nversion: 1.0.0\nrepository-url: https://example.org/1\n\
             repository-type: pkg\nmachine: {MACHINE}\ntarget: x86_64-linux-gnu\n{more}"
        );
        let tasks = self.path("controller/tasks");
        // As operators do: whole, by rename.
        let hidden = tasks.join(format!(".{name}"));
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, tasks.join(format!("{name}.manifest"))).unwrap();
    }

    /// The result of a task, if there is one.
    #[must_use]
    pub fn result(&self, name: &str) -> Option<String> {
        let file = format!("controller/results/{name}.manifest");
        fs::read_to_string(self.path(&file)).ok()
    }

    /// The agent, with options for this host; a test adds its own.
    #[must_use]
    pub fn agent(&self) -> Command {
        // The release binary, for instance.
        let binary = std::env::var_os("BBOT_AGENT");
        let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_bbot-agent").into());
        let mut agent = Command::new(binary);
        agent
            .args(["--machines", "/mnt/machines", "--tftp", "/mnt/tftp"])
            .args(["--state", "/mnt/state", "--run-dir", "/mnt/run"])
            .args(["--bridge", "br1", "--accel", "tcg", "--ram", "131072"])
            // Emulated guests, on a machine that has other things to do.
            .args(["--bootstrap-startup", "300", "--build-startup", "300"])
            .args(["--hold", "0", "--verbose", "2"])
            .stdin(Stdio::null());
        agent
    }

    /// Runs one turn of the agent to its end, with more options, on the
    /// controller's directory.
    #[track_caller]
    pub fn turn(&self, options: &[&str]) -> Turn {
        let begun = Instant::now();
        let output = self
            .agent()
            .arg("--once")
            .args(options)
            .arg("/mnt/controller")
            .output()
            .unwrap();
        Turn {
            output,
            took: begun.elapsed(),
        }
    }

    /// Starts an agent that goes on until it is stopped. What it says goes to
    /// `said` below the root.
    #[must_use]
    pub fn start(&self, options: &[&str]) -> Process {
        let said = fs::File::create(self.path("said")).unwrap();
        let mut agent = self.agent();
        agent.args(options).arg("/mnt/controller").stderr(said);
        Process(agent.spawn().unwrap())
    }

    /// The port of the only TFTP server that there is, once there is one.
    #[must_use]
    pub fn server_port(&self) -> Option<u16> {
        // proc(5): an IPv4 address in the machine's order, a port.
        let address = u32::from_ne_bytes(guest::BRIDGE.0);
        let local = format!("{address:08X}:");
        let sockets = fs::read_to_string("/proc/thread-self/net/udp").unwrap();
        sockets
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1)?.strip_prefix(&local))
            .find_map(|port| u16::from_str_radix(port, 16).ok())
    }

    /// What could be left behind: directories of the machine, interfaces, rules,
    /// sockets and temporary files, mounts.
    #[must_use]
    pub fn inventory(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for entry in fs::read_dir(self.machine(MACHINE)).unwrap() {
            all.insert(entry.unwrap().path().display().to_string());
        }
        for line in run("ip -o link").lines() {
            all.extend(line.split(": ").nth(1).map(|name| format!("link {name}")));
        }
        if super::program("nft").is_some() {
            all.extend(run("nft list tables").lines().map(str::to_owned));
        }
        for directory in ["tftp/build", "tftp/bootstrap", "run"] {
            collect(&self.path(directory), &mut all);
        }
        all
    }
}

/// Files, not directories: the agent may keep those. Nor what is meant to stay:
/// locks and the status.
fn collect(directory: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stays = name.ends_with("lock") || name.contains("status");
        if path.is_dir() {
            collect(&path, all);
        } else if !stays {
            all.insert(path.display().to_string());
        }
    }
}

/// What came of a turn.
#[derive(Debug)]
pub struct Turn {
    /// Status and what was printed.
    pub output: Output,
    /// How long it took.
    pub took: Duration,
}

impl Turn {
    /// What the agent said.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Asserts that the agent was content.
    #[track_caller]
    pub fn succeeded(&self) -> &Turn {
        assert!(
            self.output.status.success(),
            "{}: {}",
            self.output.status,
            self.said()
        );
        self
    }
}
