//! Standard versions: those of build2's own packages.

use std::cmp::Ordering;

/// The snapshot number of `z`, the latest one.
const LATEST: u64 = u64::MAX;

/// `[+<epoch>-]<major>.<minor>.<patch>[-(a|b).<number>[.<snapshot>[.<id>]]][+<revision>]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardVersion {
    epoch: u16,
    core: [u64; 3],
    /// 0 to 499 for alpha, 500 to 999 for beta.
    pre_release: Option<u64>,
    snapshot: Option<u64>,
    snapshot_id: String,
    revision: u16,
}

impl StandardVersion {
    /// Reads a version.
    pub fn parse(text: &str) -> Result<StandardVersion, &'static str> {
        let mut rest = text;
        let mut epoch = 1;
        if let Some(after) = rest.strip_prefix('+') {
            rest = after;
            epoch = number(&mut rest, 1, u64::from(u16::MAX)).ok_or("invalid epoch")?;
            take(&mut rest, "-").ok_or("'-' expected after epoch")?;
        }
        let major = number(&mut rest, 0, 99_999).ok_or("invalid major version")?;
        take(&mut rest, ".").ok_or("'.' expected after major version")?;
        let minor = number(&mut rest, 0, 99_999).ok_or("invalid minor version")?;
        take(&mut rest, ".").ok_or("'.' expected after minor version")?;
        let patch = number(&mut rest, 0, 99_999).ok_or("invalid patch version")?;
        let mut version = StandardVersion {
            epoch: u16::try_from(epoch).map_err(|_| "invalid epoch")?,
            core: [major, minor, patch],
            pre_release: None,
            snapshot: None,
            snapshot_id: String::new(),
            revision: 0,
        };
        if take(&mut rest, "-").is_some() {
            version.pre_release(&mut rest)?;
        }
        if version.core == [0, 0, 0] {
            return Err("0.0.0 version");
        }
        if take(&mut rest, "+").is_some() {
            let revision = number(&mut rest, 1, u64::from(u16::MAX));
            let revision = revision.and_then(|r| u16::try_from(r).ok());
            version.revision = revision.ok_or("invalid revision")?;
        }
        if !rest.is_empty() {
            return Err("junk after version");
        }
        Ok(version)
    }

    fn pre_release(&mut self, rest: &mut &str) -> Result<(), &'static str> {
        let beta = if take(rest, "a").is_some() {
            0
        } else {
            take(rest, "b").ok_or("'a' or 'b' expected in pre-release")?;
            500
        };
        take(rest, ".").ok_or("'.' expected after pre-release letter")?;
        let count = number(rest, 0, 499).ok_or("invalid pre-release")?;
        self.pre_release = Some(beta + count);
        if take(rest, ".").is_none() {
            // Number 0 precedes the first pre-release and has snapshots only.
            return if count == 0 {
                Err("invalid final pre-release")
            } else {
                Ok(())
            };
        }
        if take(rest, "z").is_some() {
            self.snapshot = Some(LATEST);
            return Ok(());
        }
        let snapshot = number(rest, 1, LATEST - 1);
        self.snapshot = Some(snapshot.ok_or("invalid snapshot number")?);
        if take(rest, ".").is_some() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
            let (id, after) = rest.split_at(end.unwrap_or(rest.len()));
            if !(1..=16).contains(&id.len()) {
                return Err("invalid snapshot id");
            }
            id.clone_into(&mut self.snapshot_id);
            *rest = after;
        }
        Ok(())
    }

    /// AAAAABBBBBCCCCCDDDE, as it is compared: a pre-release is less than its
    /// release by subtraction.
    pub fn numeric(&self) -> u64 {
        let [major, minor, patch] = self.core;
        let core = (major * 100_000 + minor) * 100_000 + patch;
        let minus = self.pre_release.unwrap_or(0) * 10 + u64::from(self.snapshot.is_some());
        let release = core * 10_000;
        if minus == 0 {
            release
        } else {
            release - 10_000 + minus
        }
    }

    /// The snapshot number; `u64::MAX` for the latest, 0 for none.
    pub fn snapshot_number(&self) -> u64 {
        self.snapshot.unwrap_or(0)
    }
}

impl PartialOrd for StandardVersion {
    fn partial_cmp(&self, other: &StandardVersion) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StandardVersion {
    fn cmp(&self, other: &StandardVersion) -> Ordering {
        // The id has no order; it is compared last so that only equal versions
        // compare as equal.
        let key = |v: &StandardVersion| (v.epoch, v.numeric(), v.snapshot_number(), v.revision);
        let order = key(self).cmp(&key(other));
        order.then_with(|| self.snapshot_id.cmp(&other.snapshot_id))
    }
}

fn take(rest: &mut &str, prefix: &str) -> Option<()> {
    *rest = rest.strip_prefix(prefix)?;
    Some(())
}

fn number(rest: &mut &str, least: u64, most: u64) -> Option<u64> {
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let (digits, after) = rest.split_at(end.unwrap_or(rest.len()));
    let number = digits.parse().ok().filter(|n| (least..=most).contains(n))?;
    *rest = after;
    Some(number)
}
