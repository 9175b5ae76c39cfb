//! A cgroup for each guest, where the service manager has delegated one to the agent
//! (cgroup v2).
//!
//! The delegated cgroup is the agent's to divide, and the agent divides no other. A cgroup
//! whose children have limits has no processes itself, so the agent moves to a child, too:
//!
//! ```text
//! bbot-agent@default.service    delegated by systemd (Delegate=)
//!   agent                       the agent, with the programs that it runs
//!   guest-1                     QEMU and swtpm of a guest
//! ```

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::error::{Context as _, Result};
use crate::sys::cgroup::{attribute, start_in};
use crate::sys::poll;
use crate::trace;

/// The cgroup of the agent.
const AGENT: &str = "agent";

/// The start of the names of the guests' cgroups.
const GUEST: &str = "guest-";

/// The controllers of the limits.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The time for the processes of a cgroup to end after they were killed, and the interval
/// of attempts to remove it until then.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(2);
const REMOVAL_INTERVAL: Duration = Duration::from_millis(5);

/// The memory of QEMU beyond that of its guest, and of a quarter of it, in kB: 1 GiB of it
/// is QEMU's largest buffer of translated code, 128 MiB the flash memory of an aarch64
/// guest. The rest, and that quarter, are for the page cache of the disks, which is charged
/// to the cgroup, too: the kernel frees it instead of killing QEMU, but a guest whose disk
/// has little of it is slow.
const OVERHEAD_KB: u64 = 2 << 20;

/// The threads of QEMU beyond those of the processors: its own and swtpm's, and at most 64
/// for each disk without `io_uring`.
const THREADS: u32 = 1024;

/// The cgroup that was delegated to this process alone; `None` without one.
#[must_use]
pub fn delegated() -> Option<PathBuf> {
    let cgroup = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let path = directory(&cgroup, &mounts)?;
    // The service manager marks what it delegates; programs without privileges can read
    // the second attribute only, which systemd has from version 251 on.
    let marks = [c"trusted.delegate", c"user.delegate"];
    let is_marked = |name| attribute::<8>(&path, name).is_ok_and(|value| value == b"1");
    // With others in it, it is a session or a container.
    let processes = fs::read_to_string(path.join("cgroup.procs")).ok()?;
    let is_alone = processes.trim().parse() == Ok(std::process::id());
    (marks.into_iter().any(is_marked) && is_alone).then_some(path)
}

/// The directory of the process's cgroup, by the contents of its files `cgroup` and
/// `mountinfo` in /proc (cgroups(7), proc(5)). The root of a hierarchy, or of a namespace,
/// is never divided.
fn directory(cgroup: &str, mounts: &str) -> Option<PathBuf> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = |line: &str| -> Option<PathBuf> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, target) = (mount.next()?, mount.next()?);
        let rest = Path::new(own).strip_prefix(root).ok()?;
        let is_v2 = kind.starts_with("cgroup2 ");
        (is_v2 && rest != Path::new("")).then(|| Path::new(target).join(rest))
    };
    mounts.lines().find_map(below)
}

/// The controllers of the limits that a cgroup has.
fn controllers(cgroup: &Path) -> impl Iterator<Item = &'static str> {
    let all = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    let is_there = move |name: &&str| all.split_whitespace().any(|one| one == *name);
    CONTROLLERS.into_iter().filter(is_there)
}

/// The use that the agent makes of a delegated cgroup, in a clause.
#[must_use]
pub fn uses(cgroup: &Path) -> String {
    let controllers: Vec<&str> = controllers(cgroup).collect();
    let below = cgroup.display();
    match controllers.join(" and ") {
        none if none.is_empty() => format!("one for each guest, without limits, below {below}"),
        limits => format!("one for each guest, with limits of {limits}, below {below}"),
    }
}

/// The remedy for a delegated cgroup that the agent cannot write to.
#[must_use]
pub fn remedy(cgroup: &Path) -> String {
    // In an option of a unit, backslashes are doubled.
    let path = cgroup.display().to_string().replace('\\', "\\\\");
    format!("to let the agent write there, in its unit: ReadWritePaths={path}")
}

/// A delegated cgroup that the agent divides.
#[derive(Clone, Debug)]
pub struct Cgroups(PathBuf);

