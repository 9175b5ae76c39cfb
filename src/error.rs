//! The one error type: what was attempted, why it failed, what to do about it.
//!
//! A layer that knows a noun adds it, once: `sys` returns bare `io::Error`s,
//! `snapshot` says which paths, the agent prints. An error has no variants.
//! Where a caller branches (no task, timed out, machine ignored because ...), the
//! outcome is a value and not an error.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

/// `Result` with [`Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of an [`Error`], for the exit status of the program (sysexits.h where it
/// has a fitting code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An explained failure: 1.
    Failure,
    /// A wrong command line: 64 (`EX_USAGE`).
    Usage,
    /// No controller answered: 69 (`EX_UNAVAILABLE`).
    Unavailable,
    /// The operating system refused something basic: 71 (`EX_OSERR`).
    Os,
    /// Another agent holds the lock: 75 (`EX_TEMPFAIL`).
    Locked,
    /// A missing permission: 77 (`EX_NOPERM`).
    Permission,
    /// The host or an option file is set up wrongly: 78 (`EX_CONFIG`).
    Config,
}

impl Class {
    /// The exit status of a program that ends because of such an error.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Failure => 1,
            Class::Usage => 64,
            Class::Unavailable => 69,
            Class::Os => 71,
            Class::Locked => 75,
            Class::Permission => 77,
            Class::Config => 78,
        }
    }
}

/// An operation that failed, and the reason.
///
/// `Display` gives one line, `unable to <verb> <noun>: <reason>`; [`hints`]
/// are further lines for the operator: the remedy, where one is known.
///
/// [`hints`]: Error::hints
#[derive(Debug)]
pub struct Error(Box<Inner>);

// Boxed, so that a `Result` stays one word on the paths that succeed.
#[derive(Debug)]
struct Inner {
    what: String,
    class: Option<Class>,
    hints: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that is explained by `what` alone.
    pub fn new(what: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            what: what.into(),
            class: None,
            hints: Vec::new(),
            source: None,
        }))
    }

    /// The same error, of class `class`.
    pub fn with_class(mut self, class: Class) -> Error {
        self.0.class = Some(class);
        self
    }

    /// The same error with one more line of advice.
    pub fn hint(mut self, line: impl Into<String>) -> Error {
        self.0.hints.push(line.into());
        self
    }

    /// The class: the one that was set on this error or on a cause of it, else
    /// [`Class::Permission`] if the system said so, else [`Class::Failure`].
    pub fn class(&self) -> Class {
        self.chain()
            .find_map(|error| error.0.class)
            .unwrap_or_else(|| match self.io().map(io::Error::kind) {
                Some(io::ErrorKind::PermissionDenied) => Class::Permission,
                _ => Class::Failure,
            })
    }

    /// Advice, this error's first, then that of its causes.
    pub fn hints(&self) -> impl Iterator<Item = &str> {
        self.chain()
            .flat_map(|error| error.0.hints.iter().map(String::as_str))
    }

    /// The system error underneath, if there is one.
    pub fn io(&self) -> Option<&io::Error> {
        let mut source = self.source();
        while let Some(error) = source {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return Some(io);
            }
            source = error.source();
        }
        None
    }

    /// The `errno` underneath, if there is one.
    pub fn errno(&self) -> Option<i32> {
        self.io().and_then(io::Error::raw_os_error)
    }

    fn chain(&self) -> impl Iterator<Item = &Error> {
        std::iter::successors(Some(self), |error| {
            error.0.source.as_deref()?.downcast_ref::<Error>()
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        let Some(source) = &self.0.source else {
            return Ok(());
        };
        f.write_str(": ")?;
        match source.downcast_ref::<io::Error>() {
            // "No space left on device", without the number.
            Some(io) => f.write_str(&reason(io)),
            None => source.fmt(f),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// The text of a system error as strerror(3) has it, without `(os error 28)`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Says what was being done when a result turned out to be an error.
pub trait Context<T> {
    /// Wraps the error with `what`, in the form `unable to <verb> <noun>`.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| {
            let mut error = Error::new(what());
            error.0.source = Some(source.into());
            error
        })
    }
}

/// A path as a word of a shell's command line.
pub fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Error {
        io::Error::from_raw_os_error(nix::libc::ENOSPC)
    }

    #[test]
    fn names_the_operation_and_the_reason_once() {
        let inner: Result<()> = Err(full()).context(|| "unable to write /x");
        let outer = inner.context(|| "unable to keep a").unwrap_err();
        assert_eq!(
            outer.to_string(),
            "unable to keep a: unable to write /x: No space left on device"
        );
        assert_eq!(outer.errno(), Some(nix::libc::ENOSPC));
    }

    #[test]
    fn class_and_hints_come_through_the_layers() {
        let inner: Result<()> = Err(Error::new("no bridge br1")
            .with_class(Class::Config)
            .hint("make it: ip link add br1 type bridge"));
        let outer = inner
            .context(|| "unable to start")
            .unwrap_err()
            .hint("or use --bridge");
        assert_eq!(outer.class(), Class::Config);
        assert_eq!(outer.class().exit_code(), 78);
        let hints: Vec<_> = outer.hints().collect();
        assert_eq!(
            hints,
            ["or use --bridge", "make it: ip link add br1 type bridge"]
        );
    }

    #[test]
    fn a_refused_permission_is_its_own_class() {
        let denied = io::Error::from_raw_os_error(nix::libc::EACCES);
        let error = Err::<(), _>(denied)
            .context(|| "unable to open /x")
            .unwrap_err();
        assert_eq!(error.class(), Class::Permission);
    }
}
