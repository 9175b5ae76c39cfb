//! The devices of a guest, one pure function per concern.
//!
//! Options and their defaults: qemu(1). What differs from QEMU's defaults has
//! its reason beside it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::accel::Accel;
use super::firmware::{Firmware, STORE};
use super::qemu::Purpose;
use crate::network::Mac;
use crate::platform::Architecture;

pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

/// In a QEMU option a comma in a value is written twice.
pub(super) fn value(prefix: &str, value: &OsStr) -> OsString {
    let mut bytes = prefix.as_bytes().to_vec();
    for byte in value.as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

pub(super) fn processor(accel: Accel, architecture: Architecture, cpus: u32) -> Vec<OsString> {
    vec![
        "-accel".into(),
        accel.to_string().into(),
        "-cpu".into(),
        accel.processor(architecture).into(),
        "-smp".into(),
        cpus.max(1).to_string().into(),
    ]
}

pub(super) fn memory(ram_kb: u64) -> Vec<OsString> {
    vec!["-m".into(), format!("size={ram_kb}k").into()]
}

/// The tap is a descriptor: QEMU needs no right to open one, and it is gone
/// with the last process that holds it. `romfile=`: no network boot, so no
/// option ROM to wait for or to install.
pub(super) fn network(mac: Mac, tap: &str) -> Vec<OsString> {
    vec![
        "-netdev".into(),
        format!("tap,id=net0,{tap}").into(),
        "-device".into(),
        format!("virtio-net-pci,netdev=net0,mac={mac},romfile=").into(),
    ]
}

/// UEFI: its code, read-only, and its variable store, which is a file of the machine. A
/// build changes that of a throw-away snapshot, a bootstrap that of the copy.
pub(super) fn firmware(firmware: &Firmware, purpose: Purpose) -> Vec<OsString> {
    let code = "if=pflash,format=raw,unit=0,readonly=on,file=";
    let store = format!(
        "if=pflash,format=raw,unit=1,cache={},file={STORE}",
        cache(purpose)
    );
    vec![
        "-drive".into(),
        value(code, firmware.code.as_os_str()),
        "-drive".into(),
        store.into(),
    ]
}

/// A build writes to a throw-away snapshot, so `unsafe` ignores the guest's flushes. A
/// bootstrapped disk is kept, so `writeback` honours them.
fn cache(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Bootstrap { .. } => "writeback",
        Purpose::Build => "unsafe",
    }
}

/// The default disk: `disk.img`, raw.
///
/// - `werror`, `rerror`: an error of the host's disk stops the guest and the agent
///   decides. The guest would report it as a failure of the package.
/// - `discard`: blocks that the guest frees are freed in the snapshot.
pub(super) fn disk(purpose: Purpose) -> Vec<OsString> {
    let cache = cache(purpose);
    vec![
        "-drive".into(),
        format!("if=none,id=disk0,file=disk.img,format=raw,cache={cache},discard=unmap").into(),
        "-device".into(),
        "virtio-blk-pci,drive=disk0,bootindex=1,werror=stop,rerror=stop".into(),
    ]
}

/// The same policy for the disks of a machine's own options. The policy of QEMU is to
/// pause the guest when there is no space, and to report all other errors to it. A
/// policy in the options wins; `nvme` has none.
pub(super) fn failing_disks(options: &[String]) -> Vec<OsString> {
    const DISKS: [&str; 4] = ["virtio-blk-device", "ide-hd", "scsi-hd", "usb-storage"];
    let mut argv = Vec::new();
    for policy in ["werror", "rerror"] {
        if !options.iter().any(|option| option.contains(policy)) {
            for disk in DISKS {
                argv.push("-global".into());
                argv.push(format!("{disk}.{policy}=stop").into());
            }
        }
    }
    argv
}

/// Without a source of entropy a guest waits early in its boot. The rate is bounded,
/// because `/dev/urandom` costs the host time.
pub(super) fn randomness() -> Vec<OsString> {
    words([
        "-object",
        "rng-random,id=rng0,filename=/dev/urandom",
        "-device",
        "virtio-rng-pci,rng=rng0,max-bytes=65536,period=1000",
    ])
}

/// A guest that panics reports it by this device, and is suspended for inspection. Both
/// options need QEMU 6.0, see [`crate::qemu_version`].
pub(super) fn failures() -> Vec<OsString> {
    words(["-device", "pvpanic-pci", "-action", "panic=pause"])
}

/// A screen for the operator, on a unix socket: no port for others to reach, unless the
/// operator wants one.
/// Machines that bring a video device of their own get no second one.
pub(super) fn display(
    socket: &str,
    architecture: Architecture,
    options: Option<&[String]>,
) -> Vec<OsString> {
    const SCREENS: [&str; 3] = ["vga", "virtio-gpu", "ramfb"];
    let own = options
        .unwrap_or_default()
        .iter()
        .map(|option| option.to_ascii_lowercase())
        .any(|option| SCREENS.iter().any(|screen| option.contains(screen)));
    let mut argv = Vec::new();
    if !own {
        argv.extend(architecture.screen().iter().map(OsString::from));
    }
    argv.extend(words(["-vnc", socket]));
    argv
}
