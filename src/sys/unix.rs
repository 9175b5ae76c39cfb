//! Unix sockets by paths of any length. The name that the kernel is given has at most 107
//! bytes (unix(7)), so that it begins with a descriptor of the directory.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::file::open_directory;

/// Listens on the socket `path`, in place of one that a killed process has left.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let (_directory, short) = short(path)?;
    UnixListener::bind(short)
}

/// Connects to the socket `path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_directory, short) = short(path)?;
    UnixStream::connect(short)
}

fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let directory = open_directory(path.parent().unwrap_or(path))?;
    let name = path.file_name().unwrap_or_default();
    let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok((directory, Path::new(&short).join(name)))
}
