//! Why a controller could not be asked or told: a class, a code where there is
//! one, and one line for the operator.
//!
//! Failures of controllers are values. One controller that is down must not
//! keep the agent from the next, and what is done about a failure (ask the
//! next, try the upload again, set the result aside) depends on its class.

use std::fmt;
use std::io;

use ureq::Timeout;
use ureq::http::StatusCode;

use crate::error::{Class, Error};

/// The kinds of failures, from near to far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// The agent was told to stop while it waited.
    Stopped,
    /// Something on this host: no certificates, a bad URL, an unreadable file.
    Setup,
    /// The controller's host name could not be resolved.
    Name,
    /// No connection.
    Connect,
    /// A connection, but no trust.
    Tls,
    /// Connected, but not done in time.
    Timeout,
    /// The connection ended too early.
    Cut,
    /// The answer is not HTTP, or too large.
    Protocol,
    /// Told to go elsewhere, in a way that is not followed.
    Redirect,
    /// Status 4xx.
    Client(u16),
    /// Status 5xx.
    Server(u16),
    /// The answer was received, but is not the manifest it should be.
    Content,
    /// A directory that plays controller cannot be used.
    Directory,
}

/// Why a controller could not be asked or told.
///
/// `Display` is one line: class, code and first line of what the controller
/// said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    class: FailureClass,
    reason: String,
    hints: Vec<String>,
}

impl Failure {
    /// A failure of this class; `reason` is one line.
    pub fn new(class: FailureClass, reason: impl Into<String>) -> Failure {
        Failure {
            class,
            reason: reason.into(),
            hints: Vec::new(),
        }
    }

