//! A machine whose console, and a monitor of QEMU, are on the terminal of the agent.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitStatus};

use super::accel;
use super::program::executed;
use super::qemu::{self, Spec};
use super::script;
use super::start::{hand_over, prepare_directory};
use super::tpm::Tpm;
use crate::error::{Context as _, Error, Result};
use crate::interactive::vnc_path;
use crate::sys::process::Process;
use crate::sys::terminal::SavedTerminal;
use crate::sys::tree::remove_tree;

/// Runs QEMU with its network on `tap`, and with standard input, output and error of this
/// process, until it ends. `wait` waits until the descriptor is readable, and returns false
/// if the operator wants the end: QEMU is killed then.
///
/// # Errors
///
/// When QEMU cannot be started, or reports a failure.
pub fn run(
    spec: &Spec,
    tap: BorrowedFd<'_>,
    wait: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<bool>,
) -> Result<()> {
    let vnc = vnc_path(&spec.run_dir);
    let ended = run_in(spec, &vnc, tap, wait);
    if let Some(directory) = vnc.parent() {
        // QEMU's user can write to it, and may have made more than the socket.
        let _ = remove_tree(directory);
    }
    ended
}

fn run_in(
    spec: &Spec,
    vnc: &Path,
    tap: BorrowedFd<'_>,
    wait: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<bool>,
) -> Result<()> {
    let unable = || format!("unable to start machine {}", spec.label);
    fs::metadata(&spec.directory)
        .context(|| format!("unable to enter {}", spec.directory.display()))?;
    let vnc_directory = prepare_directory(vnc, spec.user.as_ref())?;
    if let Some(firmware) = &spec.firmware {
        firmware.prepare(&spec.directory)?;
    }
    if let Some(user) = &spec.user {
        hand_over(&spec.directory, user)?;
    }
    let start_tpm = || {
        let messages = io::stderr().as_fd().try_clone_to_owned();
        let messages = messages.context(|| "unable to duplicate standard error")?;
        Tpm::start(spec, None, messages)
    };
    // Dropped after QEMU has ended: QEMU has its state stored first.
    let (_tpm, tpm_theirs) = spec.tpm.map(|_| start_tpm()).transpose()?.unzip();
    let argv = qemu::argv_on_terminal(
        spec,
        tap.as_raw_fd(),
        vnc_directory.as_raw_fd(),
        tpm_theirs.as_ref().map_or(-1, AsRawFd::as_raw_fd),
    );
    crate::trace!(2, "run", "{}", script::quoted(&spec.qemu, &argv));
    let mut command = Command::new(&spec.qemu);
    command.args(&argv).current_dir(&spec.directory);
    let user = spec.user.as_ref();
    let user = user.map(|user| accel::credentials(user, spec.accel));
    let mut keep = vec![tap, vnc_directory.as_fd()];
    keep.extend(tpm_theirs.iter().map(UnixStream::as_fd));
    let stdin = io::stdin();
    // Dropped after QEMU has ended, which may leave settings of its own.
    let _saved = SavedTerminal::of(stdin.as_fd());
    let started = Process::spawn_family(command, &keep, user.as_ref());
    let mut process = executed(started, &spec.qemu).context(unable)?;
    let awaited = || "unable to wait for qemu";
    while wait(process.as_fd()).context(awaited)? {
        if let Some(status) = process.try_wait().context(awaited)? {
            return ended(status);
        }
    }
    Ok(())
}

fn ended(status: ExitStatus) -> Result<()> {
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(format!("qemu ended, {status}"))),
    }
}
