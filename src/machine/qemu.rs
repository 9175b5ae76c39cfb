//! QEMU's command line.
//!
//! Options and their defaults: qemu(1). What differs from QEMU's defaults has
//! its reason beside it.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::accel::Accel;
use super::devices::{
    disk, display, failing_disks, failures, firmware, memory, network, processor, randomness,
    value, words,
};
use super::firmware::Firmware;
use super::memory::Memory;
use super::options;
use super::tpm;
use crate::cgroup::Cgroups;
use crate::interactive::VncAddress;
use crate::network::Mac;
use crate::platform::Architecture;
use crate::sys::process::Credentials;

/// The purpose of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its disk is kept, as the bootstrapped machine.
    Bootstrap {
        /// The number of reboots that the guest may make.
        reboots: u32,
    },
    /// Its disk is thrown away.
    Build,
}

/// The specification of a machine.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The machine in diagnostics.
    pub label: String,
    /// The program, looked up in `PATH` if it is a bare name.
    pub qemu: PathBuf,
    /// The architecture of the guest.
    pub architecture: Architecture,
    /// The accelerator.
    pub accel: Accel,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in kB (1024 bytes).
    pub ram_kb: u64,
    /// The place of the memory.
    pub memory: Memory,
    /// The subvolume that the snapshot was taken of.
    pub source: PathBuf,
    /// The snapshot of the machine: QEMU's working directory, so that
    /// `disk.img`, and file names in `options`, are found there.
    pub directory: PathBuf,
    /// The guest's MAC address.
    pub mac: Mac,
    /// The bridge that the tap is on.
    pub bridge: String,
    /// The name of the tap, for `ifname=?`.
    pub tap: String,
    /// UEFI; `None`: the firmware that QEMU loads by itself, or that `options` name.
    pub firmware: Option<Firmware>,
    /// The device of its TPM, if it has one.
    pub tpm: Option<&'static str>,
    /// The machine manifest's `options`, split, one level of quotes removed.
    pub options: Option<Vec<String>>,
    /// The purpose.
    pub purpose: Purpose,
    /// An existing directory for sockets and the console log, of this machine alone.
    pub run_dir: PathBuf,
    /// The TCP address of the display; `None`: a socket in the run directory.
    pub display: Option<VncAddress>,
    /// Run QEMU as another user. The machine's image is given to that user.
    pub user: Option<Credentials>,
    /// The place of its cgroup, if it is to have one.
    pub cgroups: Option<Cgroups>,
}

/// The agent's descriptors that QEMU gets, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// The tap (`IFF_TAP|IFF_NO_PI|IFF_VNET_HDR`).
    pub tap: RawFd,
    /// A connected stream socket for the agent's monitor.
    pub monitor: RawFd,
    /// A listening socket for an operator's monitor.
    pub operator: RawFd,
    /// A connected stream socket for the serial console.
    pub console: RawFd,
    /// The directory of the VNC socket, whose path may be longer than that of a socket.
    pub vnc_directory: RawFd,
    /// A connected stream socket for a guest agent, for guests of templates.
    pub agent: RawFd,
    /// A connected stream socket for the TPM, for machines with one.
    pub tpm: RawFd,
}

/// The name of the VNC socket.
const VNC: &str = "vnc";

/// The command line, without the program.
pub fn argv(spec: &Spec, fds: &Descriptors) -> Vec<OsString> {
    let vnc = match &spec.display {
        Some(address) => address.option(),
        None => format!("unix:/proc/self/fd/{}/{VNC}", fds.vnc_directory),
    };
    let mut argv = hardware(spec, &format!("fd={}", fds.tap), &vnc);
    argv.extend(tpm_at(spec, &format!("fd={}", fds.tpm)));
    argv.extend(console(fds.console));
    argv.extend(monitors(fds.monitor, fds.operator));
    argv.extend(spec.memory.argv(spec.architecture, spec.ram_kb, fds.agent));
    argv.extend(spec.memory.incoming());
    argv
}

/// The command line for an operator, without the program: the tap has the name `tap`,
/// and the console and a monitor are on the terminal.
pub fn argv_by_hand(spec: &Spec, tap: &str) -> Vec<OsString> {
    let tap = format!("ifname={tap},script=no,downscript=no");
    let tpm = format!("path={}", tpm::SOCKET);
    on_terminal(spec, &tap, &format!("unix:{VNC}"), &tpm)
}

/// The same, with the tap, the directory of the VNC socket and the TPM as descriptors.
pub(super) fn argv_on_terminal(
    spec: &Spec,
    tap: RawFd,
    vnc_directory: RawFd,
    tpm: RawFd,
) -> Vec<OsString> {
    let vnc = format!("unix:/proc/self/fd/{vnc_directory}/{VNC}");
    on_terminal(spec, &format!("fd={tap}"), &vnc, &format!("fd={tpm}"))
}

fn on_terminal(spec: &Spec, tap: &str, vnc: &str, tpm: &str) -> Vec<OsString> {
    let mut argv = hardware(spec, tap, vnc);
    argv.extend(tpm_at(spec, tpm));
    argv.extend(words(["-serial", "mon:stdio"]));
    argv
}

