//! One refused system call in a turn: the agent ends in order, says what was wrong, and
//! leaves nothing.

use std::process::ExitStatus;

use super::{diagnostics, torture};
use crate::support::site::Site;

/// Checks that an obstructed turn ended by itself, and said what was wrong.
fn explained(site: &Site, status: ExitStatus) -> Result<(), String> {
    let said = diagnostics(site);
    if said.contains("panicked at src") || status.code().is_none() || status.code() == Some(101) {
        return Err(format!("it ended with {status}\n"));
    }
    if !status.success() && !said.contains("error: ") {
        return Err("it says nothing about it\n".to_owned());
    }
    Ok(())
}

fn refused(errno: &str, some: usize, offset: usize, names: &'static [&'static str]) {
    torture(
        errno,
        some,
        offset,
        &format!("error={errno}"),
        false,
        move |call| names.contains(&call.name.as_str()),
        explained,
    );
}

/// Calls that can fail for want of space, or of a working disk.
pub(super) const ON_DISK: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "write",
    "writev",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "fsync",
    "fdatasync",
    "syncfs",
    "ftruncate",
    "fallocate",
    "ioctl",
    "unlink",
    "unlinkat",
    "rmdir",
    "chmod",
    "fchmod",
    "fchmodat",
    "utimensat",
];

/// Calls that give a descriptor.
const DESCRIPTORS: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "socket",
    "socketpair",
    "accept4",
    "pidfd_open",
    "pipe2",
    "dup",
    "dup3",
    "fcntl",
    "memfd_create",
    "signalfd4",
];

/// Calls for which the kernel needs memory of its own.
const IN_MEMORY: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "socket",
    "socketpair",
    "pipe2",
    "signalfd4",
    "pidfd_open",
    "bind",
    "connect",
    "ioctl",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "clone",
    "clone3",
    "vfork",
    "fork",
    "flock",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "unlink",
    "unlinkat",
];

/// Calls that wait, or may on some file systems.
const WAITING: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "write",
    "writev",
    "pwrite64",
    "flock",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "connect",
    "accept4",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
];

#[test]
fn a_full_disk_anywhere_is_explained_and_leaves_nothing() {
    refused("ENOSPC", 8, 1, ON_DISK);
}

#[test]
fn a_broken_disk_anywhere_is_explained_and_leaves_nothing() {
    refused("EIO", 8, 2, ON_DISK);
}

#[test]
fn no_descriptor_left_is_explained_and_leaves_nothing() {
    refused("EMFILE", 6, 1, DESCRIPTORS);
}

#[test]
fn no_memory_left_is_explained_and_leaves_nothing() {
    refused("ENOMEM", 6, 0, IN_MEMORY);
}

#[test]
fn an_interrupted_call_is_made_again() {
    refused("EINTR", 6, 0, WAITING);
}
