//! A host to measure on: machines without a system in them, and the agent.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::support::btrfs::{Volume, subvolume};
use crate::support::{TempDir, program};

/// The agent that is measured.
pub fn agent() -> PathBuf {
    std::env::var_os("BBOT_AGENT").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_bbot-agent")),
        PathBuf::from,
    )
}

pub struct Scene {
    volume: Volume,
    dir: TempDir,
}

impl Scene {
    /// A host with `machines` machines that are bootstrapped; `None` where there
    /// is no btrfs.
    pub fn new(machines: usize) -> Option<Scene> {
        let volume = Volume::new(2048)?;
        let dir = TempDir::new();
        for name in ["tftp/toolchain/default", "controller/tasks", "state", "run"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let scene = Scene { volume, dir };
        fs::create_dir(scene.volume()).unwrap();
        (0..machines).for_each(|n| scene.add(&format!("linux-gcc_{n}")));
        bbot_agent::snapshot::sync(&scene.volume()).unwrap();
        Some(scene)
    }

    pub fn volume(&self) -> PathBuf {
        self.volume.path().join("v")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Two subvolumes and a link, as a bootstrap leaves them.
    fn add(&self, name: &str) {
        let dir = self.volume().join(name);
        fs::create_dir(&dir).unwrap();
        let header = format!("id: {name}-1.0\nname: {name}\nsummary: Linux with GCC\ntype: kvm\n");
        for (tail, text) in [
            ("1.0", format!(": 1\n{header}")),
            (
                "default",
                format!(
                    ": 1\n:\n{header}mac: 52:54:00:00:01:02\n:\nid: bogus\n:\n\
                     bbot-version: 0.17.0\n"
                ),
            ),
        ] {
            let subvolume = subvolume(&dir.join(format!("{name}-{tail}")));
            fs::write(subvolume.join("manifest"), text).unwrap();
            fs::write(subvolume.join("disk.img"), "no system").unwrap();
        }
        symlink(format!("{name}-1.0"), dir.join(format!("{name}-1"))).unwrap();
    }

    /// The agent on this host; its messages go to the file `log`.
    pub fn agent(&self, words: &[&str]) -> Command {
        let mut command = Command::new(agent());
        command
            .args([
                "--accel",
                "tcg",
                "--ram",
                "262144",
                "--hold",
                "0",
                "--min-free",
                "0",
            ])
            .arg("--machines")
            .arg(self.volume.path());
        for name in ["tftp", "state", "run"] {
            let option = if name == "run" { "run-dir" } else { name };
            command.arg(format!("--{option}")).arg(self.path(name));
        }
        let log = File::create(self.path("log")).unwrap();
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

/// Wall and processor time of a program that has to succeed.
pub fn cost(command: &mut Command) -> (Duration, Duration) {
    let before = children();
    let start = Instant::now();
    let status = command.status().unwrap();
    let wall = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    (wall, children().checked_sub(before).unwrap_or_default())
}

/// The same of a line, its output dropped.
pub fn line(line: &str) -> (Duration, Duration) {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let file = program(name).unwrap_or_else(|| panic!("no program {name}"));
    cost(
        Command::new(file)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
}

/// Processor time of all children that have ended.
pub fn children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    [usage.user_time(), usage.system_time()]
        .into_iter()
        .map(|t| {
            let micros = u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap();
            Duration::from_micros(micros)
        })
        .sum()
}

/// Nanoseconds on the clock that all processes share.
pub fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

/// A value of `/proc/<pid>/status`.
pub fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .filter_map(|value| value.split_whitespace().next()?.parse().ok())
        .next()
        .unwrap_or(0)
}

/// How long a process has run on a processor: the first figure of
/// `/proc/<pid>/schedstat`, in nanoseconds.
pub fn running(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

pub fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