/// The options that do not depend on who starts the machine. `tap` is the part of the
/// option `-netdev` that names the tap.
fn hardware(spec: &Spec, tap: &str, vnc: &str) -> Vec<OsString> {
    let mut argv = Vec::new();
    argv.extend(identity(&spec.directory));
    argv.extend(base());
    argv.extend(machine(spec));
    argv.extend(reboots(spec.purpose));
    argv.extend(processor(spec.accel, spec.architecture, spec.cpus));
    argv.extend(memory(spec.ram_kb));
    argv.extend(spec.firmware.iter().flat_map(|f| firmware(f, spec.purpose)));
    match &spec.options {
        Some(given) => {
            argv.extend(failing_disks(given));
            argv.extend(options::substituted(given, &spec.tap, spec.mac, tap));
        }
        None => {
            argv.extend(network(spec.mac, tap));
            argv.extend(disk(spec.purpose));
        }
    }
    argv.extend(randomness());
    argv.extend(failures());
    argv.extend(display(vnc, spec.architecture, spec.options.as_deref()));
    argv.extend(confinement());
    argv
}

/// The TPM, at the character device `address`.
fn tpm_at(spec: &Spec, address: &str) -> Vec<OsString> {
    spec.tpm
        .map_or_else(Vec::new, |device| tpm::argv(device, address))
}

/// Shown by ps(1), by VNC viewers and in QEMU's own messages. By this name a sweep
/// recognises a QEMU that outlived its agent.
fn identity(directory: &Path) -> Vec<OsString> {
    vec!["-name".into(), value("guest=", directory.as_os_str())]
}

/// The options of every machine.
fn base() -> Vec<OsString> {
    words([
        // No NIC on a user network, no CD-ROM, no floppy.
        "-nodefaults",
        // The host's files in /etc/qemu must not change what guests get.
        "-no-user-config",
        // From the disk; a bootindex in the options goes first.
        "-boot",
        "c",
    ])
}

/// A reboot ends the run: a guest that reboots in a loop would run until its limit.
/// Where reboots are allowed, the agent counts them.
fn reboots(purpose: Purpose) -> Vec<OsString> {
    match purpose {
        Purpose::Bootstrap { reboots: 1.. } => Vec::new(),
        Purpose::Bootstrap { reboots: 0 } | Purpose::Build => words(["-no-reboot"]),
    }
}

/// The machine type. `dump-guest-core`: a core of QEMU would be as large as the guest's
/// memory.
fn machine(spec: &Spec) -> Vec<OsString> {
    let machine = spec.architecture.machine(spec.options.as_deref());
    vec![
        "-machine".into(),
        format!("{machine},dump-guest-core=off").into(),
    ]
}

/// The first serial port goes to the agent, which keeps a bounded part of its output.
fn console(fd: RawFd) -> Vec<OsString> {
    vec![
        "-chardev".into(),
        format!("socket,id=console,fd={fd}").into(),
        "-serial".into(),
        "chardev:console".into(),
    ]
}

/// The agent's monitor is a socket pair without a name. The operator's is a listening
/// socket that the agent has bound, so QEMU's user needs no directory for it. Each
/// monitor serves one client, so an operator does not disconnect the agent. `-S`: the
/// guest starts once the agent listens, so that no event is missed.
fn monitors(agent: RawFd, operator: RawFd) -> Vec<OsString> {
    vec![
        "-S".into(),
        "-chardev".into(),
        format!("socket,id=monitor,fd={agent}").into(),
        "-mon".into(),
        "chardev=monitor,mode=control".into(),
        "-chardev".into(),
        format!("socket,id=operator,fd={operator},server=on,wait=off").into(),
        "-mon".into(),
        "chardev=operator,mode=control".into(),
    ]
}

