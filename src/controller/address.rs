//! Where controllers are, and where their results go.
//!
//! A controller is an HTTP server or a directory that plays one
//! ([`spool`](super::spool)). An address is parsed once, where it enters the
//! program; whatever has to tell the two kinds apart matches on it.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::url::{Url, masked};
use crate::error::{Class, Error, Result};
use crate::priority::Priority;

/// How the names of tasks and results end in a directory that plays controller.
pub(super) const SUFFIX: &str = ".manifest";

/// The characters that are encoded in the URL of a path.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'+');

/// Where a controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerAddress {
    /// An HTTP server.
    Http(Url),
    /// A directory that plays controller.
    Directory(PathBuf),
}

/// One argument of the command line: `[<priority>=]<url>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerArgument {
    /// `[F]DCBA` in decimal, 0 unless given.
    pub priority: Priority,
    /// Where the controller is.
    pub address: ControllerAddress,
}

/// Where a result or an artifact goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadTarget {
    /// It is posted there.
    Http(Url),
    /// It is the result of this task in a directory that plays controller.
    Spool {
        /// The directory.
        directory: PathBuf,
        /// The name of the task.
        task: String,
    },
    /// It is dropped: no controller gave the task out.
    Nowhere,
}

impl ControllerAddress {
    /// Reads an `http:`, `https:` or `file:` URL, or an absolute path.
    fn parse(text: &str) -> Result<ControllerAddress, String> {
        if text.starts_with('/') {
            Ok(ControllerAddress::Directory(PathBuf::from(text)))
        } else if let Some(path) = text.strip_prefix("file:") {
            file_path(path).map(ControllerAddress::Directory)
        } else {
            Url::parse(text).map(ControllerAddress::Http)
        }
    }
}

/// Without a password.
impl fmt::Display for ControllerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControllerAddress::Http(url) => url.fmt(f),
            ControllerAddress::Directory(path) => path.display().fmt(f),
        }
    }
}

impl ControllerArgument {
    /// Reads `[<priority>=]<url>`. The priority has up to 5 decimal digits.
    ///
    /// # Errors
    ///
    /// Of class [`Class::Usage`], naming the argument and what was expected.
    pub fn parse(argument: &str) -> Result<ControllerArgument> {
        let wrong = |why: String| {
            Error::new(format!(
                "invalid controller '{}': {why}",
                masked(argument)
            ))
            .with_class(Class::Usage)
            .hint("expected [<priority>=]<url>, with a priority of up to 5 digits, and an http:, https: or file: url or an absolute path")
        };
        let (priority, url) = match argument.split_once('=') {
            Some((digits, url))
                if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
            {
                (Priority::parse(digits).map_err(wrong)?, url)
            }
            _ => (Priority::default(), argument),
        };
        let address = ControllerAddress::parse(url).map_err(wrong)?;
        Ok(ControllerArgument { priority, address })
    }
}

impl UploadTarget {
    /// Reads the URL that a controller gave, or [`UploadTarget::to_url`] wrote.
    ///
    /// # Errors
    ///
    /// A clause that says what is wrong with it.
    pub fn parse(text: &str) -> Result<UploadTarget, String> {
        if text.is_empty() {
            return Ok(UploadTarget::Nowhere);
        }
        match ControllerAddress::parse(text)? {
            ControllerAddress::Http(url) => Ok(UploadTarget::Http(url)),
            ControllerAddress::Directory(path) => split_result(&path)
                .map(|(directory, task)| UploadTarget::Spool { directory, task })
                .ok_or_else(|| format!("no result of a directory: {}", path.display())),
        }
    }

    /// The URL, password and all: for files that only the agent reads.
    pub fn to_url(&self) -> String {
        match self {
            UploadTarget::Http(url) => url.secret_text(),
            UploadTarget::Spool { directory, task } => {
                file_url(&directory.join("results").join(format!("{task}{SUFFIX}")))
            }
            UploadTarget::Nowhere => String::new(),
        }
    }

    /// The part that is out of reach as a whole: scheme and authority of a URL, or the
    /// directory.
    pub fn server(&self) -> String {
        match self {
            UploadTarget::Http(url) => url.origin(),
            UploadTarget::Spool { directory, .. } => directory.display().to_string(),
            UploadTarget::Nowhere => String::new(),
        }
    }

    /// Whether a task whose agent died is offered again by itself, so that its
    /// controller need not be told.
    pub fn offers_again(&self) -> bool {
        !matches!(self, UploadTarget::Http(_))
    }
}

