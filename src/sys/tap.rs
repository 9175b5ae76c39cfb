//! Tap devices (`Documentation/networking/tuntap.rst`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::libc;

use super::net::{IfReq, InterfaceName};

/// Where tap devices come from.
pub const DEVICE: &str = "/dev/net/tun";

mod ioctl {
    use super::IfReq;

    // TUNSETIFF: its number says that it reads an int, and it takes an ifreq.
    nix::ioctl_readwrite_bad!(
        set_if,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        IfReq
    );
}

/// Makes the tap device `name`, which lives as long as the descriptor and its
/// duplicates do.
///
/// Frames come without packet information and with a virtio header, as QEMU
/// wants them of a tap that is handed to it. `TUN_EXCL` makes an existing
/// device an error instead of something to join.
///
/// # Errors
///
/// Those of open(2) on [`DEVICE`]: `ENOENT`, `ENODEV`: no such driver;
/// `EACCES`. `EBUSY`: there is an interface of that name. `EPERM`:
/// `CAP_NET_ADMIN` is missing.
pub fn create(name: &InterfaceName) -> io::Result<OwnedFd> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new(DEVICE))?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let [low, high, ..] = flags.to_le_bytes();
    let flags = u16::from_le_bytes([low, high]);
    let mut request = IfReq::new(name).with(&flags.to_ne_bytes());
    // SAFETY: `request` is a live, initialised ifreq, which the kernel reads and
    // writes.
    unsafe { ioctl::set_if(file.as_raw_fd(), &raw mut request) }?;
    Ok(file.into())
}
