//! Package versions.

use std::cmp::Ordering;
use std::fmt;

/// The most digits in a component of digits only.
const MAX_DIGITS: usize = 16;

/// The version of a package, `[+<epoch>-]<upstream>[-<release>][+<revision>]`.
///
/// Versions that mean the same are equal: `1.0` and `1.0.0`.
#[derive(Clone, Debug)]
pub struct PackageVersion {
    epoch: u16,
    upstream: String,
    release: Option<String>,
    revision: Option<u16>,
    canonical_upstream: String,
    canonical_release: String,
}

impl PackageVersion {
    /// Reads a version.
    ///
    /// # Errors
    ///
    /// Which rule it breaks, in libbpkg's words.
    pub fn parse(text: &str) -> Result<PackageVersion, &'static str> {
        let (epoch, rest) = match text.strip_prefix('+') {
            Some(rest) => {
                let (epoch, rest) = rest.split_once('-').ok_or("unexpected end")?;
                let epoch = number(epoch);
                (
                    Some(epoch.ok_or("epoch should be 2-byte unsigned integer")?),
                    rest,
                )
            }
            None => (None, text),
        };
        let (rest, revision) = match rest.split_once('+') {
            Some((_, "")) => return Err("unexpected end"),
            Some((rest, revision)) => {
                let revision = number(revision);
                let revision = revision.ok_or("revision should be 2-byte unsigned integer")?;
                (rest, Some(revision))
            }
            None => (rest, None),
        };
        let (upstream, release) = match rest.split_once('-') {
            Some((upstream, release)) => (upstream, Some(release)),
            None => (rest, None),
        };
        let canonical_upstream = canonical(upstream)?;
        let canonical_release = match release {
            // No release is the final one, behind all others; letters and digits
            // sort before the tilde.
            None => "~".to_owned(),
            Some("") if revision.is_some() => {
                return Err("revision for earliest possible release");
            }
            Some("") => String::new(),
            Some(release) => canonical(release)?,
        };
        let is_stub = canonical_upstream.is_empty() && release.is_none();
        Ok(PackageVersion {
            epoch: epoch.unwrap_or(u16::from(!is_stub)),
            upstream: upstream.to_owned(),
            release: release.map(str::to_owned),
            revision: revision.filter(|r| *r > 0),
            canonical_upstream,
            canonical_release,
        })
    }

    /// The epoch, 1 unless given.
    #[must_use]
    pub fn epoch(&self) -> u16 {
        self.epoch
    }

    /// The upstream part.
    #[must_use]
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// The release part, empty for the earliest possible one, `None` for the
    /// final one.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    /// The revision, unless it is 0.
    #[must_use]
    pub fn revision(&self) -> Option<u16> {
        self.revision
    }

    /// The upstream part in the form in which it is compared.
    #[must_use]
    pub fn canonical_upstream(&self) -> &str {
        &self.canonical_upstream
    }

    /// The release part in the form in which it is compared.
    #[must_use]
    pub fn canonical_release(&self) -> &str {
        &self.canonical_release
    }

    /// Whether this is `0`, the version of what is not known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.key() == (0, "", "~", 0)
    }

    fn key(&self) -> (u16, &str, &str, u16) {
        (
            self.epoch,
            &self.canonical_upstream,
            &self.canonical_release,
            self.revision.unwrap_or(0),
        )
    }
}

impl fmt::Display for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_stub = self.canonical_upstream.is_empty() && self.release.is_none();
        if self.epoch != u16::from(!is_stub) {
            write!(f, "+{}-", self.epoch)?;
        }
        f.write_str(&self.upstream)?;
        if let Some(release) = &self.release {
            write!(f, "-{release}")?;
        }
        if let Some(revision) = self.revision {
            write!(f, "+{revision}")?;
        }
        Ok(())
    }
}

impl PartialEq for PackageVersion {
    fn eq(&self, other: &PackageVersion) -> bool {
        self.key() == other.key()
    }
}

impl Eq for PackageVersion {}

impl PartialOrd for PackageVersion {
    fn partial_cmp(&self, other: &PackageVersion) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PackageVersion {
    fn cmp(&self, other: &PackageVersion) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Lower-case components; those of digits padded with zeros, so that text
/// sorts as numbers do; without zero components at the end.
fn canonical(part: &str) -> Result<String, &'static str> {
    if part.is_empty() {
        return Err("unexpected end");
    }
    let mut canonical = String::new();
    let mut end = 0;
    for component in part.split('.') {
        if component.is_empty() {
            return Err("unexpected '.' character position");
        }
        if !component.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err("alpha-numeric characters expected in a component");
        }
        if !canonical.is_empty() {
            canonical.push('.');
        }
        if component.bytes().all(|b| b.is_ascii_digit()) {
            if component.len() > MAX_DIGITS {
                return Err("16 digits maximum allowed in a component");
            }
            let padding = MAX_DIGITS - component.len();
            canonical.extend(std::iter::repeat_n('0', padding));
        }
        canonical.push_str(&component.to_ascii_lowercase());
        if component.bytes().any(|b| b != b'0') {
            end = canonical.len();
        }
    }
    canonical.truncate(end);
    Ok(canonical)
}
