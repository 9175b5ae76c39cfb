//! POST over HTTP and HTTPS, with ureq.
//!
//! What ureq does unlike curl, and what is done about it:
//!
//! - It never posts again after a redirect: 307 and 308 are followed here, a
//!   few times, to the same scheme. Other redirects would lose the request, so
//!   they are failures that show where they point.
//! - It makes an error of 4xx and 5xx and drops the body: switched off, as the
//!   first line of the body says what the controller minds.
//! - With a proxy, `http:` requests go through CONNECT, too. Which one is used is
//!   decided here (`proxies`).
//! - It keeps connections: polls are further apart than any server waits, so
//!   each request has its own.
//! - Its waits block: see `transport`.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ureq::http::StatusCode;
use ureq::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, RustlsConnector};
use ureq::{Agent, SendBody};

use super::failure::{Failure, FailureClass, WireError, classify};
use super::proxies::Proxies;
use super::roots;
use super::strict::Strict;
use super::transport::{Dial, Names};
use super::url::{Url, masked};
use crate::error::Result;
use crate::settings::ProxyChoice;
use crate::trace;
use crate::watch::Watch;

/// Redirects of one request that are followed.
const MOST_REDIRECTS: usize = 4;
/// The pause between attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How much of the body of a failure is read for its first line.
const FAILURE_BODY: u64 = 4096;
/// A header must fit into this. Controllers' have a few hundred bytes.
const HEADER_LIMIT: usize = 32 * 1024;

/// How requests are made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time to connect, name resolution and TLS included.
    pub connect_timeout: Duration,
    /// Time for a whole request.
    pub request_timeout: Duration,
    /// Further attempts to connect, within that time.
    pub connect_retries: u32,
    /// PEM file with the certificates to trust, instead of the host's.
    pub ca_file: Option<PathBuf>,
    /// Proxies, as `http://[user:password@]host[:port]`.
    pub proxy: ProxyChoice,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connect_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(300),
            connect_retries: 0,
            ca_file: None,
            proxy: ProxyChoice::default(),
        }
    }
}

