//! The size of a terminal (ioctl_tty(2)), and its settings (termios(3)).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{TIOCGWINSZ, winsize};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

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

/// The settings of a terminal. They are restored when this value is dropped, because a
/// program that was killed leaves its own settings.
#[derive(Debug)]
pub struct SavedTerminal<'a> {
    terminal: BorrowedFd<'a>,
    settings: Option<Termios>,
    flags: Option<OFlag>,
}

impl<'a> SavedTerminal<'a> {
    /// The settings of `terminal`. For something that is no terminal: the flags of its
    /// description, which other processes share.
    #[must_use]
    pub fn of(terminal: BorrowedFd<'a>) -> SavedTerminal<'a> {
        let flags = fcntl(terminal, FcntlArg::F_GETFL).ok();
        SavedTerminal {
            terminal,
            settings: tcgetattr(terminal).ok(),
            flags: flags.map(OFlag::from_bits_truncate),
        }
    }
}

impl Drop for SavedTerminal<'_> {
    fn drop(&mut self) {
        if let Some(settings) = &self.settings {
            let _ = tcsetattr(self.terminal, SetArg::TCSANOW, settings);
        }
        if let Some(flags) = self.flags {
            let _ = fcntl(self.terminal, FcntlArg::F_SETFL(flags));
        }
    }
}
