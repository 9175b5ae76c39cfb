//! The start of a machine: sockets, the process, the first commands on the monitor.

use std::fs::{self, DirBuilder, DirEntry, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::capture::{Capture, Log};
use super::memory::{self, Memory};
use super::monitor::{Monitor, Said};
use super::program::executed;
use super::qemu::{self, Descriptors, Spec};
use super::script;
use super::tpm::{TPM_STATE, Tpm};
use super::{CONSOLE_LOG, EVIDENCE_LINES, Files, VirtualMachine, accel};
use crate::cgroup::GuestCgroup;
use crate::error::{Class, Context as _, Error, Result};
use crate::interactive::{VncAddress, vnc_path};
use crate::json::Value;
use crate::sys::file::open_directory;
use crate::sys::poll::{Wait, Waited};
use crate::sys::process::{Credentials, Process};
use crate::sys::unix;

/// The reason of an error of a host that is too slow.
pub(super) const NOT_READY: &str = "qemu was not ready in time";

/// The size of the console's tail in memory, in bytes.
const CONSOLE_TAIL: usize = 64 * 1024;

/// The maximum size of the console on disk, in bytes.
const MAX_CONSOLE_LOG: u64 = 4 * 1024 * 1024;

/// The size of the tail of QEMU's messages, in bytes.
const STDERR_TAIL: usize = 16 * 1024;

impl VirtualMachine {
    /// Starts QEMU with its network on `tap` and returns when the guest runs,
    /// by `deadline` at the latest. `None`: `wait` was stopped, and QEMU has ended.
    ///
    /// The calling thread must live as long as the machine, see
    /// [`Process::spawn`].
    ///
    /// # Errors
    ///
    /// With QEMU's own words when it ends at once, which takes a fraction of a
    /// second; when there is no such program; when a file or socket cannot be
    /// made in the run directory; when QEMU is not ready in time (of class
    /// [`Class::Os`]).
    pub fn start(
        spec: &Spec,
        tap: BorrowedFd<'_>,
        deadline: Instant,
        wait: &mut Wait<'_>,
    ) -> Result<Option<VirtualMachine>> {
        launch(spec, tap)
            .and_then(|mut machine| {
                let runs = converse(&mut machine, spec, deadline, wait)?;
                crate::trace!(4, "start_machine", "the guest runs: {runs}");
                Ok(runs.then_some(machine))
            })
            .context(|| format!("unable to start machine {}", spec.label))
    }
}

fn launch(spec: &Spec, tap: BorrowedFd<'_>) -> Result<VirtualMachine> {
    // exec(3) would report a missing directory as a missing program.
    fs::metadata(&spec.directory)
        .context(|| format!("unable to enter {}", spec.directory.display()))?;
    // They go with an error, too.
    let mut files = Files {
        vnc_directory: -1,
        vnc: vnc_path(&spec.run_dir),
        operator: spec.run_dir.join("qmp"),
        console: spec.run_dir.join(CONSOLE_LOG),
        script: spec.run_dir.join(script::NAME),
    };
    let vnc_directory = prepare_directory(&files.vnc, spec.user.as_ref())?;
    files.vnc_directory = vnc_directory.as_raw_fd();
    let state = spec.memory.prepare(&spec.directory, spec.ram_kb)?;
    if let Some(firmware) = &spec.firmware {
        firmware.prepare(&spec.directory)?;
    }
    if let Some(user) = &spec.user {
        hand_over(&spec.directory, user)?;
    }
    let operator = unix::listen(&files.operator)
        .context(|| format!("unable to make socket {}", files.operator.display()))?;
    let (monitor, monitor_theirs) = pair()?;
    let (console, console_theirs) = pair()?;
    let agent = spec.memory.is_warm().then(pair).transpose()?;
    let (agent, agent_theirs) = agent.unzip();
    // Options can give the guest other memory, which then has no limit.
    let is_own_memory = spec.options.iter().flatten().any(|word| word == "-m");
    let ram_kb = if is_own_memory { u64::MAX } else { spec.ram_kb };
    let cgroups = spec.cgroups.as_ref();
    let cgroup = cgroups.map(|cgroups| cgroups.create(ram_kb, spec.cpus));
    let cgroup = cgroup.transpose()?;
    // QEMU and swtpm write to it.
    let (stderr, messages) = io::pipe().context(|| "unable to make a pipe")?;
    let (tpm, tpm_theirs) = match spec.tpm {
        None => (None, None),
        Some(_) => {
            let messages = messages
                .try_clone()
                .context(|| "unable to duplicate a pipe")?;
            let (tpm, theirs) = Tpm::start(spec, cgroup.as_ref(), messages.into())?;
            (Some(tpm), Some(theirs))
        }
    };
    let log = Log::create(&files.console, MAX_CONSOLE_LOG)
        .context(|| format!("unable to create {}", files.console.display()))?;

    let fds = Descriptors {
        tap: tap.as_raw_fd(),
        monitor: monitor_theirs.as_raw_fd(),
        operator: operator.as_raw_fd(),
        console: console_theirs.as_raw_fd(),
        vnc_directory: vnc_directory.as_raw_fd(),
        agent: agent_theirs.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        tpm: tpm_theirs.as_ref().map_or(-1, AsRawFd::as_raw_fd),
    };
    let argv = qemu::argv(spec, &fds);
    crate::trace!(2, "start_machine", "{}", script::quoted(&spec.qemu, &argv));
    script::write(&files.script, spec)
        .context(|| format!("unable to write {}", files.script.display()))?;
    crate::trace!(2, "start_machine", "by hand: sh {}", files.script.display());
    let mut command = Command::new(&spec.qemu);
    command
        .args(&argv)
        .current_dir(&spec.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages);
    if let Some(cgroup) = &cgroup {
        cgroup.admit(&mut command)?;
    }
    let mut keep = vec![
        tap,
        monitor_theirs.as_fd(),
        operator.as_fd(),
        console_theirs.as_fd(),
        vnc_directory.as_fd(),
    ];
    let others = agent_theirs.iter().chain(&tpm_theirs);
    keep.extend(others.map(UnixStream::as_fd));
    let user = spec.user.as_ref();
    let user = user.map(|user| accel::credentials(user, spec.accel));
    let process = executed(
        Process::spawn_family(command, &keep, user.as_ref()),
        &spec.qemu,
    )?;
    let stderr = OwnedFd::from(stderr);
    fcntl(&stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .context(|| "unable to read the messages of qemu")?;
    Ok(VirtualMachine {
        label: spec.label.clone(),
        cpus: spec.cpus,
        process,
        tpm,
        cgroup,
        monitor: Monitor::new(monitor),
        console: Capture::new(console, CONSOLE_TAIL, Some(log)),
        stderr: Capture::new(stderr, STDERR_TAIL, None),
        queue: std::collections::VecDeque::new(),
        power_down: None,
        suspended: true,
        is_status_due: false,
        shutdown: None,
        exited: None,
        stuck: false,
        disk_bytes: 0,
        inspection: None,
        state,
        agent,
        has_agent: false,
        version: String::new(),
        files,
    })
}

/// Reads the greeting, negotiates capabilities, and starts the guest. Returns whether
/// it runs; if not, `wait` was stopped.
fn converse(
    machine: &mut VirtualMachine,
    spec: &Spec,
    deadline: Instant,
    wait: &mut Wait<'_>,
) -> Result<bool> {
    let password = spec.display.as_ref().map(VncAddress::read_password);
    let password = password.transpose()?.flatten();
    let mut runs = false;
    loop {
        // First, so that all that QEMU wrote before its end is read below.
        let exited = machine.process.try_wait();
        let exited = exited.context(|| "unable to wait for qemu")?;
        machine.stderr.read();
        for said in machine.monitor.read() {
            match said {
                // Messages that follow the last answer.
                said if runs => machine.hear(said),
                Said::Greeting(version) => {
                    crate::trace!(4, "start_machine", "qemu {version}, pid {}", machine.pid());
                    machine.version = version;
                    machine.monitor.send("qmp_capabilities", deadline);
                    if let Some(password) = &password {
                        let protocol = ("protocol", Value::from("vnc"));
                        let given =
                            Value::object([protocol, ("password", password.as_str().into())]);
                        let monitor = &mut machine.monitor;
                        monitor.send_with("set_password", Some(given), deadline);
                    }
                }
                Said::Done("qmp_capabilities", _)
                    if matches!(spec.memory, Memory::Restored { .. } | Memory::Loaded { .. }) =>
                {
                    let with_memory = matches!(spec.memory, Memory::Loaded { .. });
                    machine.load(with_memory, deadline)?;
                }
                Said::Done("qmp_capabilities", _) => machine.monitor.send("cont", deadline),
                Said::Done("cont", _) => {
                    machine.suspended = false;
                    runs = true;
                }
                Said::Done(..) => {}
                // QEMU ends if it fails.
                Said::Event(name, data) if memory::migrated(&name, &data) == Some(true) => {
                    machine.monitor.send("cont", deadline);
                }
                Said::Refused(command, reason) => {
                    return Err(failed(
                        machine,
                        &format!("qemu refuses {command}: {reason}"),
                    ));
                }
                // The next pass finds out how QEMU ended.
                Said::Lost(super::monitor::CLOSED) => {}
                Said::Lost(why) => return Err(failed(machine, &format!("qemu's monitor: {why}"))),
                // The effect of `cont`.
                Said::Event(name, _) if name == "RESUME" => {}
                said @ Said::Event(..) => machine.hear(said),
            }
        }
        if runs {
            return Ok(true);
        }
        if let Some(status) = exited {
            machine.exited = Some(status);
            while machine.stderr.read() {}
            let killed = machine.cgroup.as_ref();
            let why = match killed.and_then(GuestCgroup::out_of_memory) {
                Some(cause) => cause.to_string(),
                None => format!("qemu ended at once, {status}"),
            };
            return Err(failed(machine, &why));
        }
        match wait(&machine.fds(), deadline).context(|| "unable to wait for qemu")? {
            Waited::Readable => {}
            Waited::Stopped => return Ok(false),
            Waited::Deadline => {
                let error = failed(machine, NOT_READY);
                return Err(error.with_class(Class::Os));
            }
        }
    }
}

/// The error with QEMU's messages: the last one, which is mostly the reason, in the
/// line, and the others below.
fn failed(machine: &VirtualMachine, what: &str) -> Error {
    let lines = machine.stderr.tail().lines(EVIDENCE_LINES);
    let Some((last, others)) = lines.split_last() else {
        return Error::new(what);
    };
    let error = Error::new(format!("{what}: {last}"));
    others
        .iter()
        .fold(error, |error, line| error.hint(format!("qemu: {line}")))
}

/// The directory for QEMU's own socket: empty, and its user's.
pub(super) fn prepare_directory(vnc: &Path, user: Option<&Credentials>) -> Result<File> {
    let directory = vnc.parent().unwrap_or(vnc);
    let made = match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.context(|| format!("unable to create directory {}", directory.display()))?;
    // Left by a QEMU that was killed.
    let _ = fs::remove_file(vnc);
    if let Some(user) = user {
        chown(directory, Some(user.uid), Some(user.gid))
            .context(|| format!("unable to give {} to qemu's user", directory.display()))?;
    }
    open_directory(directory).context(|| format!("unable to open {}", directory.display()))
}

/// Lets another user work on the machine's images. The directory stays the
/// agent's: an attacker inside QEMU can write to the images, and neither to the
/// manifest nor to files that the agent adds.
pub(super) fn hand_over(directory: &Path, user: &Credentials) -> Result<()> {
    let give_file = |file: &DirEntry| -> io::Result<()> {
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.uid() != user.uid {
            lchown(file.path(), Some(user.uid), Some(user.gid))?;
        }
        Ok(())
    };
    let give = || -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let is_tpm = entry.file_name() == TPM_STATE && entry.metadata()?.is_dir();
            if is_tpm {
                for file in fs::read_dir(entry.path())? {
                    give_file(&file?)?;
                }
                lchown(entry.path(), Some(user.uid), Some(user.gid))?;
            } else if entry.file_name() != "manifest" {
                give_file(&entry)?;
            }
        }
        let mut permissions = fs::metadata(directory)?.permissions();
        if permissions.mode() & 0o001 == 0 {
            permissions.set_mode(permissions.mode() & 0o7777 | 0o001);
            fs::set_permissions(directory, permissions)?;
        }
        Ok(())
    };
    give().context(|| {
        format!(
            "unable to give the images in {} to qemu's user",
            directory.display()
        )
    })
}

/// The agent's end, non-blocking, and QEMU's.
fn pair() -> Result<(OwnedFd, UnixStream)> {
    let make = || -> io::Result<(OwnedFd, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((ours.into(), theirs))
    };
    make().context(|| "unable to make a socket pair")
}
