//! The accelerator of guests: KVM, or QEMU's emulation.
//!
//! On some hosts (often virtual machines themselves) `/dev/kvm` opens, and guests
//! abort or hang in their first second. KVM is usable only if a guest has run: one of a
//! few instructions ([`ProbeGuest`]), which takes a fifth of a second where KVM works.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::capture::Tail;
use crate::error::{Class, Context as _, Error, Result};
use crate::platform::{Architecture, ProbeGuest};
use crate::settings::AccelChoice;
use crate::sys::poll::{Wait, Waited};
use crate::sys::process::{Credentials, Process};

/// An accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The host's processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator; some ten times slower, and available everywhere.
    Tcg,
}

impl Accel {
    /// QEMU's `-cpu`. `host` exists with KVM only.
    pub fn processor(self, architecture: Architecture) -> &'static str {
        match self {
            Accel::Kvm => "host",
            Accel::Tcg => architecture.emulated_processor(),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        })
    }
}

/// The result of trying an accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// A guest ran.
    Usable,
    /// None did, for this reason.
    Unusable(String),
}

/// The accelerator to use, and why not KVM if [`AccelChoice::Auto`] decided so.
/// The probe of KVM ends at `deadline`; 10 s suffice.
pub fn resolve(
    choice: AccelChoice,
    qemu: &Path,
    user: Option<&Credentials>,
    deadline: Instant,
    wait: &mut Wait<'_>,
) -> Result<(Accel, Option<String>)> {
    if choice == AccelChoice::Tcg {
        return Ok((Accel::Tcg, None));
    }
    match (probe(Accel::Kvm, qemu, user, deadline, wait)?, choice) {
        (ProbeResult::Usable, _) => Ok((Accel::Kvm, None)),
        (ProbeResult::Unusable(why), AccelChoice::Auto) => Ok((Accel::Tcg, Some(why))),
        (ProbeResult::Unusable(why), _) => {
            Err(Error::new(format!("kvm is not usable here: {why}"))
                .with_class(Class::Config)
                .hint("use --accel tcg to emulate, some ten times slower, or --accel auto"))
        }
    }
}

