//! URLs of controllers: arguments of the command line, where a redirect leads,
//! and how a URL is shown.
//!
//! A URL is used exactly as it was given, the query above all: a controller
//! tells its functions apart by it (`?build-task&repository=...`).

use std::fmt;
use std::path::{Path, PathBuf};

use ureq::http::Uri;

use crate::error::{Class, Error, Result};

/// An `http:` or `https:` URL. `Display` leaves a password out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(Uri);

/// Where a controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Reached over the network.
    Http(Url),
    /// A directory that plays controller.
    Directory(PathBuf),
}

/// One argument of the command line: `[<priority>=]<url>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// `[F]DCBA` in decimal, if given. Higher ones are asked first.
    pub priority: Option<u32>,
    /// Where the controller is.
    pub place: Place,
}

impl Url {
    /// Takes a URL with the scheme `http` or `https` and a host.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Url, String> {
        // A fragment is never sent, and no part of what is asked for.
        let sent = text.split('#').next().unwrap_or_default();
        match scheme_of(sent).map(str::to_ascii_lowercase).as_deref() {
            Some("http" | "https") => {}
            Some(other) => return Err(format!("unsupported scheme '{other}'")),
            None => return Err("no scheme in url".to_owned()),
        }
        let uri: Uri = sent.parse().map_err(|e| format!("not a url: {e}"))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err("no host in url".to_owned());
        }
        Ok(Url(uri))
    }

    /// Where a redirect to `location` leads (RFC 3986 section 5.2, as far as
    /// servers use it).
    pub(super) fn join(&self, location: &str) -> Result<Url, String> {
        let base = &self.0;
        let scheme = base.scheme_str().unwrap_or("http");
        let authority = base.authority().map_or("", |a| a.as_str());
        let path = base.path();
        let text = if scheme_of(location).is_some() {
            location.to_owned()
        } else if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else if location.starts_with('?') {
            format!("{scheme}://{authority}{path}{location}")
        } else {
            let directory = &path[..=path.rfind('/').unwrap_or(0)];
            format!("{scheme}://{authority}{directory}{location}")
        };
        Url::parse(&text)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or("http")
    }

    /// The URL as it was given, password and all: for the wire and for files
    /// that only the agent reads.
    #[must_use]
    pub fn secret_text(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0.to_string()))
    }
}

/// `text` with the user and password of a URL replaced.
#[must_use]
pub fn masked(text: &str) -> String {
    let Some(start) = text.find("://").map(|at| at + 3) else {
        return text.to_owned();
    };
    let end = text[start..]
        .find(['/', '?', '#'])
        .map_or(text.len(), |at| start + at);
    match text[start..end].rfind('@') {
        Some(at) => format!("{}***{}", &text[..start], &text[start + at..]),
        None => text.to_owned(),
    }
}

/// The scheme of a URL, if it has one (RFC 3986 section 3.1).
fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    valid.then_some(scheme)
}

impl Argument {
    /// Takes `[<priority>=]<url>`: `http:`, `https:`, `file:`, or an absolute
    /// path. The priority has up to 5 decimal digits.
    ///
    /// # Errors
    ///
    /// Of class [`Class::Usage`], naming the argument and what was expected.
    pub fn parse(argument: &str) -> Result<Argument> {
        let wrong = |why: String| {
            Error::new(format!(
                "invalid controller '{}': {why}",
                masked(argument)
            ))
            .with_class(Class::Usage)
            .hint("expected [<priority>=]<url>, with an http:, https: or file: url, or an absolute path")
        };
        let (priority, url) = match argument.split_once('=') {
            Some((digits, url))
                if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
            {
                if digits.len() > 5 {
                    return Err(wrong(format!("priority {digits} has more than 5 digits")));
                }
                (digits.parse().ok(), url)
            }
            _ => (None, argument),
        };
        let place = if url.starts_with('/') {
            Place::Directory(PathBuf::from(url))
        } else if let Some(path) = url.strip_prefix("file:") {
            Place::Directory(file_path(path).map_err(wrong)?)
        } else {
            Place::Http(Url::parse(url).map_err(wrong)?)
        };
        Ok(Argument { priority, place })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Http(url) => url.fmt(f),
            Place::Directory(path) => path.display().fmt(f),
        }
    }
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
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => match u8::try_from(high * 16 + low) {
                Ok(byte) if byte != 0 => decoded.push(byte),
                _ => return Err("zero byte in path".to_owned()),
            },
            _ => return Err("bad percent-encoding".to_owned()),
        }
    }
    let decoded = String::from_utf8(decoded).map_err(|_| "path is not UTF-8".to_owned())?;
    Ok(Path::new(&decoded).to_owned())
}

