//! Files that the command line names; `-` is standard input.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::error::{Context as _, Result};
use crate::sys::poll;

/// The maximum size of an input file, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// Reads the file `path`, or standard input if that is `-`. A terminal or a FIFO is
/// waited for until `signals` is readable.
pub fn input(path: &Path, signals: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let open = || match path == Path::new("-") {
        true => Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?)),
        false => OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
            .open(path),
    };
    open()
        .and_then(|file| read(file, signals))
        .context(|| format!("unable to read {}", path.display()))
}

fn read(mut file: File, signals: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut ready = [false; 2];
        poll::readable(&[file.as_fd(), signals], &mut ready, None)?;
        if ready[1] {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "a signal came in",
            ));
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if text.len() > MAX_BYTES {
            let text = format!("larger than {MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
    }
}
