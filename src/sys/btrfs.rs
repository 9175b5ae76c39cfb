//! btrfs subvolumes by ioctl.
//!
//! Structures and numbers are those of `<linux/btrfs.h>`, which is kernel ABI.
//! Creation and deletion act on a descriptor of the *parent* directory and take
//! the last component of the path; flags act on a descriptor of the subvolume's
//! root. No context is added here: [`crate::snapshot`] knows the paths.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::statvfs::fstatvfs;

/// `BTRFS_SUPER_MAGIC` of `<linux/magic.h>`: statfs(2) says so on btrfs.
const SUPER_MAGIC: u32 = 0x9123_683e;

/// `BTRFS_FIRST_FREE_OBJECTID`: the inode number of every subvolume's root.
pub(super) const ROOT_INODE: u64 = 256;

/// `BTRFS_SUBVOL_RDONLY`.
const RDONLY: u64 = 1 << 1;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; VOL_NAME],
}
const VOL_NAME: usize = 4088;
const _: () = assert!(size_of::<VolArgs>() == 4096);

/// `struct btrfs_ioctl_vol_args_v2`, with the `name` of its union.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; VOL_NAME_V2],
}
const VOL_NAME_V2: usize = 4040;
const _: () = assert!(size_of::<VolArgsV2>() == 4096);

/// `struct btrfs_ioctl_subvol_wait` (Linux 6.13).
#[repr(C)]
struct SubvolWait {
    subvolid: u64,
    mode: u32,
    count: u32,
}
const _: () = assert!(size_of::<SubvolWait>() == 16);

/// `BTRFS_SUBVOL_SYNC_COUNT`: how many deleted subvolumes the cleaner has yet
/// to take apart. Does not wait.
const SYNC_COUNT: u32 = 2;

/// `BTRFS_IOCTL_MAGIC`.
pub(super) const MAGIC: u8 = 0x94;

mod ioctl {
    use super::{MAGIC, SubvolWait, VolArgs, VolArgsV2};

    nix::ioctl_none!(sync, MAGIC, 8);
    nix::ioctl_write_ptr!(snap_destroy, MAGIC, 15, VolArgs);
    nix::ioctl_write_ptr!(snap_create_v2, MAGIC, 23, VolArgsV2);
    nix::ioctl_read!(subvol_getflags, MAGIC, 25, u64);
    nix::ioctl_write_ptr!(subvol_setflags, MAGIC, 26, u64);
    // _IOW in the header, although the kernel writes `count` back.
    nix::ioctl_write_ptr!(subvol_sync_wait, MAGIC, 65, SubvolWait);
}

/// The name as the kernel wants it: one component, NUL-terminated.
fn component<const N: usize>(name: &CStr) -> io::Result<[u8; N]> {
    let bytes = name.to_bytes_with_nul();
    let mut field = [0; N];
    field
        .get_mut(..bytes.len())
        .ok_or(Errno::ENAMETOOLONG)?
        .copy_from_slice(bytes);
    Ok(field)
}

/// Makes a snapshot of the subvolume whose root is `source` as `name` in the
/// directory `parent`.
///
/// The file system commits a transaction, so that the snapshot is durable on
/// return; pages of the source that are dirty are written first, and that is
/// what takes long if anything does.
///
/// # Errors
///
/// `ENOTTY`: not btrfs. `EINVAL`: `source` is not the root of a subvolume, or
/// `name` is not one component. `EEXIST`: the name is taken. `EXDEV`: source
/// and parent are on different file systems. `EPERM`: `source` belongs to
/// another user and the process is not root. `EROFS`, `ENOSPC`, `EDQUOT`, `EIO`.
pub fn snapshot_create(
    parent: BorrowedFd<'_>,
    source: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<()> {
    let args = VolArgsV2 {
        fd: i64::from(source.as_raw_fd()),
        transid: 0,
        flags: 0,
        unused: [0; 4],
        name: component(name)?,
    };
    // SAFETY: `args` is a live, initialised vol_args_v2 with a terminated name;
    // the kernel reads it and keeps no pointer.
    unsafe { ioctl::snap_create_v2(parent.as_raw_fd(), &raw const args) }?;
    Ok(())
}

/// Deletes the subvolume `name` in the directory `parent`.
///
/// The entry is gone on return, though not yet durably; the space comes back
/// later, when the kernel's cleaner has been there ([`cleaner_backlog`]). Files
/// that are open stay usable.
///
/// # Errors
///
/// `ENOENT`. `ENOTTY`: not btrfs. `ENOTDIR`: a symbolic link. `EINVAL`: not a
/// subvolume. `ENOTEMPTY`: another subvolume is inside. `EPERM`: not root, and
/// the mount lacks `user_subvol_rm_allowed`. `EROFS`: not root, and the
/// subvolume is read-only, or the mount is.
pub fn subvolume_delete(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let args = VolArgs {
        fd: 0,
        name: component(name)?,
    };
    // SAFETY: `args` is a live, initialised vol_args with a terminated name;
    // the kernel reads it and keeps no pointer.
    unsafe { ioctl::snap_destroy(parent.as_raw_fd(), &raw const args) }?;
    Ok(())
}

fn flags(subvolume: BorrowedFd<'_>) -> io::Result<u64> {
    let mut flags = 0;
    // SAFETY: `flags` is a live u64 for the kernel to write to.
    unsafe { ioctl::subvol_getflags(subvolume.as_raw_fd(), &raw mut flags) }?;
    Ok(flags)
}

/// Sets or clears the read-only flag, durably. Descriptors that are open for
/// writing keep writing: stop the writers first.
///
/// # Errors
///
/// `ENOTTY`: not btrfs. `EINVAL`: not the root of a subvolume. `EPERM`: it belongs
/// to another user. `EROFS`, `ENOSPC`, `EIO`.
pub fn set_read_only(subvolume: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let old = flags(subvolume)?;
    let new = if read_only {
        old | RDONLY
    } else {
        old & !RDONLY
    };
    if old == new {
        return Ok(()); // Spares a transaction.
    }
    // SAFETY: `new` is a live u64 that the kernel only reads.
    unsafe { ioctl::subvol_setflags(subvolume.as_raw_fd(), &raw const new) }?;
    Ok(())
}

/// Whether `fd` is on btrfs.
pub fn is_btrfs(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let FsType(kind) = fstatfs(fd)?.filesystem_type();
    // The field is signed or not and of either width, by architecture and libc;
    // the magic number has 32 bits everywhere.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    let kind = kind as u32;
    Ok(kind == SUPER_MAGIC)
}

/// Whether `fd` is the root of a subvolume.
pub fn is_subvolume(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(nix::sys::stat::fstat(fd)?.st_ino == ROOT_INODE && is_btrfs(fd)?)
}

/// Writes everything that the file system holds in memory, data included, and
/// waits for it; then sends the cleaner to work.
///
/// # Errors
///
/// `ENOTTY`: not btrfs. `EIO`, `ENOSPC`.
pub fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: this ioctl has no argument.
    unsafe { ioctl::sync(fd.as_raw_fd()) }?;
    Ok(())
}

