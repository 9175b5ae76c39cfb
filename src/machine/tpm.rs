//! A TPM 2.0: swtpm(8), a process beside QEMU, with its state in the machine's subvolume. A
//! build changes the state of a throw-away snapshot, a bootstrap that of the copy.
//!
//! QEMU and swtpm talk over a socket pair. QEMU has the state stored when it ends, and swtpm
//! ends when nobody has the other end of the pair, so that it never outlives QEMU.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::devices::words;
use super::{Spec, program};
use crate::cgroup::GuestCgroup;
use crate::error::{Class, Context as _, Error, Result, word};
use crate::manifest::MachineManifest;
use crate::platform::Architecture;
use crate::sys::poll::readable_within;
use crate::sys::process::Process;

/// The directory of the state. A machine with it, even empty, has a TPM.
pub(super) const TPM_STATE: &str = "tpm";

const PROGRAM: &str = "swtpm";

/// The time for swtpm to end after QEMU, before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The socket of a machine that is started by hand.
pub(super) const SOCKET: &str = "tpm.sock";

/// QEMU's device for the TPM of the machine in `subvolume`; `None` without a TPM.
///
/// # Errors
///
/// If this host has no swtpm.
pub fn of(
    machine: &MachineManifest,
    subvolume: &Path,
    qemu: &Path,
) -> Result<Option<&'static str>> {
    let state = subvolume.join(TPM_STATE);
    let unable = || format!("unable to use machine {}", machine.name());
    match fs::symlink_metadata(&state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if !metadata.is_dir() => {
            let operand = word(&state);
            let error = Error::new(format!("not a directory: {}", state.display()))
                .hint(format!("make it one: rm {operand} && mkdir {operand}"));
            return Err(error).context(unable);
        }
        metadata => metadata.context(|| format!("unable to examine {}", state.display()))?,
    };
    if program::find(Path::new(PROGRAM)).is_none() {
        let text = format!("no program {PROGRAM} for its TPM ({})", state.display());
        let error = Error::new(text).with_class(Class::Config);
        return Err(error.hint("install it: apt-get install --no-install-recommends swtpm"))
            .context(unable);
    }
    let options = machine.options();
    let architecture = Architecture::of(machine.name(), options.as_deref(), qemu);
    Ok(Some(architecture.tpm_device()))
}

/// The options for a TPM at the character device `address`.
pub(super) fn argv(device: &str, address: &str) -> Vec<OsString> {
    words([
        "-chardev",
        &format!("socket,id=tpm,{address}"),
        "-tpmdev",
        "emulator,id=tpm0,chardev=tpm",
        "-device",
        &format!("{device},tpmdev=tpm0"),
    ])
}

/// The command line of swtpm for the machine in its working directory, with the control
/// channel at `address`.
pub(super) fn command_line(address: &str) -> Vec<OsString> {
    words([
        PROGRAM,
        "socket",
        "--tpm2",
        "--tpmstate",
        &format!("dir={TPM_STATE}"),
        "--ctrl",
        &format!("type=unixio,{address}"),
        "--terminate",
    ])
}

/// A process of swtpm, which ends with this value.
#[derive(Debug)]
pub(super) struct Tpm(Process);

impl Tpm {
    /// Starts swtpm for a machine, in its `cgroup`, with its messages to `messages`. Returns
    /// also QEMU's end of the connection.
    pub(super) fn start(
        spec: &Spec,
        cgroup: Option<&GuestCgroup>,
        messages: OwnedFd,
    ) -> Result<(Tpm, UnixStream)> {
        let (theirs, qemus) = UnixStream::pair().context(|| "unable to make a socket pair")?;
        let line = command_line(&format!("clientfd={}", theirs.as_raw_fd()));
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .current_dir(&spec.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(messages);
        if let Some(cgroup) = cgroup {
            cgroup.admit(&mut command)?;
        }
        let process = Process::spawn(command, &[theirs.as_fd()], spec.user.as_ref())
            .context(|| format!("unable to execute {PROGRAM}"))?;
        Ok((Tpm(process), qemus))
    }

    /// The pid.
    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = readable_within(self.0.as_fd(), END_TIMEOUT);
    }
}
