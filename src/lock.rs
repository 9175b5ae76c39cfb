//! One agent per toolchain and instance: a lock that the kernel frees.
//!
//! Each agent has a directory `<run-dir>/<toolchain>-<instance>/` with the file
//! `agent.lock` in it, held by flock(2) for as long as the agent lives. The
//! descriptor is closed on exec, so no child keeps it. Whether an agent is dead
//! is therefore a question to its lock, not to a process id or an age.
//!
//! The file is never removed: between opening and locking, another agent could
//! lock the removed file and both would go on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Class, Context as _, Error, Result};
use crate::sys::flock::{How, Locked};

/// The name of the lock in the agent's directory.
pub const NAME: &str = "agent.lock";

/// How often, and after which pauses, a lock is tried that another process has. Most
/// often that is another agent; it may be the short attempt of [`is_held`].
const ATTEMPTS: u32 = 3;
const INTERVAL: Duration = Duration::from_millis(5);

/// The directory of the agent for a toolchain and instance.
pub fn directory(run_dir: &Path, toolchain: &str, instance: u16) -> PathBuf {
    run_dir.join(format!("{toolchain}-{instance}"))
}

/// The directories of agents below a run or state directory, in the order of their names.
pub fn directories(parent: &Path) -> Result<Vec<PathBuf>> {
    let unable = || format!("unable to list {}", parent.display());
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(unable)?,
    };
    let paths: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut found = paths.context(unable)?;
    found.retain(|path| path.is_dir());
    found.sort();
    Ok(found)
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    // Closing it is what frees the lock.
    file: Locked,
}

/// The outcome of an attempt to lock.
#[derive(Debug)]
pub enum Attempt {
    /// The lock is held.
    Ours(Lock),
    /// Another agent has it: its process, if it has said so.
    Busy(Option<u32>),
}

impl Lock {
    /// Makes `dir` if need be and tries to take the lock in it. It waits only for
    /// attempts by [`is_held`] to end.
    pub fn take(dir: &Path) -> Result<Attempt> {
        for _ in 1..ATTEMPTS {
            if let Ok(Attempt::Ours(lock)) = attempt(dir) {
                return Ok(Attempt::Ours(lock));
            }
            std::thread::sleep(INTERVAL);
        }
        attempt(dir).map_err(|error| match error.class() {
            Class::Permission => error.hint("run as root, or name another --run-dir"),
            _ => error.with_class(Class::Os),
        })
    }

    /// Whether its file is still there, so that other agents find it.
    pub fn is_there(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (there.dev(), there.ino()) == (ours.dev(), ours.ino())
}

/// Takes the lock that other agents hold while they bootstrap (`--toolchain-lock`).
/// `None`: one of them holds it.
pub fn toolchain(path: &Path) -> Result<Option<Locked>> {
    let unable = || format!("unable to lock {}", path.display());
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o644).open(path).context(unable)?;
    match Locked::take(file, How::TryExclusive) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err((_, error)) => Err(error).context(unable),
    }
}

fn attempt(dir: &Path) -> Result<Attempt> {
    fs::create_dir_all(dir).context(|| format!("unable to make directory {}", dir.display()))?;
    let path = dir.join(NAME);
    let unable = || format!("unable to lock {}", path.display());
    // The file may be removed between the open and the lock, so both are repeated until
    // the locked file is the one of that name.
    for _ in 0..100 {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .context(unable)?;
        let lock = match Locked::take(file, How::TryExclusive) {
            Ok(lock) => lock,
            Err((file, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Attempt::Busy(noted(&file)));
            }
            Err((_, error)) => return Err(error).context(unable),
        };
        if is_at(&lock, &path) {
            // For people only, so a full disk is no reason to give up.
            let _ = note(&lock);
            return Ok(Attempt::Ours(Lock { path, file: lock }));
        }
    }
    Err(Error::new(unable()).hint("another program removes it again and again"))
}

/// Writes who we are.
fn note(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn noted(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether an agent holds the lock in `dir`. The answer is a short attempt to lock,
/// which an agent that starts takes into account.
pub fn is_held(dir: &Path) -> bool {
    let file = File::open(dir.join(NAME));
    let attempt = file.map(|file| Locked::take(file, How::TryShared));
    matches!(attempt, Ok(Err((_, error))) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The agent that holds the lock in `dir`, for people: taken from proc(5) and
/// not by trying, which would make an agent that starts just now give up.
pub fn holder(dir: &Path) -> Option<u32> {
    let file = File::open(dir.join(NAME)).ok()?;
    let inode = file.metadata().ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`
    let held = locks.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words.nth(1) == Some("FLOCK")
            && words
                .nth(3)
                .and_then(|file| file.rsplit(':').next()?.parse().ok())
                == Some(inode)
    });
    if held { noted(&file) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let name = format!("bbot-agent-lock-{name}-{}", std::process::id());
            Scratch(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_lock_of_other_agents_is_held_by_one_at_a_time() {
        let name = format!("bbot-agent-toolchain-lock-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let held = toolchain(&path).unwrap();
        assert!(held.is_some());
        assert!(toolchain(&path).unwrap().is_none());
        drop(held);
        assert!(toolchain(&path).unwrap().is_some());
        fs::remove_file(&path).unwrap();
        let error = toolchain(Path::new("/nowhere/lock")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unable to lock /nowhere/lock: ")
        );
    }

    #[test]
    fn the_second_agent_learns_who_has_the_lock() {
        let scratch = Scratch::new("second");
        let dir = directory(&scratch.0, "default", 1);
        let Attempt::Ours(lock) = Lock::take(&dir).unwrap() else {
            panic!("the lock is free");
        };
        match Lock::take(&dir).unwrap() {
            Attempt::Busy(pid) => assert_eq!(pid, Some(std::process::id())),
            Attempt::Ours(_) => panic!("the lock is not free"),
        }
        assert_eq!(holder(&dir), Some(std::process::id()));
        let other = directory(&scratch.0, "default", 2);
        assert!(matches!(Lock::take(&other).unwrap(), Attempt::Ours(_)));
        drop(lock);
        assert_eq!(holder(&dir), None);
        assert!(matches!(Lock::take(&dir).unwrap(), Attempt::Ours(_)));
    }

    #[test]
    fn a_lock_dies_with_its_process() {
        let scratch = Scratch::new("dies");
        fs::create_dir_all(&scratch.0).unwrap();
        let path = scratch.0.join(NAME);
        let Ok(mut child) = std::process::Command::new("flock")
            .arg(&path)
            .args(["sh", "-c", "echo held; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            return;
        };
        let mut said = [0; 5];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        assert!(matches!(
            Lock::take(&scratch.0).unwrap(),
            Attempt::Busy(None)
        ));
        // flock(1) waits for its child, which the end of input ends.
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(matches!(Lock::take(&scratch.0).unwrap(), Attempt::Ours(_)));
    }

    #[test]
    fn a_run_directory_that_cannot_be_made_is_an_error_of_the_system() {
        let error = Lock::take(Path::new("/dev/null/x")).unwrap_err();
        assert_eq!(error.class(), Class::Os);
        assert_eq!(
            error.to_string(),
            "unable to make directory /dev/null/x: Not a directory"
        );
    }
}
