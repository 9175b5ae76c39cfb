//! The proxy of a URL, if it has one: that of `--proxy` or of the environment, by the
//! rules of curl(1).

use std::net::IpAddr;

use ureq::Proxy;

use super::url::{Url, masked};
use crate::error::{Class, Context as _, Error, Result};
use crate::settings::ProxyChoice;

/// The proxies by scheme, and who is reached without one.
#[derive(Debug)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<String>,
}

impl Proxies {
    /// Checks the choice of the operator.
    ///
    /// # Errors
    ///
    /// Of class [`Class::Config`]: a proxy that is not `http:`.
    pub(super) fn new(choice: &ProxyChoice) -> Result<Proxies> {
        let separators = |c: char| c == ',' || c.is_ascii_whitespace();
        let exceptions = choice.exceptions.split(separators);
        Ok(Proxies {
            http: choice.http.as_deref().map(parse).transpose()?,
            https: choice.https.as_deref().map(parse).transpose()?,
            exceptions: exceptions
                .filter(|entry| !entry.is_empty())
                .map(str::to_ascii_lowercase)
                .collect(),
        })
    }

    /// The proxy on the way to `url`.
    pub(super) fn of(&self, url: &Url) -> Option<&Proxy> {
        let proxy = match url.scheme() {
            "https" => &self.https,
            _ => &self.http,
        };
        let host = url.host();
        proxy.as_ref().filter(|_| {
            !self
                .exceptions
                .iter()
                .any(|entry| is_exception(entry, &host))
        })
    }
}

fn parse(text: &str) -> Result<Proxy> {
    let what = || format!("unable to use proxy '{}'", masked(text));
    // A socks: proxy would be passed over in silence.
    if !text.starts_with("http://") {
        let error = Error::new(format!("{}: not an http: url", what())).with_class(Class::Config);
        return Err(error.hint("without a proxy: --proxy none"));
    }
    Proxy::new(text)
        .context(what)
        .map_err(|e| e.with_class(Class::Config))
}

/// Whether an entry of `no_proxy` is about `host`: `*`, a domain with all below it, an
/// address, or a network (`10.0.0.0/8`).
fn is_exception(entry: &str, host: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let (network, length) = match entry.split_once('/') {
            Some((network, length)) => (network, length.parse().ok()),
            None => (entry, Some(u32::MAX)),
        };
        let network = network.trim_matches(['[', ']']).parse::<IpAddr>();
        return match (network, length) {
            (Ok(network), Some(length)) => is_within(address, network, length),
            _ => false,
        };
    }
    let domain = entry.trim_matches('.');
    let host = host.trim_end_matches('.');
    host.strip_suffix(domain)
        .is_some_and(|rest| !domain.is_empty() && (rest.is_empty() || rest.ends_with('.')))
}

/// Whether two addresses agree in their first `length` bits.
fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let (difference, bits) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    // A shift by all bits is not defined.
    difference.checked_shr(bits - length.min(bits)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_domains_addresses_and_networks() {
        for (entry, host, is) in [
            ("*", "a.b", true),
            ("example.org", "example.org", true),
            ("example.org", "ci.example.org", true),
            (".example.org", "ci.example.org", true),
            (".example.org.", "example.org.", true),
            ("example.org", "myexample.org", false),
            ("ci.example.org", "example.org", false),
            (".", "example.org", false),
            ("10.0.0.5", "10.0.0.5", true),
            ("10.0.0.5", "10.0.0.50", false),
            ("0.5", "10.0.0.5", false),
            ("10.0.0.0/8", "10.200.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("10.0.0.0/x", "10.0.0.1", false),
            ("fd00::/8", "fd12::1", true),
            ("[::1]", "::1", true),
            ("::/0", "::1", true),
            ("::/0", "10.0.0.1", false),
        ] {
            assert_eq!(is_exception(entry, host), is, "{entry} {host}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let choice = ProxyChoice {
            http: Some("http://plain:1".to_owned()),
            https: None,
            exceptions: " 10.0.0.0/8,LOCAL ".to_owned(),
        };
        let proxies = Proxies::new(&choice).unwrap();
        for (url, host) in [
            ("http://a/", Some("plain")),
            ("https://a/", None),
            ("http://x.local/", None),
            ("http://LOCAL:8080/", None),
            ("http://10.1.1.1/", None),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(proxies.of(&url).map(Proxy::host), host, "{url}");
        }
    }
}
