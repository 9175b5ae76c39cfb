//! The system, and the directories of the agent.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::utsname::uname;
use nix::unistd::{AccessFlags, access, gethostname};

use super::Finding;
use crate::cli::Options;
use crate::error::{reason, word};
use crate::evidence::date;
use crate::lock;
use crate::watch::{Watch, moment};

/// The remedy for a missing permission.
pub(super) const AS_ROOT: &str = "run as root: sudo bbot-agent --check";

/// Capabilities that a turn needs (capabilities(7)), with their numbers.
const CAPABILITIES: &[(u32, &str)] = &[(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// The earliest plausible time: 2025-01-01.
const EARLIEST: u64 = 1_735_689_600;
/// The first time that is not plausible: 2100-01-01.
const LATEST: u64 = 4_102_444_800;

/// Kernel, permissions, name and clock.
pub(super) fn system(options: &Options, _watch: &Watch) -> Vec<Finding> {
    vec![kernel(), permissions(), name(options), clock()]
}

fn kernel() -> Finding {
    match uname() {
        Ok(names) => {
            let part = |part: &std::ffi::OsStr| part.display().to_string();
            let (system, release) = (part(names.sysname()), part(names.release()));
            Finding::good(
                "kernel",
                format!("{system} {release} {}", part(names.machine())),
            )
        }
        Err(errno) => Finding::failure("kernel", errno.desc()),
    }
}

/// The effective capabilities (proc(5), `CapEff`).
pub(super) fn capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn permissions() -> Finding {
    const SUBJECT: &str = "permissions";
    let Some(held) = capabilities() else {
        return Finding::warning(SUBJECT, "unable to read /proc/self/status")
            .remedy("mount it: mount -t proc proc /proc");
    };
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(number, _)| held & (1 << number) == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Finding::good(SUBJECT, "taps, rules and subvolumes are permitted");
    }
    Finding::failure(SUBJECT, format!("without {}", missing.join(" and "))).remedy(AS_ROOT)
}

fn name(options: &Options) -> Finding {
    const SUBJECT: &str = "agent name";
    let name = match &options.agent_name {
        Some(name) => name.clone(),
        None => match gethostname() {
            Ok(name) => name.display().to_string(),
            Err(errno) => {
                return Finding::failure(SUBJECT, errno.desc())
                    .remedy("name it: --agent-name <name>");
            }
        },
    };
    match name.as_str() {
        "" | "localhost" | "(none)" => {
            Finding::warning(SUBJECT, format!("'{name}' does not identify this host"))
                .remedy("name the host: echo <name> >/etc/hostname && hostname -F /etc/hostname")
                .remedy("or the agent: --agent-name <name>")
        }
        _ => Finding::good(SUBJECT, name),
    }
}

fn clock() -> Finding {
    const SUBJECT: &str = "clock";
    let now = moment().wall;
    let text = date(now);
    if (EARLIEST..LATEST).contains(&now.as_secs()) {
        return Finding::good(SUBJECT, text);
    }
    Finding::warning(SUBJECT, format!("{text}: certificates will be out of date"))
        .remedy("set it: date -s '<year>-<month>-<day> <hour>:<minute>'")
}

/// `--run-dir`, `--state`, `--metrics`.
pub(super) fn directories(options: &Options, _watch: &Watch) -> Vec<Finding> {
    let mut findings = vec![
        directory("run directory", &options.run_dir, "--run-dir <dir>"),
        directory("state directory", &options.state, "--state <dir>"),
    ];
    if let Some(file) = &options.metrics {
        let parent = file.parent().filter(|dir| *dir != Path::new(""));
        let parent = parent.unwrap_or(Path::new("."));
        let kind = fs::symlink_metadata(file).map(|metadata| metadata.is_file());
        findings.push(match (kind, parent.is_dir()) {
            (Ok(false), _) => {
                let text = format!("{} is not a regular file", file.display());
                Finding::failure("metrics", text).remedy("name another: --metrics <file>")
            }
            (_, true) => directory("metrics", parent, "--metrics <file>"),
            (_, false) => Finding::failure("metrics", format!("no directory {}", parent.display()))
                .remedy(format!("make it: mkdir -p {}", word(parent))),
        });
    }
    let dir = lock::directory(&options.run_dir, &options.toolchain_name, options.instance);
    if let Some(pid) = lock::holder(&dir) {
        let text = format!("held by a running agent, process {pid}");
        findings.push(Finding::good("lock", text));
    }
    findings
}

/// Examines a directory that exists and can be written, or can be made.
fn directory(subject: &str, path: &Path, option: &str) -> Finding {
    let mut there = path;
    while !there.exists() {
        match there.parent() {
            Some(parent) if parent != Path::new("") => there = parent,
            _ => there = Path::new("."),
        }
    }
    let writable = access(there, AccessFlags::W_OK | AccessFlags::X_OK);
    match writable {
        _ if !there.is_dir() => {
            Finding::failure(subject, format!("{} is not a directory", there.display()))
                .remedy(format!("name another: {option}"))
        }
        Err(errno) => {
            unwritable(subject, there, errno).remedy(format!("or name another: {option}"))
        }
        Ok(()) if there == path => Finding::good(subject, path.display().to_string()),
        Ok(()) => match try_create(there) {
            Ok(()) => Finding::good(subject, format!("{}, to be made", path.display())),
            Err(error) => {
                let why = reason(&error);
                let text = format!("unable to create a directory in {}: {why}", there.display());
                Finding::failure(subject, text).remedy(format!("name another: {option}"))
            }
        },
    }
}

/// Creates a directory in `parent`, and removes it.
fn try_create(parent: &Path) -> io::Result<()> {
    let path = parent.join(format!(".bbot-agent-check-{}", std::process::id()));
    fs::create_dir(&path)?;
    fs::remove_dir(&path)
}

/// The finding about a directory that cannot be written for the reason `errno`.
pub(super) fn unwritable(subject: &str, path: &Path, errno: Errno) -> Finding {
    let text = format!("unable to write {}: {}", path.display(), errno.desc());
    let operand = word(path);
    Finding::failure(subject, text).remedy(match errno {
        Errno::ENOENT => format!("make it: mkdir -p {operand}"),
        Errno::EROFS => format!(
            "mount it for writing: mount -o remount,rw \"$(findmnt -no TARGET -T {operand})\""
        ),
        _ => AS_ROOT.to_owned(),
    })
}
