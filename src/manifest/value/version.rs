//! Package versions.

/// The maximum number of digits in a numeric component.
const MAX_DIGITS: usize = 16;

/// The version of a package, `[+<epoch>-]<upstream>[-<release>][+<revision>]`.
///
/// Spellings of one version are equal: `1.0` and `1.0.0`. The parts are kept in
/// the form in which they are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageVersion {
    epoch: u16,
    upstream: String,
    release: String,
    revision: u16,
}

impl PackageVersion {
    /// Reads a version.
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
        let upstream = canonical(upstream)?;
        let is_stub = upstream.is_empty() && release.is_none();
        let release = match release {
            // The final release sorts behind all pre-releases: `~` sorts behind
            // letters and digits.
            None => "~".to_owned(),
            Some("") if revision.is_some() => {
                return Err("revision for earliest possible release");
            }
            Some("") => String::new(),
            Some(release) => canonical(release)?,
        };
        Ok(PackageVersion {
            epoch: epoch.unwrap_or(u16::from(!is_stub)),
            upstream,
            release,
            revision: revision.unwrap_or(0),
        })
    }

    /// Whether this is `0`, which a worker sends for an unknown version.
    pub fn is_unknown(&self) -> bool {
        self.epoch == 0 && self.upstream.is_empty() && self.release == "~" && self.revision == 0
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
