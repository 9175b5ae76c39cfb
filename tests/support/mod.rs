//! What the tests share: what to do without a prerequisite, waiting, children,
//! temporary directories; and file systems and networks of their own.

pub mod allocations;
pub mod brep;
pub mod btrfs;
pub mod guest;
pub mod host;
pub mod http;
pub mod netns;
pub mod own_linux;
pub mod relay;
mod requests;
pub mod site;
pub mod tftp;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bbot_agent::json::Value;
use bbot_agent::manifest::MachineHeader;

/// Says that the running test needs something that is not here. Under `CI=true`
/// that is a failure: there everything is here. Each is also counted, by a line
/// in the file that `BBOT_AGENT_TEST_SKIPPED` names.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test} would be skipped: {reason}"
    );
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("BBOT_AGENT_TEST_SKIPPED") {
        // One write in append mode, so that tests at the same time do not mix.
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()))
            .unwrap();
    }
}

/// Whether `met`; if not, the test is skipped, which needs `what`.
#[must_use]
pub fn require(met: bool, what: &str) -> bool {
    if !met {
        skip(&format!("needs {what}"));
    }
    met
}

/// Whether the test runs as root; skipped otherwise.
#[must_use]
pub fn require_root() -> bool {
    require(nix::unistd::Uid::effective().is_root(), "root")
}

/// Whether the programs are there; skipped otherwise.
#[must_use]
pub fn require_programs(names: &[&str]) -> bool {
    names
        .iter()
        .all(|name| require(program(name).is_some(), &format!("the program {name}")))
}

/// Where a program is, if it is anywhere.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// How long to wait for something that takes no time on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `done`, looking every few milliseconds, for at most [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, done: impl FnMut() -> bool) {
    within(PATIENCE, what, done);
}

/// The same, for at most `limit`.
#[track_caller]
pub fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A helper program of `tests/tools`; cargo builds them with the tests.
pub fn example(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap();
    let path = path.parent().unwrap().with_file_name("examples").join(name);
    assert!(path.exists(), "{} (cargo build --examples)", path.display());
    path
}

/// What an agent offers of a machine.
pub fn header(id: &str, name: &str) -> MachineHeader {
    let text = format!(": 1\nid: {id}\nname: {name}\nsummary: Linux with GCC\n");
    MachineHeader::parse(text.as_bytes(), "header").unwrap()
}

/// What the agent with this run directory says of its state.
pub fn status(run: &Path) -> Option<Value> {
    let text = fs::read_to_string(run.join("status.json")).ok()?;
    Value::parse(text.trim_end()).ok()
}

/// Waits until the agent with this run directory is idle, for this reason.
#[track_caller]
pub fn await_idle(run: &Path, reason: &str) {
    eventually(&format!("idle: {reason}"), || {
        status(run).is_some_and(|status| {
            let word = |key| status.get(key).and_then(Value::as_str);
            word("phase") == Some("idle") && word("reason") == Some(reason)
        })
    });
}

/// Runs a program to its end and gives its standard output. Panics when it
/// fails.
#[track_caller]
pub fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let file = program(words[0]).unwrap_or_else(|| panic!("no program {}", words[0]));
    let output = Command::new(file).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A child that is killed and waited for when this goes.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Kills it, as the kernel does when memory runs out, and waits for it.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that is removed when this goes.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one under cargo's directory for tests.
    #[must_use]
    pub fn new() -> TempDir {
        fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).unwrap();
        TempDir::named(concat!(env!("CARGO_TARGET_TMPDIR"), "/t"))
    }

    /// Makes one in memory, where a sync costs nothing.
    #[must_use]
    pub fn in_memory() -> TempDir {
        TempDir::named("/dev/shm/bbot-agent-")
    }

    /// A run that was killed may have had the same process id in another namespace, so
    /// a directory that is there is left alone.
    fn named(start: &str) -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = PathBuf::from(format!("{start}{}-{n}", std::process::id()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    made.unwrap();
                    return TempDir(path);
                }
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `test` on a thread that shares neither network nor mounts with anyone,
/// and has `/sys` and `lo` of its own. What it leaves behind there goes with
/// it, whatever happens.
///
/// Skipped without root.
pub fn isolated(test: impl FnOnce() + Send) {
    if !require_root() {
        return;
    }
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let result = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name(name) // skip() names the test by it
            .spawn_scoped(scope, || {
                netns::unshare_all();
                test();
            })
            .unwrap()
            .join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
