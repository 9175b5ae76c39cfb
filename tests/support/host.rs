//! A build host in miniature: machines on btrfs, a bridge, a directory that
//! plays controller, and the agent.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::btrfs::Volume;
use super::{Process, TempDir, guest, run};

/// The program under test.
pub const AGENT: &str = env!("CARGO_BIN_EXE_bbot-agent");

/// How long a turn with an emulated guest may take on a busy machine.
pub const TURN: Duration = Duration::from_secs(180);

/// A host; made inside [`super::isolated`], it goes with the test.
#[derive(Debug)]
pub struct Host {
    machines: Volume,
    dir: TempDir,
}

impl Host {
    /// One with the bridge `br1` and no machine yet, or skips the test.
    #[must_use]
    pub fn new() -> Option<Host> {
        Host::of_size(1024)
    }

    /// The same with so many MiB for machines.
    #[must_use]
    pub fn of_size(mib: u64) -> Option<Host> {
        if let Err(why) = guest::image() {
            super::skip(why);
            return None;
        }
        let machines = Volume::new(mib)?;
        fs::create_dir(machines.path().join("v")).unwrap();
        let dir = TempDir::new();
        for name in ["tftp/toolchain", "controller/tasks", "state", "run"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        guest::bridge("br1");
        let host = Host { machines, dir };
        host.toolchain("default");
        Some(host)
    }

    /// Somewhere below the host's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The volume with machines.
    #[must_use]
    pub fn machines(&self) -> PathBuf {
        self.machines.path().join("v")
    }

    /// The machine directory `name`.
    #[must_use]
    pub fn machine(&self, name: &str) -> PathBuf {
        self.machines().join(name)
    }

    /// The names in a machine directory.
    #[must_use]
    pub fn subvolumes(&self, name: &str) -> Vec<String> {
        names(&self.machine(name))
    }

    /// Offers the worker to machines that are bootstrapped for `toolchain`.
    pub fn toolchain(&self, toolchain: &str) {
        guest::offer_worker(&self.path("tftp/toolchain").join(toolchain));
    }

    /// Adds the machine `name` in revision 0, steered by `settings`.
    pub fn add(&self, name: &str, settings: &str) {
        let revision = self.revision(name, 0);
        guest::install(&revision, settings);
    }

    /// Adds a revision without a disk, and makes it the current one.
    pub fn revision(&self, name: &str, number: u32) -> PathBuf {
        let dir = self.machine(name);
        fs::create_dir_all(&dir).unwrap();
        let revision = dir.join(format!("{name}-1.{number}"));
        run(&format!("btrfs -q subvolume create {}", revision.display()));
        let id = format!("{name}-1.{number}");
        let text = format!(": 1\nid: {id}\nname: {name}\nsummary: Linux with GCC\ntype: kvm\n");
        fs::write(revision.join("manifest"), text).unwrap();
        let link = dir.join(format!("{name}-1"));
        let _ = fs::remove_file(&link);
        symlink(&id, link).unwrap();
        revision
    }

    /// Adds the machine `name`, bootstrapped for toolchain `default` already,
    /// its copy steered by `settings`.
    pub fn add_bootstrapped(&self, name: &str, settings: &str) {
        self.revision(name, 0);
        let copy = self.machine(name).join(format!("{name}-default"));
        run(&format!("btrfs -q subvolume create {}", copy.display()));
        let disk = copy.join("disk.img");
        run(&format!(
            "cp --sparse=always {} {}",
            bootstrapped_image().display(),
            disk.display()
        ));
        guest::steer(&disk, settings);
        let text = format!(
            ": 1\n:\nid: {name}-1.0\nname: {name}\nsummary: Linux with GCC\ntype: kvm\n\
             mac: 52:54:00:00:01:02\n:\nid: bogus\n:\nbbot-version: 0.17.0\n"
        );
        fs::write(copy.join("manifest"), text).unwrap();
    }

    /// Drops a task for `machine` into the directory controller; `extra` are
    /// more lines of its manifest.
    pub fn task(&self, name: &str, machine: &str, extra: &str) {
        let path = self
            .path("controller/tasks")
            .join(format!("{name}.manifest"));
        fs::write(path, task(machine, extra)).unwrap();
    }

    /// The result for a task, if it is there; its wrapped lines are whole again.
    #[must_use]
    pub fn result(&self, name: &str) -> Option<String> {
        let path = self
            .path("controller/results")
            .join(format!("{name}.manifest"));
        Some(fs::read_to_string(path).ok()?.replace("\\\n", ""))
    }

    /// The agent for this host, with these further words on its command line,
    /// but without a controller.
    #[must_use]
    pub fn agent(&self, words: &[&str]) -> Command {
        let mut command = Command::new(AGENT);
        command
            .args(["--accel", "tcg", "--ram", "262144", "--hold", "0"])
            .arg("--machines")
            .arg(self.machines.path());
        for name in ["tftp", "state", "run-dir"] {
            let dir = self.path(if name == "run-dir" { "run" } else { name });
            command.arg(format!("--{name}")).arg(dir);
        }
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Runs the agent to its end on the directory controller.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Ran {
        let _turn = guest::turn();
        let mut command = self.agent(words);
        command.arg(self.path("controller"));
        finish(command, TURN)
    }

    /// Starts the agent; its standard error goes to the file `log`.
    #[must_use]
    pub fn start(&self, mut command: Command, log: &str) -> Process {
        let log = fs::File::create(self.path(log)).unwrap();
        Process(command.stderr(log).stdout(Stdio::null()).spawn().unwrap())
    }
}

/// A task manifest.
#[must_use]
pub fn task(machine: &str, extra: &str) -> String {
    format!(": 1\nname: libfoo\nversion: 1.2.3\nmachine: {machine}\n{extra}")
}

/// What came of a run of the agent.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Waits for a command to end, for as long as `limit`.
#[track_caller]
pub fn finish(mut command: Command, limit: Duration) -> Ran {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = in_time(child, limit);
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The output of a child, which is killed when it takes too long.
#[track_caller]
fn in_time(child: Child, limit: Duration) -> Output {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, over) = std::sync::mpsc::channel();
    let watchdog = std::thread::spawn(move || {
        if over.recv_timeout(limit).is_err() {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            return true;
        }
        false
    });
    let output = child.wait_with_output().unwrap();
    let _ = done.send(());
    let late = watchdog.join().unwrap();
    assert!(
        !late,
        "not done in {limit:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Waits for a process to end; its exit code.
#[track_caller]
pub fn ended(process: &mut Process, limit: Duration) -> Option<i32> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "still there after {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The names in a directory, sorted.
#[must_use]
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .map(|entries| {
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// The disk of a machine after a bootstrap: made once, and kept under a name
/// that changes with the guest.
fn bootstrapped_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        guest::image().unwrap().hash(&mut hasher);
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/worker"))
            .unwrap()
            .hash(&mut hasher);
        let name = format!("bootstrapped-{:016x}.img", hasher.finish());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if !path.exists() {
            super::isolated(|| bootstrap(&path));
        }
        path
    })
}

fn bootstrap(to: &Path) {
    let host = Host::new().unwrap();
    host.add("linux", "");
    let ran = finish(host.agent(&["--dump-machines"]), TURN);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let disk = host.machine("linux").join("linux-default/disk.img");
    let part = to.with_extension("part");
    run(&format!(
        "cp --sparse=always {} {}",
        disk.display(),
        part.display()
    ));
    fs::rename(part, to).unwrap();
}
