//! The claims of the agents of a host, in files.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Admission, Capacity, ClaimState, HostClaim, HostView, Wanted, admit};
use crate::durable;
use crate::error::{Class, Context as _, Error, Result};
use crate::lock;
use crate::sys::flock::{How, Locked};
use crate::trace;

/// The lock of the ledger, in the run directory.
const HOST_LOCK: &str = "host.lock";
/// The name of a claim in the directory of its agent.
const CLAIM: &str = "claim";
/// The maximum size of a claim, in bytes. Usual ones have some hundred.
const MAX_CLAIM_BYTES: u64 = 64 << 10;
/// The interval of attempts to lock the ledger. It is held for some file operations.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);
/// The time limit of these attempts: the holder may be stopped.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The share of the host's memory that is not for guests: kernel, page cache, and what
/// QEMU needs besides the memory of its guest.
const RESERVED_SHARE: u64 = 16;
/// The least of it, in kB: on a small host the kernel and QEMU need this much.
const LEAST_RESERVE_KB: u64 = 512 << 10;

/// The memory for guests unless `--host-ram` says otherwise, in kB, on a host with
/// `total_kb`: all but a sixteenth, and at least 512 MiB.
pub fn default_ram_kb(total_kb: u64) -> u64 {
    total_kb.saturating_sub((total_kb / RESERVED_SHARE).max(LEAST_RESERVE_KB))
}

/// The ledger of this host, for one agent.
#[derive(Clone, Debug)]
pub struct HostLedger {
    run_dir: PathBuf,
    /// `<toolchain>-<instance>`.
    owner: String,
    capacity: Capacity,
}

/// A claim that ends with this guard.
#[derive(Debug)]
pub struct ClaimGuard {
    directory: PathBuf,
}

impl HostLedger {
    /// The ledger in `run_dir` for the agent `owner`, which holds its lock. A claim that
    /// a killed agent of this name has left would be valid again, and is removed.
    pub fn open(run_dir: PathBuf, owner: String, capacity: Capacity) -> HostLedger {
        let ledger = HostLedger {
            run_dir,
            owner,
            capacity,
        };
        let directory = ledger.directory();
        durable::tidy(&directory.join(CLAIM));
        drop(ClaimGuard { directory });
        ledger
    }

    fn directory(&self) -> PathBuf {
        self.run_dir.join(&self.owner)
    }

    /// The host as it is now, without the claim of this agent.
    pub fn view(&self) -> Result<HostView> {
        Ok(HostView {
            capacity: self.capacity,
            claims: read(&self.run_dir, Some(&self.owner))?,
        })
    }

    /// Decides whether the guest of `claim` may start, and writes the claim if it may.
    /// If others have to make room first, the claim keeps the room for it meanwhile:
    /// [`set_state`] has it run afterwards. `rest` waits for some time, and returns false
    /// if the agent was told to stop.
    pub fn claim(
        &self,
        mut claim: HostClaim,
        rest: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<(Admission, Option<ClaimGuard>)> {
        let _lock = self.lock(rest)?;
        let wanted = Wanted {
            work: claim.work,
            ram_kb: claim.ram_kb,
            cpus: claim.cpus,
            priority: claim.priority,
        };
        let admission = admit(&self.capacity, &self.view()?.claims, &wanted);
        claim.owner.clone_from(&self.owner);
        claim.host_ram_kb = self.capacity.ram_kb;
        claim.host_cpus = self.capacity.cpus;
        claim.state = match &admission {
            Admission::Granted => ClaimState::Running,
            Admission::Displaces(_) => ClaimState::Waiting,
            Admission::Waits(shortage) => {
                trace!(3, "claim", "{} waits for {shortage}", claim.machine);
                return Ok((admission, None));
            }
        };
        let directory = self.directory();
        write(&directory, &claim)?;
        Ok((admission, Some(ClaimGuard { directory })))
    }

    fn lock(&self, rest: &mut dyn FnMut(Duration) -> bool) -> Result<Locked> {
        let path = self.run_dir.join(HOST_LOCK);
        let unable = || format!("unable to lock {}", path.display());
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o644);
        let mut file = options.open(&path).context(unable)?;
        let mut waited = Duration::ZERO;
        loop {
            file = match Locked::take(file, How::TryExclusive) {
                Ok(lock) => return Ok(lock),
                Err((file, error)) if error.kind() == io::ErrorKind::WouldBlock => file,
                Err((_, error)) => return Err(error).context(unable),
            };
            if waited >= LOCK_TIMEOUT || !rest(LOCK_INTERVAL) {
                let error = Error::new(unable()).with_class(Class::Os);
                return Err(error.hint("another agent holds it, which may be stopped"));
            }
            waited += LOCK_INTERVAL;
        }
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        let path = self.directory.join(CLAIM);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                trace!(2, "drop", "unable to remove {}: {error}", path.display());
            }
            _ => {}
        }
    }
}

/// The claims of all agents below `run_dir`, in the order of their names.
pub fn claims(run_dir: &Path) -> Result<Vec<HostClaim>> {
    read(run_dir, None)
}

