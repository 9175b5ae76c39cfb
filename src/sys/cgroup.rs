//! Entering a cgroup, and the attributes of its directory (cgroups(7), xattr(7)).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::write;

/// Has `command` start in the cgroup whose file `cgroup.procs` is `processes`, open for
/// writing. The process enters it before it changes its user and before it executes the
/// program, so that all of the program's memory is charged to that cgroup.
pub fn start_in(command: &mut Command, processes: File) {
    let enter = move || -> io::Result<()> {
        // The process itself, in whatever PID namespace.
        write(&processes, b"0")?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes a system call only; it neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(enter) };
}

/// The extended attribute `name` of a file, up to `SIZE` bytes.
///
/// # Errors
///
/// Those of getxattr(2): `ENODATA` without that attribute, `ENOTSUP`, `ERANGE`.
pub fn attribute<const SIZE: usize>(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let mut path = path.as_os_str().as_bytes().to_vec();
    path.push(0);
    let path = CStr::from_bytes_with_nul(&path).map_err(|_| Errno::EINVAL)?;
    let mut value = [0_u8; SIZE];
    // SAFETY: two strings that end with a null byte, and a buffer of the given size.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    let length = usize::try_from(Errno::result(length)?).map_err(io::Error::other)?;
    Ok(value.get(..length).unwrap_or_default().to_vec())
}
