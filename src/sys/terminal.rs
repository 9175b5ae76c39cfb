//! The size of a terminal (ioctl_tty(2)).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc::{TIOCGWINSZ, winsize};

mod ioctl {
    use super::{TIOCGWINSZ, winsize};

    nix::ioctl_read_bad!(window_size, TIOCGWINSZ, winsize);
}

/// The lines and columns of a terminal; `None` if it does not tell them.
#[must_use]
pub fn size(terminal: BorrowedFd<'_>) -> Option<(usize, usize)> {
    let mut size = winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel writes the live structure and keeps no pointer.
    unsafe { ioctl::window_size(terminal.as_raw_fd(), &raw mut size) }.ok()?;
    let known = size.ws_row > 0 && size.ws_col > 0;
    known.then(|| (size.ws_row.into(), size.ws_col.into()))
}
