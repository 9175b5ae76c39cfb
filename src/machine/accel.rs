//! The accelerator of guests: KVM, or QEMU's emulation.
//!
//! On some hosts (often virtual machines themselves) `/dev/kvm` opens, and guests
//! abort or hang in their first second. KVM is usable only if a guest has run: a boot sector that asks
//! the BIOS for its disk, returns from an interrupt in protected mode, enters long
//! mode and ends QEMU (`probe.S`). That takes a fifth of a second where it works.

use std::fmt;
use std::fs::OpenOptions;
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
    /// QEMU's `-cpu`. `host` exists with KVM only. `max` has every feature of the
    /// emulation, and was measured to be faster than QEMU's default.
    #[must_use]
    pub fn processor(self) -> &'static str {
        match self {
            Accel::Kvm => "host",
            Accel::Tcg => "max",
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
///
/// # Errors
///
/// With [`AccelChoice::Kvm`], if KVM is not usable; if there is no such `qemu`; if `wait` was stopped.
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
///
/// # Errors
///
/// If there is no such `qemu` or it cannot be started at all; if `wait` was stopped.
pub fn probe(
    accel: Accel,
    qemu: &Path,
    user: Option<&Credentials>,
    deadline: Instant,
    wait: &mut Wait<'_>,
) -> Result<ProbeResult> {
    if accel == Accel::Kvm
        && let Err(error) = open_kvm()
        && (user.is_none() || error.kind() == io::ErrorKind::NotFound)
    {
        let reason = crate::error::reason(&error);
        return Ok(ProbeResult::Unusable(format!(
            "unable to open {DEVICE}: {reason}"
        )));
    }
    let disk = boot_sector().context(|| "unable to make the disk of the probe")?;
    let mut command = Command::new(qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-machine", "q35", "-m", "64", "-display", "none"])
        .args(["-accel", &accel.to_string(), "-cpu", accel.processor()])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .arg("-drive")
        .arg(format!(
            "if=none,id=d,format=raw,readonly=on,file=/proc/self/fd/{}",
            disk.as_raw_fd()
        ))
        .args(["-device", "virtio-blk-pci,drive=d,bootindex=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    crate::trace!(4, "probe", "trying a guest under {accel}");
    let user = user.map(|user| credentials(user, accel));
    let started = Process::spawn(command, &[disk.as_fd()], user.as_ref());
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
        Some(status) if status.code() == Some(PROBE_EXIT_STATUS) => ProbeResult::Usable,
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
        && let Ok(device) = std::fs::metadata(DEVICE)
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

/// A disk in memory with the boot sector. SeaBIOS boots from no smaller one.
fn boot_sector() -> io::Result<OwnedFd> {
    const SECTOR: usize = 512;
    let fd = memfd_create(c"probe", MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    let mut sector = CODE.to_vec();
    sector.resize(SECTOR - 2, 0);
    // The signature of a boot record.
    sector.extend([0x55, 0xaa]);
    file.write_all(&sector)?;
    file.set_len(1 << 20)?;
    Ok(file.into())
}

/// QEMU's exit status when the boot sector reached its end.
const PROBE_EXIT_STATUS: i32 = 0x15 * 2 + 1;

/// `probe.S`, assembled for address 0x7c00.
#[rustfmt::skip]
const CODE: [u8; 206] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xea, 0x11,
    0x7c, 0x00, 0x00, 0xb4, 0x41, 0xbb, 0xaa, 0x55, 0xb2, 0x80, 0xcd, 0x13, 0xfa, 0xbf,
    0x00, 0x10, 0x66, 0x31, 0xc0, 0xb9, 0x00, 0x0c, 0xfc, 0x66, 0xf3, 0xab, 0x66, 0xc7,
    0x06, 0x00, 0x10, 0x03, 0x20, 0x00, 0x00, 0x66, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30,
    0x00, 0x00, 0x66, 0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, 0x00, 0x00, 0x0f, 0x01, 0x16,
    0xc8, 0x7c, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0xea, 0x55, 0x7c, 0x08,
    0x00, 0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x00, 0x00,
    0x9c, 0x6a, 0x08, 0x68, 0x6b, 0x7c, 0x00, 0x00, 0xcf, 0x31, 0xc0, 0x0f, 0xa2, 0x0f,
    0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f,
    0x22, 0xd8, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00,
    0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0xea,
    0xa0, 0x7c, 0x00, 0x00, 0x18, 0x00, 0xb0, 0x15, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x90,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a,
    0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00,
    0x00, 0x9a, 0xaf, 0x00, 0x1f, 0x00, 0xa8, 0x7c, 0x00, 0x00,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_source() {
        let dir = std::env::temp_dir().join(format!("probe-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine/probe.S");
        let run = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command
                .current_dir(&dir)
                .args(args)
                .status()
                .is_ok_and(|s| s.success())
        };
        let assembled = run("as", &["--64", "-o", "p.o", source.to_str().unwrap()])
            && run(
                "ld",
                &["-Ttext=0x7c00", "--oformat", "binary", "-o", "p", "p.o"],
            );
        if assembled {
            assert_eq!(std::fs::read(dir.join("p")).unwrap(), CODE);
        }
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(assembled);
    }

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
}
