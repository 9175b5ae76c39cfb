//! The certificates that are trusted: `--ca-file`, or the host's own.

use std::path::{Path, PathBuf};

use ureq::tls::{PemItem, parse_pem};

use super::failure::{Failure, FailureClass};
use super::http::Certificates;
use crate::durable;
use crate::error::{Class, Context as _, Error, Result};

/// Where distributions keep their bundle: Debian, Fedora, openSUSE, Alpine and
/// the Build OS, in the order of curl.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// Bundles have a few hundred kB.
const MAX_BUNDLE_BYTES: u64 = 16 << 20;

/// The certificates in the file that the operator names.
pub(super) fn given(path: &Path) -> Result<Certificates> {
    read(path).map_err(|error| {
        error
            .with_class(Class::Config)
            .hint("--ca-file expects certificates in PEM form")
    })
}

/// The certificates that the host trusts. Loading them costs as much as an idle turn, so
/// that only `https:` controllers do it.
pub(super) fn of_host() -> Result<Certificates, Failure> {
    bundled(BUNDLES)
}

fn bundled(bundles: &[&str]) -> Result<Certificates, Failure> {
    let Some(path) = bundles.iter().map(PathBuf::from).find(|path| path.exists()) else {
        return Err(Failure::new(
            FailureClass::Setup,
            "no certificates to trust: neither --ca-file nor a bundle of the host",
        )
        .hint(format!("looked for {}", bundles.join(", ")))
        .hint("install the host's bundle (Debian: ca-certificates), or use --ca-file <file>"));
    };
    read(&path).map_err(|error| {
        Failure::new(FailureClass::Setup, error.to_string()).hint("or use --ca-file <file>")
    })
}

fn read(path: &Path) -> Result<Certificates> {
    let what = || format!("unable to read certificates {}", path.display());
    let text = durable::read(path, MAX_BUNDLE_BYTES).context(what)?;
    let mut list = Certificates::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.context(what)? {
            list.push(certificate);
        }
    }
    if list.is_empty() {
        return Err(Error::new(format!("{}: no certificate in it", what())));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_bundle_both_ways_out_are_named() {
        let failure = bundled(&["/nonexistent/a"]).unwrap_err();
        assert!(failure.to_string().contains("--ca-file"), "{failure}");
        assert_eq!(failure.class(), FailureClass::Setup);
        assert!(failure.hints()[0].contains("/nonexistent/a"));
    }

    #[test]
    fn a_ca_file_without_certificates_is_an_error() {
        let error = given(Path::new("/dev/null")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to read certificates /dev/null: no certificate in it"
        );
        assert_eq!(error.class(), Class::Config);
    }
}