    /// Something about a directory that plays controller.
    pub(crate) fn directory(what: &str, error: &io::Error) -> Failure {
        let reason = crate::error::reason(error);
        let failure = Failure::new(FailureClass::Directory, format!("{what}: {reason}"));
        match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => failure
                .hint("under systemd, what is to be written has to be named by ReadWritePaths="),
            _ => failure,
        }
    }

    pub(crate) fn hint(mut self, line: impl Into<String>) -> Failure {
        self.hints.push(line.into());
        self
    }

    /// The class, for those who decide what to do next.
    pub fn class(&self) -> FailureClass {
        self.class
    }

    /// Advice for the operator, where there is any.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether the same request would be refused again: a 4xx, except the temporary
    /// ones (408 request timeout, 421 misdirected, 423 locked, 425 too early, 429 too
    /// many requests) and that of a proxy (407).
    pub fn is_final(&self) -> bool {
        matches!(self.class, FailureClass::Client(code)
            if !matches!(code, 407 | 408 | 421 | 423 | 425 | 429))
    }

    /// The failure as an error: `<what>: <reason>`.
    pub fn into_error(self, what: &str) -> Error {
        let class = match self.class {
            FailureClass::Setup => Class::Config,
            _ => Class::Unavailable,
        };
        let error = Error::new(format!("{what}: {}", self.reason)).with_class(class);
        self.hints.into_iter().fold(error, Error::hint)
    }

    /// The failure that a status other than 2xx is; `body` is the beginning of
    /// what came with it.
    pub(crate) fn status(status: StatusCode, body: &[u8]) -> Failure {
        let code = status.as_u16();
        let class = match code {
            400..=499 => FailureClass::Client(code),
            500..=599 => FailureClass::Server(code),
            _ => FailureClass::Protocol,
        };
        let word = match class {
            FailureClass::Client(_) => "refused with",
            FailureClass::Server(_) => "server error",
            _ => "unexpected status",
        };
        let mut reason = format!("{word} {code}");
        if let Some(name) = status.canonical_reason() {
            reason.push(' ');
            reason.push_str(&name.to_lowercase());
        }
        // A controller's own words are often the reason phrase once more.
        if let Some(line) = first_line(body)
            && !reason.ends_with(&line.to_lowercase())
        {
            reason.push_str(": ");
            reason.push_str(&line);
        }
        Failure::new(class, reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The first line with words in it, without HTML tags, at most 200 characters;
/// or the message, if the body is a manifest, as an upload's answer is.
fn first_line(body: &[u8]) -> Option<String> {
    const MOST: usize = 200;
    const MESSAGE: &str = "message:";
    let text = String::from_utf8_lossy(body);
    let is_message = |line: &&str| !text.starts_with(':') || line.starts_with(MESSAGE);
    text.lines().filter(is_message).find_map(|line| {
        let line = line.strip_prefix(MESSAGE).unwrap_or(line);
        let mut words = String::new();
        let mut tag = false;
        for c in line.chars() {
            match c {
                '<' => tag = true,
                '>' if tag => tag = false,
                _ if tag => {}
                c if c.is_control() => words.push(' '),
                c => words.push(c),
            }
        }
        let words = words.trim();
        (!words.is_empty()).then(|| words.chars().take(MOST).collect())
    })
}

/// The agent's own failures inside ureq and rustls, both of which pass an `io::Error`
/// on unchanged.
#[derive(Debug)]
pub(super) struct WireError {
    pub(super) class: FailureClass,
    pub(super) what: String,
}

impl WireError {
    /// As an `io::Error` of the kind that neither ureq nor rustls act on: they
    /// take a reset for the end of a body, and retry an interrupted read.
    pub(super) fn io(class: FailureClass, what: impl Into<String>) -> io::Error {
        io::Error::other(WireError {
            class,
            what: what.into(),
        })
    }

    pub(super) fn ureq(class: FailureClass, what: impl Into<String>) -> ureq::Error {
        ureq::Error::Io(WireError::io(class, what))
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for WireError {}

/// Classifies what ureq reports.
pub(super) fn classify(error: &ureq::Error) -> Failure {
    use FailureClass as C;
    match error {
        ureq::Error::Io(io) => classify_io(io),
        ureq::Error::Timeout(phase) => Failure::new(C::Timeout, timeout_text(*phase)),
        ureq::Error::Rustls(tls) => classify_tls(tls),
        ureq::Error::Tls(what) => Failure::new(C::Tls, *what),
        ureq::Error::HostNotFound => Failure::new(C::Name, "host not found"),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Failure::new(C::Setup, format!("bad url: {error}"))
        }
        ureq::Error::Protocol(what) => {
            Failure::new(C::Protocol, format!("not a valid HTTP answer: {what}"))
        }
        ureq::Error::LargeResponseHeader(..) => {
            Failure::new(C::Protocol, "the header of the answer is too large")
        }
        ureq::Error::BodyExceedsLimit(limit) => Failure::new(
            C::Protocol,
            format!("the answer is longer than {limit} bytes"),
        ),
        ureq::Error::ConnectProxyFailed(what) => Failure::new(C::Connect, format!("proxy: {what}")),
        other => Failure::new(C::Protocol, other.to_string()),
    }
}

fn classify_io(io: &io::Error) -> Failure {
    use FailureClass as C;
    let inner = io.get_ref();
    if let Some(wire) = inner.and_then(|e| e.downcast_ref::<WireError>()) {
        return Failure::new(wire.class, wire.what.clone());
    }
    if let Some(tls) = inner.and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return classify_tls(tls);
    }
    if let Some(nested) = inner.and_then(|e| e.downcast_ref::<ureq::Error>()) {
        return classify(nested);
    }
    let class = match io.kind() {
        io::ErrorKind::UnexpectedEof => {
            return Failure::new(C::Cut, "connection closed before the end of the answer");
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => C::Cut,
        _ => C::Protocol,
    };
    Failure::new(class, crate::error::reason(io))
}

fn classify_tls(tls: &rustls::Error) -> Failure {
    let failure = |why: &str| Failure::new(FailureClass::Tls, why);
    let rustls::Error::InvalidCertificate(why) = tls else {
        return failure(&format!("TLS: {tls}"));
    };
    // webpki's own reasons arrive only as text.
    let text = format!("{why:?}");
    if text.contains("CaUsedAsEndEntity") {
        failure("certificate refused: a certificate authority's is used as the server's")
            .hint("a self-signed certificate with CA:TRUE cannot be a server's as well")
            .hint("make a private CA and sign a leaf with it: see CONTROLLERS in bbot-agent(1)")
    } else if text.contains("UnsupportedCertVersion") {
        failure("certificate refused: it is of X.509 version 1").hint(
            "sign it anew with extensions: openssl x509 -req -extfile <file with subjectAltName>",
        )
    } else if text.contains("UnknownIssuer") {
        failure("certificate refused: not signed by a trusted authority")
            .hint("name the authority's certificate: --ca-file <file>")
    } else if text.contains("NotValidForName") {
        failure(&format!("certificate refused: {why}"))
            .hint("the certificate needs a subjectAltName with the host of the url")
    } else if text.contains("Expired") || text.contains("NotValidYet") {
        failure(&format!("certificate refused: {why}")).hint("is the clock of this host right?")
    } else {
        failure(&format!("certificate refused: {why}"))
    }
}

fn timeout_text(phase: Timeout) -> &'static str {
    match phase {
        Timeout::Connect => "timed out connecting",
        Timeout::Resolve => "timed out resolving the host name",
        _ => "timed out waiting for the answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_shows_class_code_and_first_line() {
        let text = |code, body: &str| {
            Failure::status(StatusCode::from_u16(code).unwrap(), body.as_bytes()).to_string()
        };
        assert_eq!(text(401, "unauthorized\n"), "refused with 401 unauthorized");
        assert_eq!(
            text(400, "\n  request:3:1: error: unknown name 'x'\nmore"),
            "refused with 400 bad request: request:3:1: error: unknown name 'x'"
        );
        assert_eq!(
            text(502, "<html><h1>Bad\tthing</h1>"),
            "server error 502 bad gateway: Bad thing"
        );
        assert_eq!(text(599, ""), "server error 599");
        assert_eq!(
            text(422, ": 1\nstatus: 422\nmessage: checksum mismatch\n"),
            "refused with 422 unprocessable entity: checksum mismatch"
        );
    }

    #[test]
    fn only_a_verdict_is_final() {
        let failed = |code| Failure::status(StatusCode::from_u16(code).unwrap(), b"");
        for code in [400, 401, 403, 404, 413, 415, 422] {
            assert!(failed(code).is_final(), "{code}");
        }
        for code in [407, 408, 425, 429, 500, 502, 503] {
            assert!(!failed(code).is_final(), "{code}");
        }
        assert!(!Failure::new(FailureClass::Cut, "x").is_final());
    }

    #[test]
    fn a_long_first_line_is_cut() {
        let line = first_line("é".repeat(1000).as_bytes()).unwrap();
        assert_eq!(line.chars().count(), 200);
    }
}