impl Cgroups {
    /// Moves the process from its cgroup `delegated` to a child of it, ends what a killed
    /// agent has left in others, and has the limits of children apply.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it, or the hierarchy is mounted read-only.
    pub fn divide(delegated: PathBuf) -> Result<Cgroups> {
        let own = delegated.join(AGENT);
        let divide = || -> io::Result<()> {
            match fs::create_dir(&own) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            put(&own, "cgroup.procs", "0")?;
            for entry in fs::read_dir(&delegated)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(GUEST)
                    && let Err(error) = end(&entry.path())
                {
                    trace!(3, "divide", "{} stays: {error}", entry.path().display());
                }
            }
            for controller in controllers(&delegated) {
                put(
                    &delegated,
                    "cgroup.subtree_control",
                    &format!("+{controller}"),
                )?;
            }
            Ok(())
        };
        divide().context(|| format!("unable to divide cgroup {}", delegated.display()))?;
        Ok(Cgroups(delegated))
    }

    /// Makes a cgroup for a guest with its memory in kB and its processors.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn create(&self, ram_kb: u64, cpus: u32) -> Result<GuestCgroup> {
        let mut number = 1_u32;
        let group = loop {
            let path = self.0.join(format!("{GUEST}{number}"));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => {
                    made.context(|| format!("unable to make cgroup {}", path.display()))?;
                    let around = self.0.ancestors();
                    break GuestCgroup {
                        path: Some(path),
                        around: around
                            .map_while(|cgroup| Some((cgroup.to_owned(), shortages(cgroup)?)))
                            .collect(),
                    };
                }
            }
        };
        let path = group.path();
        for (name, value) in limits(ram_kb, cpus) {
            match put(path, name, &value) {
                // The controller is not there, or the kernel does not know this limit.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                set => set.context(|| {
                    format!(
                        "unable to set {name} of cgroup {} to {value}",
                        path.display()
                    )
                })?,
            }
            trace!(4, "create", "{}: {name} {value}", path.display());
        }
        Ok(group)
    }
}

/// The limits of a guest: the name of the file and its contents.
fn limits(ram_kb: u64, cpus: u32) -> [(&'static str, String); 4] {
    let bytes = |kilobytes: u64| kilobytes.saturating_mul(1024).to_string();
    let most = ram_kb
        .saturating_add(ram_kb / 4)
        .saturating_add(OVERHEAD_KB);
    [
        ("memory.max", bytes(most)),
        // A host can swap out the guest's memory, and no more.
        ("memory.swap.max", bytes(ram_kb)),
        ("memory.oom.group", "1".to_owned()),
        ("pids.max", cpus.saturating_add(THREADS).to_string()),
    ]
}

/// Why the kernel killed a process of a cgroup for its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutOfMemory {
    /// The cgroup reached its limit, in bytes.
    Limit(u64),
    /// A cgroup around it, such as that of the service, reached its limit, in bytes.
    Around(PathBuf, u64),
    /// The host ran out of memory.
    Host,
}

/// The cgroup of a guest. Its processes are killed, and it is removed, when this value goes
/// away.
#[derive(Debug)]
#[must_use = "the processes of the cgroup are killed when this is dropped"]
pub struct GuestCgroup {
    path: Option<PathBuf>,
    /// The cgroups around it, with their [`shortages`] before it was made.
    around: Vec<(PathBuf, u64)>,
}

impl GuestCgroup {
    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Has `command` start in the cgroup.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn admit(&self, command: &mut Command) -> Result<()> {
        let path = self.path().join("cgroup.procs");
        let processes = OpenOptions::new().write(true).open(&path);
        start_in(
            command,
            processes.context(|| format!("unable to open {}", path.display()))?,
        );
        Ok(())
    }

    /// The most memory that its processes had at any time, with the page cache of their
    /// files, in bytes (Linux 5.19).
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        number(self.path(), "memory.peak")
    }

    /// Whether the kernel killed one of its processes for its memory, and why.
    #[must_use]
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        let events = fs::read_to_string(self.path().join("memory.events")).ok()?;
        let reached_limit = killed(&events)?;
        let limit = |cgroup: &Path| number(cgroup, "memory.max");
        if let Some(limit) = limit(self.path()).filter(|_| reached_limit) {
            return Some(OutOfMemory::Limit(limit));
        }
        let around = self.around.iter().find_map(|(cgroup, before)| {
            let limit = limit(cgroup).filter(|_| shortages(cgroup) > Some(*before))?;
            Some(OutOfMemory::Around(cgroup.clone(), limit))
        });
        Some(around.unwrap_or(OutOfMemory::Host))
    }

    /// Kills what is left of its processes and removes it.
    ///
    /// # Errors
    ///
    /// When a process does not end in time.
    pub fn close(mut self) -> Result<()> {
        let Some(path) = self.path.take() else {
            return Ok(());
        };
        end(&path).context(|| format!("unable to remove cgroup {}", path.display()))
    }
}

