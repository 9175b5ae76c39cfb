//! Standard output, written so that a full disk is an error and not a panic.

use std::io::{self, ErrorKind, Write as _};

use crate::error::{Class, Context as _, Result};

/// Writes `text` to standard output.
///
/// A reader that closed its end (`--help | head`) is not an error. Standard output
/// that is closed drops everything, as `/dev/null` does.
pub fn print(text: &[u8]) -> Result<()> {
    print_on(text).map(drop)
}

/// The same for one who prints on and on. Returns false if the reader is gone.
pub fn print_on(text: &[u8]) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        result => result
            .map(|()| true)
            .context(|| "unable to write to standard output")
            .map_err(|error| error.with_class(Class::Os)),
    }
}
