//! QEMU, who executes the guest, and what guests fetch.

use std::fs;
use std::io;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::{Finding, Grade};
use crate::cli::Options;
use crate::machine::accel::{self, Accel, ProbeResult};
use crate::settings::AccelChoice;
use crate::user;
use crate::watch::{Watch, moment};

/// Devices of a guest with the default options.
const DEVICES: &[&str] = &[
    "virtio-net-pci",
    "virtio-blk-pci",
    "virtio-rng-pci",
    "pvpanic-pci",
];

/// How long the first instructions of a guest may take. Emulation on a busy host
/// takes a second or two.
const FIRST_INSTRUCTIONS: Duration = Duration::from_secs(20);

const INSTALL: &str = "install it: apt-get install --no-install-recommends qemu-system-x86";

/// The program, and a guest's first instructions by it.
pub(super) fn qemu(options: &Options, _watch: &Watch) -> Vec<Finding> {
    let mut findings = vec![program(options)];
    if findings[0].grade == Grade::Good {
        findings.extend(accel(options));
    }
    findings
}

/// Version and devices.
fn program(options: &Options) -> Finding {
    const SUBJECT: &str = "qemu";
    let name = options.qemu.display();
    let program = options.qemu.as_os_str();
    let version = match super::program::answer(program, &["--version"]) {
        Ok(text) => text.lines().next().unwrap_or_default().to_owned(),
        Err(error) => {
            let text = format!("unable to run {name}: {}", crate::error::reason(&error));
            let finding = Finding::failure(SUBJECT, text);
            return match error.kind() {
                io::ErrorKind::NotFound => finding.remedy(INSTALL).remedy("or name it: --qemu"),
                _ => finding.remedy("name another: --qemu"),
            };
        }
    };
    let Some(version) = version.strip_prefix("QEMU emulator version ") else {
        let text = format!("{name} is not QEMU: it says '{version}'");
        return Finding::failure(SUBJECT, text).remedy("name another: --qemu");
    };
    let devices = super::program::answer(program, &["-device", "help"]).unwrap_or_default();
    let missing: Vec<&str> = DEVICES
        .iter()
        .copied()
        .filter(|device| !devices.contains(&format!("\"{device}\"")))
        .collect();
    if missing.is_empty() {
        return Finding::good(SUBJECT, format!("{version} as {name}"));
    }
    let text = format!("{version} as {name}, without {}", missing.join(", "));
    Finding::failure(SUBJECT, text).remedy(INSTALL)
}

/// A guest's first instructions, as the user that guests will run as.
fn accel(options: &Options) -> Vec<Finding> {
    const SUBJECT: &str = "acceleration";
    let credentials = match options.vm_user.as_deref().map(user::credentials) {
        None => None,
        Some(Ok(credentials)) => Some(credentials),
        Some(Err(error)) => return vec![Finding::error("user of guests", &error)],
    };
    let first = match options.accel {
        AccelChoice::Kvm | AccelChoice::Auto => Accel::Kvm,
        AccelChoice::Tcg => Accel::Tcg,
    };
    let run = |accel| {
        let deadline = moment().instant + FIRST_INSTRUCTIONS;
        accel::probe(accel, &options.qemu, credentials.as_ref(), deadline)
    };
    let unusable = match run(first) {
        Err(error) => return vec![Finding::error(SUBJECT, &error)],
        Ok(ProbeResult::Usable) => {
            return vec![Finding::good(SUBJECT, format!("{first}: a guest ran"))];
        }
        Ok(ProbeResult::Unusable(why)) => format!("{first}: {why}"),
    };
    if options.accel == AccelChoice::Auto && matches!(run(Accel::Tcg), Ok(ProbeResult::Usable)) {
        return vec![
            Finding::warning(SUBJECT, format!("{unusable}; tcg: a guest ran"))
                .remedy("guests will be some ten times slower"),
        ];
    }
    let finding = Finding::failure(SUBJECT, unusable);
    vec![match first {
        Accel::Kvm => finding
            .remedy(match access("/dev/kvm", AccessFlags::F_OK) {
                Ok(()) => "if this host is itself a guest, its host has to allow nested ones",
                Err(_) => {
                    "turn virtualization on in the firmware, then: modprobe kvm_intel or kvm_amd"
                }
            })
            .remedy("or emulate, some ten times slower: --accel tcg"),
        Accel::Tcg => finding.remedy(INSTALL),
    }]
}

/// The TFTP directory and the files of the toolchain in it.
pub(super) fn tftp(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "tftp directory";
    let root = options.tftp.display();
    if let Err(errno) = access(&options.tftp, AccessFlags::W_OK | AccessFlags::X_OK) {
        let text = format!("unable to write {root}: {}", errno.desc());
        return vec![
            Finding::failure(SUBJECT, text)
                .remedy(format!("make it: mkdir -p {root}"))
                .remedy("or name another: --tftp"),
        ];
    }
    let mut findings = vec![Finding::good(SUBJECT, format!("{root}, writable"))];
    let toolchain = &options.toolchain_name;
    let count: usize = ["toolchain", "toolchains"]
        .iter()
        .filter_map(|dir| fs::read_dir(options.tftp.join(dir).join(toolchain)).ok())
        .map(Iterator::count)
        .sum();
    let place = format!("{root}/toolchain/{toolchain}");
    findings.push(match count {
        0 => Finding::warning("toolchain", format!("no files in {place}"))
            .remedy("put there what the guests fetch when they are bootstrapped"),
        1 => Finding::good("toolchain", format!("{toolchain}: 1 file")),
        _ => Finding::good("toolchain", format!("{toolchain}: {count} files")),
    });
    findings
}