/// How many deleted subvolumes still wait for the cleaner, on the file system
/// that `fd` is on: their space is not free yet. `None` if the kernel cannot
/// say (before Linux 6.13).
///
/// # Errors
///
/// `EPERM`: not root.
pub fn cleaner_backlog(fd: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let mut args = SubvolWait {
        subvolid: 0,
        mode: SYNC_COUNT,
        count: 0,
    };
    // SAFETY: `args` is a live, initialised subvol_wait, to which the kernel
    // may write.
    match unsafe { ioctl::subvol_sync_wait(fd.as_raw_fd(), &raw mut args) } {
        Ok(_) => Ok(Some(args.count)),
        Err(Errno::ENOTTY) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// FreeSpace of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that an unprivileged process can write.
    pub available: u64,
    /// The size of the file system.
    pub total: u64,
}

/// The space of the file system that `fd` is on.
pub fn space(fd: BorrowedFd<'_>) -> io::Result<FreeSpace> {
    let stat = fstatvfs(fd)?;
    let unit = stat.fragment_size();
    Ok(FreeSpace {
        available: stat.blocks_available().saturating_mul(unit),
        total: stat.blocks().saturating_mul(unit),
    })
}

/// The treatment of an existing name by a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// Fails with `EEXIST` (`RENAME_NOREPLACE`).
    NoReplace,
    /// The two swap their names; there is no instant in which either is missing
    /// (`RENAME_EXCHANGE`).
    Exchange,
}

/// renameat2(2) within one directory. Subvolumes move like directories do, and
/// a read-only one may only move within its directory.
///
/// # Errors
///
/// Those of renameat2(2): `EEXIST` or `ENOENT` by `how`, `EROFS`, `ENOSPC`.
pub fn rename(dir: BorrowedFd<'_>, from: &CStr, to: &CStr, how: Rename) -> io::Result<()> {
    let flags = match how {
        Rename::NoReplace => libc::RENAME_NOREPLACE,
        Rename::Exchange => libc::RENAME_EXCHANGE,
    };
    let dir = dir.as_raw_fd();
    // nix offers renameat2 with glibc only, so the bare system call.
    // SAFETY: both names are live and terminated, `dir` is an open descriptor;
    // the kernel reads them and keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            dir,
            from.as_ptr(),
            dir,
            to.as_ptr(),
            flags,
        )
    };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn numbers_are_those_of_the_header() {
        // As printed by a C program that includes <linux/btrfs.h>.
        assert_eq!(nix::request_code_none!(MAGIC, 8), 0x9408);
        assert_eq!(
            nix::request_code_write!(MAGIC, 14, size_of::<VolArgs>()),
            0x5000_940e
        );
        assert_eq!(
            nix::request_code_write!(MAGIC, 15, size_of::<VolArgs>()),
            0x5000_940f
        );
        assert_eq!(
            nix::request_code_write!(MAGIC, 23, size_of::<VolArgsV2>()),
            0x5000_9417
        );
        assert_eq!(
            // Of 32 bits with musl, of 64 with glibc.
            nix::request_code_read!(MAGIC, 25, size_of::<u64>()).to_ne_bytes()[..4],
            0x8008_9419_u32.to_ne_bytes()
        );
        assert_eq!(
            nix::request_code_write!(MAGIC, 26, size_of::<u64>()),
            0x4008_941a
        );
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let long = std::ffi::CString::new(vec![b'x'; VOL_NAME_V2]).unwrap();
        let error = component::<VOL_NAME_V2>(&long).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn proc_is_not_btrfs() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(!is_btrfs(proc.as_fd()).unwrap());
        assert!(!is_subvolume(proc.as_fd()).unwrap());
        let error = set_read_only(proc.as_fd(), true).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}