/// The `file:` URL of an absolute path.
pub(super) fn file_url(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut url = String::from("file://");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~+".contains(byte) {
            url.push(char::from(*byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(base: &str, location: &str) -> String {
        match Url::parse(base).unwrap().join(location) {
            Ok(url) => url.secret_text(),
            Err(why) => why,
        }
    }

    #[test]
    fn a_redirect_is_resolved_against_the_url() {
        let base = "http://h:81/a/b?build-task";
        assert_eq!(joined(base, "http://g/x?y"), "http://g/x?y");
        assert_eq!(joined(base, "//g/x"), "http://g/x");
        assert_eq!(joined(base, "/x?y"), "http://h:81/x?y");
        assert_eq!(joined(base, "?z"), "http://h:81/a/b?z");
        assert_eq!(joined(base, "x"), "http://h:81/a/x");
        assert_eq!(joined(base, "ftp://g/"), "unsupported scheme 'ftp'");
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = Url::parse("http://u:s@h/?a@b").unwrap();
        assert_eq!(url.to_string(), "http://***@h/?a@b");
        assert_eq!(url.secret_text(), "http://u:s@h/?a@b");
        let error = Argument::parse("gopher://u:s@h/").unwrap_err();
        assert!(!error.to_string().contains("u:s"), "{error}");
    }

    #[test]
    fn the_query_stays_as_it_is() {
        let text = "https://ci.example.org/?build-task&repository=a%2Fb&r=x+y";
        assert_eq!(Url::parse(text).unwrap().secret_text(), text);
    }

    #[test]
    fn arguments_are_urls_directories_and_priorities() {
        let place = |text: &str| Argument::parse(text).unwrap().place;
        assert_eq!(place("/srv/c"), Place::Directory("/srv/c".into()));
        assert_eq!(
            place("file:///srv/a%20c"),
            Place::Directory("/srv/a c".into())
        );
        assert_eq!(place("file:/srv/c"), Place::Directory("/srv/c".into()));
        assert_eq!(
            place("file://localhost/srv/c"),
            Place::Directory("/srv/c".into())
        );
        let argument = Argument::parse("0101=https://h/?build-task").unwrap();
        assert_eq!(argument.priority, Some(101));
        // An equals sign of the query is none of a priority.
        let argument = Argument::parse("https://h/?build-task&interactive=true").unwrap();
        assert_eq!(argument.priority, None);
    }

    #[test]
    fn a_path_comes_back_from_its_url() {
        for path in ["/a/b.manifest", "/a b/%41/é=?#", "/0=x"] {
            let url = file_url(Path::new(path));
            let argument = Argument::parse(&url).unwrap();
            assert_eq!(argument.place, Place::Directory(path.into()), "{url}");
        }
    }

    #[test]
    fn a_wrong_argument_says_why() {
        for (text, why) in [
            ("123456=http://h/", "priority 123456 has more than 5 digits"),
            ("ftp://h/", "unsupported scheme 'ftp'"),
            ("h/", "no scheme in url"),
            ("file:c", "a file: url needs an absolute path"),
            ("file:///a%0", "bad percent-encoding"),
            ("", "no scheme in url"),
            ("http://a b/", "not a url: invalid uri character"),
        ] {
            let error = Argument::parse(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid controller '{text}': {why}")
            );
            assert_eq!(error.class(), Class::Usage);
        }
    }
}