fn read(run_dir: &Path, except: Option<&str>) -> Result<Vec<HostClaim>> {
    let mut found = Vec::new();
    for directory in lock::directories(run_dir)? {
        let owner = directory.file_name().and_then(OsStr::to_str);
        if let Some(owner) = owner.filter(|owner| Some(*owner) != except) {
            found.extend(of_agent(&directory, owner)?);
        }
    }
    Ok(found)
}

/// The claim of an agent that lives.
fn of_agent(directory: &Path, owner: &str) -> Result<Option<HostClaim>> {
    let path = directory.join(CLAIM);
    let text = match durable::read(&path, MAX_CLAIM_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.context(|| format!("unable to read claim {}", path.display()))?,
    };
    let claim = HostClaim::parse(&String::from_utf8_lossy(&text), owner);
    if claim.is_none() {
        trace!(2, "read", "{} is not a claim", path.display());
    }
    Ok(claim.filter(|_| lock::is_held(directory)))
}

/// Removes the claim in the directory of its agent, before its guard does.
pub fn release(directory: &Path) {
    drop(ClaimGuard {
        directory: directory.to_owned(),
    });
}

/// Changes the state of the claim in the directory of its agent, unless it was released.
pub fn set_state(directory: &Path, state: ClaimState) -> Result<()> {
    let path = directory.join(CLAIM);
    let unable = || format!("unable to change claim {}", path.display());
    let text = match durable::read(&path, MAX_CLAIM_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.context(unable)?,
    };
    let Some(mut claim) = HostClaim::parse(&String::from_utf8_lossy(&text), "") else {
        return Err(Error::new(unable()).hint("it is not a claim"));
    };
    claim.state = state;
    write(directory, &claim)
}

fn write(directory: &Path, claim: &HostClaim) -> Result<()> {
    let path = directory.join(CLAIM);
    let text = format!("{}\n", claim.json());
    durable::publish(&path, text.as_bytes())
        .context(|| format!("unable to write claim {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Work;
    use crate::lock::{Attempt, Lock};
    use crate::priority::Priority;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn guest(ram_kb: u64) -> HostClaim {
        HostClaim {
            owner: String::new(),
            work: Work::Task,
            state: ClaimState::Running,
            ram_kb,
            cpus: 1,
            priority: Priority::default(),
            machine: "linux-gcc".to_owned(),
            task: None,
            accepted: None,
            is_interactive: false,
            host_ram_kb: 0,
            host_cpus: 0,
        }
    }

    #[test]
    fn a_claim_lives_as_long_as_the_lock_of_its_agent() {
        let name = format!("bbot-agent-ledger-{}", std::process::id());
        let scratch = Scratch(std::env::temp_dir().join(name));
        let run_dir = &scratch.0;
        let agent = |owner: &str| {
            let Attempt::Ours(lock) = Lock::take(&run_dir.join(owner)).unwrap() else {
                panic!("{owner} is not locked");
            };
            let capacity = Capacity {
                ram_kb: 100,
                cpus: 8,
                instances: None,
            };
            let ledger = HostLedger::open(run_dir.clone(), owner.to_owned(), capacity);
            (lock, ledger)
        };
        let claim = |ledger: &HostLedger, ram_kb| ledger.claim(guest(ram_kb), &mut |_| true);
        let (_lock, one) = agent("default-1");
        let (lock, two) = agent("default-2");
        let (admission, first) = claim(&one, 60).unwrap();
        assert_eq!(admission, Admission::Granted);
        let (admission, refused) = claim(&two, 60).unwrap();
        assert!(matches!(admission, Admission::Waits(_)), "{admission:?}");
        assert!(refused.is_none());
        let (_, second) = claim(&two, 40).unwrap();
        set_state(&run_dir.join("default-2"), ClaimState::Paused).unwrap();
        let all = claims(run_dir).unwrap();
        let shown: Vec<_> = all.iter().map(|c| (&*c.owner, c.ram_kb, c.state)).collect();
        let (running, paused) = (ClaimState::Running, ClaimState::Paused);
        assert_eq!(
            shown,
            [("default-1", 60, running), ("default-2", 40, paused)]
        );
        drop(first);
        assert_eq!(two.view().unwrap().claims, []);
        assert_eq!(one.view().unwrap().claims.len(), 1);
        // The agent is killed, and its claim stays behind.
        let file = run_dir.join("default-2").join(CLAIM);
        let text = fs::read(&file).unwrap();
        drop(second);
        fs::write(&file, text).unwrap();
        assert_eq!(one.view().unwrap().claims.len(), 1);
        drop(lock);
        assert_eq!(one.view().unwrap().claims, []);
        // Its successor has none.
        let (_lock, _two) = agent("default-2");
        assert_eq!(one.view().unwrap().claims, []);
    }

    #[test]
    fn the_reserve_is_a_sixteenth_and_not_less_than_512_mib() {
        const GIB: u64 = 1 << 20;
        assert_eq!(default_ram_kb(64 * GIB), 60 * GIB);
        assert_eq!(default_ram_kb(4 * GIB), 4 * GIB - GIB / 2);
        assert_eq!(default_ram_kb(1000), 0);
    }
}
