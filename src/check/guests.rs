//! QEMU, the accelerator, the memory of guests, and the files that guests fetch.

use std::fs;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::{Finding, Grade};
use crate::bootstrap;
use crate::cgroup;
use crate::cli::Options;
use crate::ledger;
use crate::machine::accel::{self, Accel, ProbeResult};
use crate::machine::program::installation;
use crate::platform::Architecture;
use crate::qemu_version;
use crate::settings::AccelChoice;
use crate::status;
use crate::sys::procfs::total_memory_kb;
use crate::user;
use crate::watch::{Watch, moment};

/// The devices of a guest with the default options.
const DEVICES: &[&str] = &[
    "virtio-net-pci",
    "virtio-blk-pci",
    "virtio-rng-pci",
    "pvpanic-pci",
];

/// The time limit for the first instructions of a guest. Emulation on a busy host takes
/// a second or two.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// The program, and a guest's first instructions by it.
pub(super) fn qemu(options: &Options, watch: &Watch) -> Vec<Finding> {
    let mut findings = vec![program(options, watch)];
    if findings[0].grade == Grade::Good {
        findings.extend(accel(options, watch));
    }
    findings.extend([processors(options), memory(options), cgroups()]);
    findings
}

/// The processors of a guest, and of the host.
fn processors(options: &Options) -> Finding {
    const SUBJECT: &str = "processors";
    let Ok(total) = std::thread::available_parallelism() else {
        return Finding::good(SUBJECT, format!("{} for a guest", options.cpu));
    };
    let text = format!("{} for a guest, and this host has {total}", options.cpu);
    if usize::try_from(options.cpu).is_ok_and(|cpus| cpus <= total.get()) {
        return Finding::good(SUBJECT, text);
    }
    Finding::warning(SUBJECT, text).remedy(format!("give it less: --cpu {total}"))
}

/// The memory of a guest, and of the host (proc(5), `meminfo`).
fn memory(options: &Options) -> Finding {
    const SUBJECT: &str = "memory";
    let Some(total) = total_memory_kb() else {
        return Finding::warning(SUBJECT, "unable to read /proc/meminfo")
            .remedy("mount it: mount -t proc proc /proc");
    };
    let bytes = |kilobytes: u64| status::bytes(kilobytes.saturating_mul(1024));
    let text = format!(
        "{} for a guest, and this host has {}",
        bytes(options.ram),
        bytes(total)
    );
    if let Err(error) = ledger::require_room(options) {
        return Finding::error(SUBJECT, &error);
    }
    match options.host_ram {
        Some(most) if most > total => {
            let text = format!(
                "--host-ram is {}, and this host has {}",
                bytes(most),
                bytes(total)
            );
            Finding::warning(SUBJECT, text).remedy(format!(
                "leave a part for the host: --host-ram {}M",
                total / 1024 * 7 / 8
            ))
        }
        _ => Finding::good(SUBJECT, text),
    }
}

/// The cgroups of guests of an agent that would run where this process does.
fn cgroups() -> Finding {
    const SUBJECT: &str = "cgroups";
    let Some(path) = cgroup::delegated() else {
        let text = "none is delegated to this process, as by a unit with Delegate=: guests have \
                    no limits of their own";
        return Finding::good(SUBJECT, text);
    };
    match access(&path, AccessFlags::W_OK) {
        Ok(()) => Finding::good(SUBJECT, cgroup::uses(&path)),
        Err(errno) => {
            let text = format!("unable to write {}: {}", path.display(), errno.desc());
            Finding::warning(SUBJECT, text).remedy(cgroup::remedy(&path))
        }
    }
}

/// Version and devices.
fn program(options: &Options, watch: &Watch) -> Finding {
    const SUBJECT: &str = "qemu";
    let name = options.qemu.display();
    let version = match qemu_version::require(&options.qemu, watch) {
        Ok(version) => version,
        Err(error) => return Finding::error(SUBJECT, &error),
    };
    let devices = qemu_version::answer(&options.qemu, &["-device", "help"], watch);
    let devices = devices.unwrap_or_default();
    let architecture = Architecture::of_qemu(&options.qemu);
    let screen = architecture.screen().windows(2);
    let screen = screen
        .filter(|pair| pair[0] == "-device")
        .map(|pair| pair[1]);
    let missing: Vec<&str> = DEVICES
        .iter()
        .copied()
        .chain(screen)
        .filter(|device| !devices.contains(&format!("\"{device}\"")))
        .collect();
    if missing.is_empty() {
        return Finding::good(SUBJECT, format!("{version} as {name}"));
    }
    let text = format!("{version} as {name}, without {}", missing.join(", "));
    Finding::failure(SUBJECT, text).remedy(installation(&options.qemu))
}

/// A guest's first instructions, as the user that guests will run as.
fn accel(options: &Options, watch: &Watch) -> Vec<Finding> {
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
        let deadline = moment().instant + PROBE_TIMEOUT;
        let wait = &mut |fds: &[BorrowedFd<'_>], deadline| watch.wait(fds, deadline);
        accel::probe(accel, &options.qemu, credentials.as_ref(), deadline, wait)
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
                .remedy("guests are some ten times slower than with kvm"),
        ];
    }
    let finding = Finding::failure(SUBJECT, unusable);
    let emulate = "emulate, some ten times slower: --accel tcg";
    let is_foreign = Architecture::of_qemu(&options.qemu) != Architecture::HOST;
    vec![match first {
        Accel::Kvm if is_foreign => finding.remedy(emulate),
        Accel::Kvm => finding
            .remedy(match access("/dev/kvm", AccessFlags::F_OK) {
                Ok(()) => "if this host is a guest itself, its host has to allow nested guests",
                Err(_) => Architecture::HOST.kvm_remedy(),
            })
            .remedy(format!("or {emulate}")),
        Accel::Tcg => finding.remedy(installation(&options.qemu)),
    }]
}

/// The TFTP directory and the files of the toolchain in it.
pub(super) fn tftp(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "tftp directory";
    let root = options.tftp.display();
    if let Err(errno) = access(&options.tftp, AccessFlags::W_OK | AccessFlags::X_OK) {
        let finding = super::host::unwritable(SUBJECT, &options.tftp, errno);
        return vec![finding.remedy("or name another: --tftp <dir>")];
    }
    let mut findings = vec![Finding::good(SUBJECT, format!("{root}, writable"))];
    findings.push(toolchain(options));
    findings
}

fn toolchain(options: &Options) -> Finding {
    const SUBJECT: &str = "toolchain";
    let (tftp, name) = (&options.tftp, &options.toolchain_name);
    if let Err(error) = bootstrap::require_toolchain(tftp, name) {
        return Finding::error(SUBJECT, &error);
    }
    let count: usize = ["toolchain", "toolchains"]
        .iter()
        .filter_map(|directory| fs::read_dir(tftp.join(directory).join(name)).ok())
        .map(Iterator::count)
        .sum();
    let directory = tftp.join("toolchain").join(name);
    let directory = directory.display();
    match count {
        0 => Finding::warning(SUBJECT, format!("no files in {directory}")).remedy(format!(
            "put the files of the toolchain there: mkdir -p {directory} && \
             cp -r <files> {directory}/"
        )),
        1 => Finding::good(SUBJECT, format!("{name}: 1 file")),
        _ => Finding::good(SUBJECT, format!("{name}: {count} files")),
    }
}