impl Drop for GuestCgroup {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // The next start of the agent tries again.
            let _ = end(&path);
        }
    }
}

/// Whether a process was killed for its memory, by the contents of `memory.events`, and if
/// so, whether the cgroup had reached its own limit.
fn killed(events: &str) -> Option<bool> {
    let reached_limit = || count(events, "oom").is_some_and(|count| count > 0);
    (count(events, "oom_kill")? > 0).then(reached_limit)
}

/// How often a cgroup reached its own limit and had nothing to free; `None` for the root,
/// which has no limit (Linux 5.2).
fn shortages(cgroup: &Path) -> Option<u64> {
    let events = fs::read_to_string(cgroup.join("memory.events.local")).ok()?;
    count(&events, "oom")
}

/// The number of a name, by lines of both.
fn count(events: &str, name: &str) -> Option<u64> {
    let mut lines = events.lines().filter_map(|line| line.split_once(' '));
    let (_, count) = lines.find(|(known, _)| *known == name)?;
    count.parse().ok()
}

fn number(cgroup: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(cgroup.join(name)).ok()?;
    text.trim().parse().ok()
}

/// Writes to a file of a cgroup, which has to be there.
fn put(cgroup: &Path, name: &str, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(cgroup.join(name))?;
    file.write_all(value.as_bytes())
}

/// Kills all processes of a cgroup and removes it.
fn end(cgroup: &Path) -> io::Result<()> {
    let deadline = Instant::now() + REMOVAL_TIMEOUT;
    // Linux 5.14; before it, the processes have to have ended.
    let _ = put(cgroup, "cgroup.kill", "1");
    loop {
        match fs::remove_dir(cgroup) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                poll::wait(&mut [], Some(Instant::now() + REMOVAL_INTERVAL))?;
            }
            removed => return removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str =
        "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn the_directory_of_a_cgroup_is_found_below_its_mount() {
        let service = "/system.slice/system-bbot\\x2dagent.slice/bbot-agent@default.service";
        let cgroup = format!("0::{service}\n");
        let path = format!("/sys/fs/cgroup{service}");
        assert_eq!(directory(&cgroup, V2), Some(path.into()));
        // Both versions, as systemd has them together.
        let cgroup =
            "5:memory:/\n1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n";
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            directory(cgroup, mounts),
            Some("/sys/fs/cgroup/unified/system.slice/a.service".into())
        );
        // A part of the hierarchy is mounted.
        let part = "41 31 0:38 /system.slice /mnt rw - cgroup2 none rw";
        assert_eq!(directory(cgroup, part), Some("/mnt/a.service".into()));
    }

    #[test]
    fn a_root_has_no_directory_to_divide() {
        for (cgroup, mounts) in [
            ("0::/\n", V2),
            ("0::/a\n", ""),
            ("0::/a\n", "41 31 0:38 /a /mnt rw - cgroup2 none rw"),
            // Outside of the namespace of the mount.
            ("0::/../b\n", "41 31 0:38 /c /mnt rw - cgroup2 none rw"),
            ("4:memory:/a\n", V2),
            ("0::/a\n", "1 1 0:1 / /sys rw cgroup2 -\n\n - \n"),
        ] {
            assert_eq!(directory(cgroup, mounts), None, "{cgroup} {mounts}");
        }
    }

    #[test]
    fn a_kill_for_memory_has_a_cause() {
        let events = |oom, kill| {
            format!("low 0\nhigh 0\nmax 9\noom {oom}\noom_kill {kill}\noom_group_kill 0\n")
        };
        assert_eq!(killed(&events(0, 0)), None);
        // An allocation failed, and nothing was killed.
        assert_eq!(killed(&events(1, 0)), None);
        assert_eq!(killed(&events(1, 3)), Some(true));
        assert_eq!(killed(&events(0, 1)), Some(false));
        assert_eq!(killed("oom_kill"), None);
    }

    #[test]
    fn limits_leave_room_above_the_memory_of_the_guest() {
        let [memory, swap, _, threads] = limits(8 << 20, 4);
        assert_eq!(memory, ("memory.max", (12_u64 << 30).to_string()));
        assert_eq!(swap, ("memory.swap.max", (8_u64 << 30).to_string()));
        assert_eq!(threads, ("pids.max", "1028".to_owned()));
        assert_eq!(limits(u64::MAX, u32::MAX)[0].1, u64::MAX.to_string());
    }
}
