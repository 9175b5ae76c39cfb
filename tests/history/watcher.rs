//! One that notes the claims and the guests of a host, as long as they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bbot_agent::ledger::{self, HostClaim};

/// The host at one time.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    pub(super) claims: Vec<HostClaim>,
    /// The directories of the guests that run.
    pub(super) guests: Vec<PathBuf>,
}

pub(super) struct Watcher {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Moment>>,
}

impl Watcher {
    pub(super) fn start(run_dir: PathBuf, machines: PathBuf) -> Watcher {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut moments: Vec<Moment> = Vec::new();
            while !over.load(Ordering::SeqCst) {
                // Claims are files of their own: they were so at one time if they are the
                // same twice.
                let at = Instant::now();
                let claims = ledger::claims(&run_dir).unwrap();
                let guests = guests(&machines);
                let is_new = moments
                    .last()
                    .is_none_or(|last| last.claims != claims || last.guests != guests);
                if is_new && ledger::claims(&run_dir).unwrap() == claims {
                    moments.push(Moment { at, claims, guests });
                }
                thread::sleep(Duration::from_millis(5));
            }
            moments
        });
        Watcher { is_over, thread }
    }

    pub(super) fn end(self) -> Vec<Moment> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// The working directories of QEMU processes below `machines`.
fn guests(machines: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(directory) = fs::read_link(entry.path().join("cwd")) else {
            continue;
        };
        // Programs that a guest starts are forks of it before they are others.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_qemu = || line.windows(11).any(|part| part == b"id=monitor,");
        let is_fork = || parent_directory(&entry.path()).is_some_and(|of| of == directory);
        if directory.starts_with(machines) && is_qemu() && !is_fork() {
            found.push(directory);
        }
    }
    found.sort();
    found
}

/// The working directory of the parent of a process.
fn parent_directory(process: &Path) -> Option<PathBuf> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    fs::read_link(Path::new("/proc").join(parent.trim()).join("cwd")).ok()
}