/// The body of a request.
#[derive(Debug)]
pub enum Body<'a> {
    /// Bytes at hand.
    Bytes(&'a [u8]),
    /// Bytes before, a file, and bytes after it: streamed, never in memory.
    File(&'a [u8], &'a File, &'a [u8]),
}

/// A 2xx answer.
#[derive(Debug)]
pub struct Answer {
    /// Its `Content-Type`, or nothing.
    pub content_type: String,
    /// As much of its body as was asked for.
    pub body: Vec<u8>,
}

/// Posts to controllers.
#[derive(Debug)]
pub struct Client {
    /// For `http:`.
    plain: Agent,
    /// For `https:`, made when it is needed, or why there is none.
    secure: OnceCell<Result<Agent, Failure>>,
    settings: Settings,
    proxies: Proxies,
    watch: Watch,
}

impl Client {
    /// Checks the settings, reads the CA file if one is named. Makes no connection.
    ///
    /// # Errors
    ///
    /// Of class [`Class::Config`](crate::error::Class::Config): a CA file that cannot be read or has no
    /// certificate in it, a proxy that is not `http:`.
    pub fn new(settings: &Settings, watch: &Watch) -> Result<Client> {
        let client = Client {
            plain: agent(settings, watch, Certificates::new()),
            secure: OnceCell::new(),
            settings: settings.clone(),
            proxies: Proxies::new(&settings.proxy)?,
            watch: watch.clone(),
        };
        if let Some(path) = &settings.ca_file {
            let _ = client.secure.set(Ok(client.trusting(roots::given(path)?)));
        }
        Ok(client)
    }

    fn trusting(&self, certificates: Certificates) -> Agent {
        // An error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        agent(&self.settings, &self.watch, certificates)
    }

    fn secure(&self) -> Result<&Agent, Failure> {
        let make = || roots::of_host().map(|certificates| self.trusting(certificates));
        self.secure.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Whether `https:` URLs can be used at all.
    pub fn check_https(&self) -> Result<(), Failure> {
        self.secure().map(drop)
    }

    /// Posts `body` and returns the answer, at most `most` bytes of it; or none
    /// of it, if `most` is 0: then a complete header with a 2xx status is all
    /// that is waited for.
    pub fn post(
        &self,
        url: &Url,
        content_type: &str,
        body: &Body<'_>,
        most: u64,
    ) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.settings.request_timeout;
        let mut url = url.clone();
        let (mut hops, mut retries) = (0, 0);
        loop {
            trace!(3, "post", "POST {url}");
            let is_first = hops == 0 && retries == 0;
            let left = (!is_first).then(|| deadline.saturating_duration_since(Instant::now()));
            match self.once(&url, content_type, body, most, left) {
                Ok(Step::Done(answer)) => return Ok(answer),
                Ok(Step::Elsewhere(status, location)) => {
                    hops += 1;
                    url = follow(&url, status, &location, hops)?;
                }
                // Nothing of the request was sent.
                Err(failure)
                    if failure.class() == FailureClass::Connect
                        && retries < self.settings.connect_retries
                        && Instant::now() + RETRY_PAUSE < deadline =>
                {
                    retries += 1;
                    trace!(3, "post", "attempt {retries} failed: {failure}");
                    if !self.watch.rest(RETRY_PAUSE) {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn once(
        &self,
        url: &Url,
        content_type: &str,
        body: &Body<'_>,
        most: u64,
        left: Option<Duration>,
    ) -> Result<Step, Failure> {
        let agent = match url.scheme() {
            "https" => self.secure()?,
            _ => &self.plain,
        };
        let mut request = agent
            .post(url.uri())
            .header(CONTENT_TYPE, content_type)
            .header(CONNECTION, "close");
        let proxy = self.proxies.of(url);
        request = request.config().proxy(proxy.cloned()).build();
        if let Some(left) = left {
            request = request.config().timeout_global(Some(left)).build();
        }
        let sent = match body {
            Body::Bytes(bytes) => request.send(*bytes),
            Body::File(before, file, after) => {
                let (mut reader, length) = stream(before, file, after)
                    .map_err(|e| Failure::new(FailureClass::Setup, crate::error::reason(&e)))?;
                request
                    .header(CONTENT_LENGTH, length)
                    .send(SendBody::from_reader(&mut reader))
            }
        };
        let mut response = sent.map_err(|e| {
            let failure = classify(&e);
            match proxy {
                Some(proxy) => {
                    failure.hint(format!("by the proxy {}", masked(&proxy.uri().to_string())))
                }
                None => failure,
            }
        })?;
        let status = response.status();
        trace!(4, "post", "{status} from {url}");
        if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            let location = header(&response, LOCATION.as_str());
            return Ok(Step::Elsewhere(status, location));
        }
        // A part of an answer is not one.
        if !status.is_success() || status == StatusCode::PARTIAL_CONTENT {
            // What can be had of the body is good enough.
            let mut start = Vec::new();
            let reader = response.body_mut().as_reader();
            let _ = reader.take(FAILURE_BODY).read_to_end(&mut start);
            return Err(Failure::status(status, &start));
        }
        let content_type = header(&response, CONTENT_TYPE.as_str());
        let body = match most {
            0 => Vec::new(),
            _ => response
                .body_mut()
                .with_config()
                .limit(most)
                .read_to_vec()
                .map_err(|e| classify(&e))?,
        };
        Ok(Step::Done(Answer { content_type, body }))
    }
}

fn agent(settings: &Settings, watch: &Watch, certificates: Certificates) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::from(certificates))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(settings.request_timeout))
        .timeout_connect(Some(settings.connect_timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .input_buffer_size(HEADER_LIMIT)
        .output_buffer_size(16 * 1024)
        .user_agent(concat!("bbot-agent/", env!("CARGO_PKG_VERSION")))
        .build();
    let connector = ()
        .chain(ConnectProxyConnector::default())
        .chain(Dial {
            watch: watch.clone(),
        })
        .chain(RustlsConnector::default())
        .chain(Strict);
    Agent::with_parts(
        config,
        connector,
        Names {
            watch: watch.clone(),
        },
    )
}

enum Step {
    Done(Answer),
    /// A 3xx, and where to.
    Elsewhere(StatusCode, String),
}

fn header(response: &ureq::http::Response<ureq::Body>, name: &str) -> String {
    let value = response.headers().get(name);
    value.map_or_else(String::new, |value| {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    })
}

/// Where to post again, if at all.
fn follow(from: &Url, status: StatusCode, location: &str, hops: usize) -> Result<Url, Failure> {
    let refused = |why: &str| {
        let to = match location {
            "" => "nowhere".to_owned(),
            location => masked(location),
        };
        let code = status.as_u16();
        Failure::new(
            FailureClass::Redirect,
            format!("redirected ({code}) to {to}: {why}"),
        )
    };
    if !matches!(status.as_u16(), 307 | 308) {
        return Err(
            refused("would lose the request").hint("use the url that the controller points to")
        );
    }
    if location.is_empty() {
        return Err(refused("no location given"));
    }
    if hops > MOST_REDIRECTS {
        return Err(refused("too many redirects"));
    }
    let to = from.join(location).map_err(|why| refused(&why))?;
    if to.scheme() != from.scheme() {
        return Err(refused("not followed to another scheme")
            .hint("use the url that the controller points to"));
    }
    Ok(to)
}

/// A reader over all of it, from the start of the file, and its length.
fn stream<'a>(before: &'a [u8], file: &'a File, after: &'a [u8]) -> io::Result<(impl Read, u64)> {
    use std::io::Seek as _;
    let mut file = file;
    file.rewind()?;
    let size = file.metadata()?.len();
    let around = before.len() + after.len();
    let length = size + u64::try_from(around).unwrap_or(u64::MAX);
    let reader = before.chain(file.take(size)).chain(after);
    Ok((
        Exactly {
            reader,
            left: length,
        },
        length,
    ))
}

/// A reader that must not end early: ureq waits for ever for the rest of a body
/// whose length it has announced.
struct Exactly<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self
            .left
            .saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(WireError::io(
                FailureClass::Setup,
                "the file got shorter while it was sent",
            ));
        }
        Ok(count)
    }
}

/// The certificates as ureq wants them.
pub(super) type Certificates = Vec<Certificate<'static>>;