/// Without a password.
impl fmt::Display for UploadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.to_url()))
    }
}

/// The directory and the task that the path of a result is of.
fn split_result(path: &Path) -> Option<(PathBuf, String)> {
    let task = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let results = path.parent()?;
    if task.is_empty() || task.starts_with('.') || results.file_name()? != "results" {
        return None;
    }
    Some((results.parent()?.to_owned(), task.to_owned()))
}

/// The path of a `file:` URL (RFC 8089): `/p`, `///p` or `//localhost/p`, with
/// percent-encoding undone.
fn file_path(rest: &str) -> Result<PathBuf, String> {
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => rest,
    };
    if !path.starts_with('/') {
        return Err("a file: url needs an absolute path".to_owned());
    }
    // The crate leaves other percent signs as they are.
    let is_encoded = |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if !path.split('%').skip(1).all(is_encoded) {
        return Err("bad percent-encoding".to_owned());
    }
    let decoded = percent_decode_str(path).decode_utf8();
    let decoded = decoded.map_err(|_| "path is not UTF-8".to_owned())?;
    if decoded.contains('\0') {
        return Err("zero byte in path".to_owned());
    }
    Ok(Path::new(&*decoded).to_owned())
}

/// The `file:` URL of an absolute path.
fn file_url(path: &Path) -> String {
    format!(
        "file://{}",
        percent_encode(path.as_os_str().as_bytes(), ENCODED)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_urls_directories_and_priorities() {
        let place = |text: &str| ControllerArgument::parse(text).unwrap().address;
        assert_eq!(
            place("/srv/c"),
            ControllerAddress::Directory("/srv/c".into())
        );
        assert_eq!(
            place("file:///srv/a%20c"),
            ControllerAddress::Directory("/srv/a c".into())
        );
        assert_eq!(
            place("file:/srv/c"),
            ControllerAddress::Directory("/srv/c".into())
        );
        assert_eq!(
            place("file://localhost/srv/c"),
            ControllerAddress::Directory("/srv/c".into())
        );
        let argument = ControllerArgument::parse("0101=https://h/?build-task").unwrap();
        assert_eq!(argument.priority.to_string(), "0101");
        // An equals sign of the query is none of a priority.
        let argument = ControllerArgument::parse("https://h/?build-task&interactive=true").unwrap();
        assert_eq!(argument.priority, Priority::default());
    }

    #[test]
    fn a_path_comes_back_from_its_url() {
        for path in ["/a/b.manifest", "/a b/%41/é=?#", "/0=x"] {
            let url = file_url(Path::new(path));
            let argument = ControllerArgument::parse(&url).unwrap();
            assert_eq!(
                argument.address,
                ControllerAddress::Directory(path.into()),
                "{url}"
            );
        }
    }

    #[test]
    fn a_target_comes_back_from_its_url() {
        for url in [
            "http://u:p@h:1/?build-result",
            "file:///srv/a%20c/results/x.manifest",
            "",
        ] {
            let target = UploadTarget::parse(url).unwrap();
            assert_eq!(target.to_url(), url);
        }
        assert!(UploadTarget::parse("/srv/x.manifest").is_err());
        let target = UploadTarget::parse("https://u:p@h:1/a?b").unwrap();
        assert_eq!(target.server(), "https://h:1");
        assert_eq!(target.to_string(), "https://***@h:1/a?b");
    }

    #[test]
    fn a_password_is_not_shown_in_an_error() {
        let error = ControllerArgument::parse("gopher://u:s@h/").unwrap_err();
        assert!(!error.to_string().contains("u:s"), "{error}");
    }

    #[test]
    fn a_wrong_argument_says_why() {
        for (text, why) in [
            ("123456=http://h/", "priority 123456 has more than 5 digits"),
            ("ftp://h/", "unsupported scheme 'ftp'"),
            ("h/", "no scheme in url"),
            ("file:c", "a file: url needs an absolute path"),
            ("file:///a%0", "bad percent-encoding"),
            ("file:///a%+1", "bad percent-encoding"),
            ("file:///a%00", "zero byte in path"),
            ("file:///%ff", "path is not UTF-8"),
            ("", "no scheme in url"),
            ("http://a b/", "not a url: invalid uri character"),
        ] {
            let error = ControllerArgument::parse(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid controller '{text}': {why}")
            );
            assert_eq!(error.class(), Class::Usage);
        }
    }
}