/// A guest that takes QEMU over can start no program, get no privilege and change no
/// scheduling (seccomp(2)).
fn confinement() -> Vec<OsString> {
    words([
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            label: "linux-gcc".into(),
            qemu: "qemu-system-x86_64".into(),
            architecture: Architecture::X86_64,
            accel: Accel::Tcg,
            cpus: 2,
            ram_kb: 1_048_576,
            memory: Memory::Anonymous,
            source: "/build/machines/v/linux-gcc/linux-gcc-default".into(),
            directory: "/build/machines/v/linux-gcc/x".into(),
            bridge: "br1".into(),
            mac: Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
            tap: "bb1".into(),
            firmware: None,
            tpm: None,
            options: None,
            purpose: Purpose::Build,
            run_dir: "/run/bbot/1".into(),
            display: None,
            user: None,
            cgroups: None,
        }
    }

    const FDS: Descriptors = Descriptors {
        tap: 5,
        monitor: 6,
        operator: 7,
        console: 8,
        vnc_directory: 9,
        agent: 10,
        tpm: 11,
    };

    fn line(spec: &Spec) -> String {
        let argv: Vec<String> = argv(spec, &FDS)
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        argv.join(" ")
    }

    #[test]
    fn the_whole_line_of_an_ordinary_build() {
        assert_eq!(
            line(&spec()),
            "-name guest=/build/machines/v/linux-gcc/x -nodefaults -no-user-config \
             -boot c -machine q35,dump-guest-core=off -no-reboot -accel tcg -cpu max -smp 2 \
             -m size=1048576k -netdev tap,id=net0,fd=5 \
             -device virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,romfile= \
             -drive if=none,id=disk0,file=disk.img,format=raw,cache=unsafe,discard=unmap \
             -device virtio-blk-pci,drive=disk0,bootindex=1,werror=stop,rerror=stop \
             -object rng-random,id=rng0,filename=/dev/urandom \
             -device virtio-rng-pci,rng=rng0,max-bytes=65536,period=1000 \
             -device pvpanic-pci -action panic=pause -vga std -vnc unix:/proc/self/fd/9/vnc \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -chardev socket,id=console,fd=8 -serial chardev:console \
             -S -chardev socket,id=monitor,fd=6 -mon chardev=monitor,mode=control \
             -chardev socket,id=operator,fd=7,server=on,wait=off \
             -mon chardev=operator,mode=control"
        );
    }

    #[test]
    fn a_bootstrapped_disk_honours_flushes() {
        let spec = Spec {
            purpose: Purpose::Bootstrap { reboots: 0 },
            ..spec()
        };
        assert!(line(&spec).contains("cache=writeback"));
    }

    #[test]
    fn qemu_goes_on_after_a_reboot_only_if_one_is_allowed() {
        let ends = |purpose| line(&Spec { purpose, ..spec() }).contains(" -no-reboot ");
        assert!(ends(Purpose::Build) && ends(Purpose::Bootstrap { reboots: 0 }));
        assert!(!ends(Purpose::Bootstrap { reboots: 1 }));
    }

    #[test]
    fn uefi_comes_before_the_disk_and_writes_to_the_snapshot_only() {
        let spec = Spec {
            firmware: Some(Firmware {
                code: "/usr/share/a,b.fd".into(),
                template: "/usr/share/vars.fd".into(),
            }),
            options: Some(vec!["-bios".into(), "uefi".into(), "-snapshot".into()]),
            ..spec()
        };
        let line = line(&spec);
        let flash = "-drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/a,,b.fd \
                     -drive if=pflash,format=raw,unit=1,cache=unsafe,file=efi-vars.fd ";
        assert!(line.contains(flash), "{line}");
        assert!(
            line.contains(" -snapshot ") && !line.contains("-bios"),
            "{line}"
        );
    }

    #[test]
    fn a_tpm_is_behind_a_socket() {
        let spec = Spec {
            tpm: Some("tpm-crb"),
            ..spec()
        };
        let tpm = " -chardev socket,id=tpm,fd=11 -tpmdev emulator,id=tpm0,chardev=tpm \
                   -device tpm-crb,tpmdev=tpm0 ";
        assert!(line(&spec).contains(tpm), "{}", line(&spec));
        let by_hand = argv_by_hand(&spec, "t");
        assert!(by_hand.contains(&"socket,id=tpm,path=tpm.sock".into()));
    }

    #[test]
    fn the_host_processor_goes_with_kvm_only() {
        let spec = Spec {
            accel: Accel::Kvm,
            ..spec()
        };
        assert!(line(&spec).contains("-accel kvm -cpu host "));
    }

    #[test]
    fn options_of_the_machine_replace_network_and_disk() {
        let spec = Spec {
            options: Some(vec!["-drive".into(), "file=c.qcow2,if=ide".into()]),
            ..spec()
        };
        let line = line(&spec);
        assert!(line.contains(" -drive file=c.qcow2,if=ide "), "{line}");
        for default in ["disk.img", "virtio-blk-pci", "virtio-net-pci", "-netdev"] {
            assert!(!line.contains(default), "{default} in {line}");
        }
    }

    #[test]
    fn disks_of_the_options_stop_on_errors_unless_they_say_otherwise() {
        let with = |drive: &str| {
            line(&Spec {
                options: Some(vec!["-drive".into(), drive.into()]),
                ..spec()
            })
        };
        let own = with("file=c.qcow2,if=ide");
        assert!(own.contains("-global ide-hd.werror=stop"), "{own}");
        assert!(
            own.contains("-global virtio-blk-device.rerror=stop"),
            "{own}"
        );
        let said = with("file=c.qcow2,if=ide,werror=report");
        assert!(!said.contains("werror=stop"), "{said}");
        assert!(said.contains("-global ide-hd.rerror=stop"), "{said}");
        assert!(!line(&spec()).contains("-global"));
    }

    #[test]
    fn a_machine_with_its_own_video_gets_no_second_one() {
        for video in ["-vga", "virtio-vga", "VGA,vgamem_mb=64", "qxl-vga"] {
            let spec = Spec {
                options: Some(vec![video.into()]),
                ..spec()
            };
            assert!(!line(&spec).contains("-vga std"), "{video}");
        }
    }

    #[test]
    fn a_comma_in_a_name_starts_no_option() {
        let spec = Spec {
            directory: "/m,process=evil".into(),
            ..spec()
        };
        let line = line(&spec);
        assert!(line.contains("-name guest=/m,,process=evil"), "{line}");
    }
}
