//! URLs: how they are read, where a redirect leads, and how they are shown.
//!
//! A URL is used exactly as it was given, the query above all: a controller
//! tells its functions apart by it (`?build-task&repository=...`).

use std::fmt;

use ureq::http::Uri;

/// An `http:` or `https:` URL. `Display` leaves a password out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(Uri);

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
    pub fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or("http")
    }

    /// The host in lower case, without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> String {
        let host = self.0.host().unwrap_or_default();
        host.trim_matches(['[', ']']).to_ascii_lowercase()
    }

    /// Scheme, host and port, without a password.
    pub(super) fn origin(&self) -> String {
        let authority = self.0.authority().map_or("", |a| a.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{}://{host}", self.scheme())
    }

    /// The URL as it was given, password and all: for the wire and for files
    /// that only the agent reads.
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
    }

    #[test]
    fn the_query_stays_as_it_is() {
        let text = "https://ci.example.org/?build-task&repository=a%2Fb&r=x+y";
        assert_eq!(Url::parse(text).unwrap().secret_text(), text);
    }
}
