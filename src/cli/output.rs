//! Standard output, written so that a full disk is an error and not a panic.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

use crate::error::{Class, Context as _, Result};

/// Writes `text` to standard output.
///
/// A reader that has gone away (`--help | head`) is not an error: it has read
/// what it wanted.
///
/// # Errors
///
/// Those of write(2), a full file system (or `/dev/full`) above all. Standard
/// output that was closed swallows everything, as `/dev/null` does.
pub fn print(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result
            .context(|| "unable to write to standard output")
            .map_err(|error| error.with_class(Class::Os)),
    }
}

/// Writes `text` through a pager when standard output is a terminal, else as
/// [`print()`] does. `pager` is the value of `PAGER`; without it, `less` and
/// `more` are tried.
///
/// # Errors
///
/// Those of [`print()`], and a pager that ends with an error.
pub fn page(text: &[u8], pager: Option<&str>) -> Result<()> {
    if !io::stdout().is_terminal() {
        return print(text);
    }
    let wanted = pager.map(str::trim).filter(|pager| !pager.is_empty());
    let candidates: &[&str] = match &wanted {
        Some(pager) => std::slice::from_ref(pager),
        None => &["less", "more"],
    };
    for candidate in candidates {
        let mut words = candidate.split_whitespace();
        let Some(program) = words.next() else {
            continue;
        };
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            // Leave short texts on the screen; do not ask to be quit.
            command.env("LESS", "FRX");
        }
        let Ok(mut child) = command.spawn() else {
            continue;
        };
        if let Some(mut input) = child.stdin.take() {
            // The reader may quit before the end.
            let _ = input.write_all(text);
        }
        let status = child
            .wait()
            .context(|| format!("unable to wait for pager {candidate}"))?;
        if status.success() {
            return Ok(());
        }
        let error = io::Error::other(status.to_string());
        return Err(error).context(|| format!("pager {candidate} failed"));
    }
    print(text)
}
