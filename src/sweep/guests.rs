//! A QEMU that outlived its agent.
//!
//! The kernel kills it with us (prctl(2), `PR_SET_PDEATHSIG`), unless it has
//! changed its user since, or a tool has stepped in between. So this is rare;
//! but it writes to a disk that is about to be deleted, and holds our tap.
//!
//! It is known by three things that it cannot have by accident: it works in a
//! scratch snapshot of this agent, its `-name` is the path of the same, and the lock
//! on that is free, or the snapshot is gone. A shell in there has no such name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::{Litter, What};
use crate::error::{Context as _, Error, Result};
use crate::snapshot;
use crate::sys::process;

/// How long the kernel may take to end a killed process, in milliseconds.
const PATIENCE: u16 = 10_000;

/// The program's name for its parent; a living one looks after its guest.
const AGENT: &str = "bbot-agent";

/// Finds those that work in one of the `dead` snapshots, or in one that is gone.
pub(super) fn find(machines: &Path, toolchain: &str, dead: &[PathBuf]) -> Vec<Litter> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    // Links on the way are resolved in what /proc says.
    let machines = fs::canonicalize(machines).unwrap_or_else(|_| machines.to_owned());
    let dead: Vec<PathBuf> = dead
        .iter()
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    let mut found: Vec<Litter> = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            let (path, deleted) = workplace(pid)?;
            let ours = path.starts_with(&machines) && is_scratch(&path, toolchain);
            let orphan = ours
                && (deleted || dead.contains(&path))
                && is_named(pid, &path)
                && !has_agent(pid);
            orphan.then(|| Litter::new(What::Guest(pid), path))
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Kills the process `pid`, if it is still the one that works in `path`.
pub(super) fn kill(pid: u32, path: &Path) -> Result<()> {
    let unable = || format!("unable to kill qemu of a dead agent, pid {pid}");
    let pidfd = match process::pidfd_open(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        pidfd => pidfd.context(unable)?,
    };
    // From here on the process cannot become another; was it already?
    if workplace(pid).is_none_or(|(now, _)| now != path) || !is_named(pid, path) {
        return Ok(());
    }
    match process::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        result => result.context(unable)?,
    }
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ended, PollTimeout::from(PATIENCE)) {
        Ok(0) => Err(Error::new(format!("{}: it does not end", unable()))
            .hint("its disk is stuck, perhaps: see ps(1), state D")),
        _ => Ok(()),
    }
}

/// The working directory of a process, and whether it was deleted.
fn workplace(pid: u32) -> Option<(PathBuf, bool)> {
    let link = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let bytes = link.into_os_string().into_vec();
    Some(match bytes.strip_suffix(b" (deleted)") {
        Some(path) => (OsString::from_vec(path.to_vec()).into(), true),
        None => (OsString::from_vec(bytes).into(), false),
    })
}

/// Whether `path` is `<name>/<name>-<toolchain>-<xxx>`.
fn is_scratch(path: &Path, toolchain: &str) -> bool {
    let parent = path.parent().and_then(Path::file_name);
    let (Some(machine), Some(name)) = (parent, path.file_name()) else {
        return false;
    };
    let mut target = machine.to_owned();
    target.push("-");
    target.push(toolchain);
    snapshot::is_scratch(name, &target)
}

/// Whether one of the process's arguments is `guest=<path>`.
fn is_named(pid: u32, path: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    names(&arguments, path)
}

fn names(arguments: &[u8], path: &Path) -> bool {
    let Some(wanted) = path.file_name() else {
        return false;
    };
    arguments
        .split(|b| *b == 0)
        .filter_map(|argument| argument.strip_prefix(b"guest="))
        // The path may have been written differently; its end says enough.
        .filter_map(|path| Path::new(OsStr::from_bytes(path)).file_name())
        // QEMU wants commas doubled.
        .any(|name| name.to_string_lossy().replace(",,", ",") == wanted.to_string_lossy())
}

fn has_agent(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some(parent) = parent(&stat) else {
        return false;
    };
    fs::read_to_string(format!("/proc/{parent}/comm")).is_ok_and(|name| name.trim_end() == AGENT)
}

/// The parent in the text of `/proc/<pid>/stat`: the second field after the
/// name, which is in brackets and may contain anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_known_by_its_name_and_not_by_its_place_alone() {
        let path = Path::new("/m/v/a,b/a,b-gcc-@1.0");
        assert!(names(b"qemu\0-name\0guest=/m/v/a,,b/a,,b-gcc-@1.0\0", path));
        assert!(!names(
            b"qemu\0-name\0guest=/m/v/a,,b/a,,b-gcc-@1.1\0",
            path
        ));
        assert!(!names(b"vim\0a,b-gcc-@1.0\0", path));
        assert!(!names(b"", path));
    }

    #[test]
    fn only_scratch_places_of_the_toolchain_count() {
        assert!(is_scratch(Path::new("/m/v/a-b/a-b-gcc-@1.0"), "gcc"));
        assert!(!is_scratch(Path::new("/m/v/a-b/a-b-gcc-x-@1.0"), "gcc"));
        assert!(!is_scratch(Path::new("/m/v/a-b/a-b-gcc"), "gcc"));
        assert!(!is_scratch(Path::new("/"), "gcc"));
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent("12 (a) S) b) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12 (a"), None);
    }
}