/// Runs a guest's first instructions under `accel`, as `user`.
pub fn probe(
    accel: Accel,
    qemu: &Path,
    user: Option<&Credentials>,
    deadline: Instant,
    wait: &mut Wait<'_>,
) -> Result<ProbeResult> {
    let architecture = Architecture::of_qemu(qemu);
    if accel == Accel::Kvm && architecture != Architecture::HOST {
        let (host, guest) = (Architecture::HOST.name(), architecture.name());
        let why = format!(
            "this host is {host}, and guests of {} are {guest}",
            qemu.display()
        );
        return Ok(ProbeResult::Unusable(why));
    }
    if accel == Accel::Kvm
        && let Err(error) = open_kvm()
        && (user.is_none() || error.kind() == io::ErrorKind::NotFound)
    {
        let reason = crate::error::reason(&error);
        return Ok(ProbeResult::Unusable(format!(
            "unable to open {DEVICE}: {reason}"
        )));
    }
    let guest = architecture.probe();
    let image = image(&guest.image()).context(|| "unable to make the image of the probe")?;
    let file = format!("/proc/self/fd/{}", image.as_raw_fd());
    let options = guest.options.iter();
    let mut command = Command::new(qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-m", "64", "-display", "none"])
        .args(["-accel", &accel.to_string()])
        .args(["-cpu", accel.processor(architecture)])
        .args(options.map(|option| option.replace(ProbeGuest::IMAGE, &file)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    crate::trace!(4, "probe", "trying a guest under {accel}");
    let user = user.map(|user| credentials(user, accel));
    let started = Process::spawn(command, &[image.as_fd()], user.as_ref());
    let mut process = super::program::executed(started, qemu)?;
    // QEMU ends or, where KVM fails in the guest, reports it and suspends the guest.
    let mut stderr = process
        .take_stderr()
        .ok_or_else(|| Error::new("no pipe for the messages of qemu"))?;
    let mut wait = |fds: &[BorrowedFd<'_>]| match wait(fds, deadline) {
        Ok(Waited::Stopped) => Err(Error::new("stopped by a signal")),
        waited => waited.context(|| "unable to wait for qemu"),
    };
    wait(&[stderr.as_fd(), process.as_fd()])?;
    let message = first_message(&mut stderr).context(|| "unable to read the messages of qemu")?;
    let message = message.unwrap_or_default();
    if message.starts_with(KVM_FAILED) {
        return Ok(ProbeResult::Unusable(message));
    }
    wait(&[process.as_fd()])?;
    let ended = process.try_wait();
    Ok(match ended.context(|| "unable to wait for qemu")? {
        Some(status) if status.code() == Some(guest.exit_status) => ProbeResult::Usable,
        Some(status) if message.is_empty() => {
            ProbeResult::Unusable(format!("qemu ended with {status}"))
        }
        Some(status) => ProbeResult::Unusable(format!("qemu ended with {status}: {message}")),
        None => ProbeResult::Unusable("a guest hangs in its first instructions".to_owned()),
    })
}

/// The start of QEMU's message about an instruction that KVM cannot execute.
const KVM_FAILED: &str = "KVM internal error";

/// The first line of what QEMU has written.
fn first_message(stderr: &mut ChildStderr) -> io::Result<Option<String>> {
    fcntl(&*stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut bytes = [0; 4096];
    let count = match stderr.read(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        read => read?,
    };
    let mut tail = Tail::new(bytes.len());
    tail.push(&bytes[..count]);
    Ok(tail.lines(usize::MAX).into_iter().next())
}

const DEVICE: &str = "/dev/kvm";

/// `user` with the group that may use KVM (Debian: `kvm`), if a group may and
/// `accel` needs it.
pub(super) fn credentials(user: &Credentials, accel: Accel) -> Credentials {
    const GROUP_MAY: u32 = 0o060;
    let mut user = user.clone();
    if accel == Accel::Kvm
        && let Ok(device) = fs::metadata(DEVICE)
        && device.mode() & GROUP_MAY == GROUP_MAY
    {
        user.groups.push(device.gid());
    }
    user
}

fn open_kvm() -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(DEVICE)?;
    Ok(())
}

/// A file in memory.
fn image(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SeaBIOS boots from no smaller disk.
    const SIZE: u64 = 1 << 20;
    let fd = memfd_create(c"probe", MFdFlags::MFD_CLOEXEC)?;
    let mut file = fs::File::from(fd);
    file.write_all(bytes)?;
    file.set_len(SIZE)?;
    Ok(file.into())
}

/// Model, microcode and features of the first processor (proc(5), `cpuinfo`).
pub fn host_processor() -> Result<String> {
    let all = fs::read_to_string("/proc/cpuinfo").context(|| "unable to read /proc/cpuinfo")?;
    Ok(identity(&all, Architecture::HOST))
}

fn identity(all: &str, architecture: Architecture) -> String {
    let first = all.split("\n\n").next().unwrap_or_default();
    let parts = architecture.processor_identity();
    let wanted = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        parts.contains(&name.trim_end())
    };
    let lines: Vec<&str> = first.lines().filter(wanted).collect();
    lines.join("; ").replace('\t', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_asks_for_no_probe() {
        let nowhere = Path::new("/nonexistent/qemu");
        let chosen = resolve(
            AccelChoice::Tcg,
            nowhere,
            None,
            Instant::now(),
            &mut |_, _| Ok(Waited::Deadline),
        )
        .unwrap();
        assert_eq!(chosen, (Accel::Tcg, None));
    }

    #[test]
    fn the_processor_is_known() {
        let x86_64 = "processor\t: 0\nmodel name\t: A 1\ncpu MHz\t: 2\n\nmodel name\t: B\n";
        assert_eq!(identity(x86_64, Architecture::X86_64), "model name: A 1");
        let aarch64 = "processor\t: 0\nBogoMIPS\t: 2\nCPU part\t: 0xd0c\n\n";
        assert_eq!(identity(aarch64, Architecture::Aarch64), "CPU part: 0xd0c");
    }
}
