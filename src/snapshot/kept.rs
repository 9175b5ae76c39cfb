//! Snapshots of machines whose guests failed, kept as long as their evidence.
//!
//! Each has a link to the evidence of its guest, which may be on another file system, and
//! the evidence has a link to it. Both are made before the evidence gets its name, and the
//! snapshot is locked until then: one that is not locked, and whose evidence is gone, is
//! litter.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Snapshot, explain};
use crate::error::{Context as _, Result};
use crate::sys::extents;

/// The part of the name behind that of the copy. Toolchain names cannot contain it.
const MARK: &str = "-@failed.";

/// The name of the link to the evidence.
const EVIDENCE: &str = "evidence";

impl Snapshot {
    /// Makes a snapshot of `scratch`, the scratch snapshot of a guest whose evidence is
    /// going to be at `evidence`. It is kept by [`Snapshot::leave`]. Without the files
    /// `without`.
    pub fn of_failed(scratch: &Path, evidence: &Path, without: &[&str]) -> Result<Snapshot> {
        let snapshot = Snapshot::create(scratch, &kept_path(scratch, evidence))?;
        let link = snapshot.path.join(EVIDENCE);
        for name in without {
            // There is none in most guests.
            let _ = fs::remove_file(snapshot.path.join(name));
        }
        std::path::absolute(evidence)
            .and_then(|evidence| symlink(evidence, &link))
            .map_err(|error| {
                let what = format!("unable to make link {}", link.display());
                explain(error, &link, &what)
            })?;
        if let Some(root) = &snapshot.root {
            snapshot.seal(root)?;
        }
        Ok(snapshot)
    }

    /// Leaves the snapshot where it is, for good.
    pub fn leave(mut self) {
        self.root = None;
    }
}

/// `<target>-@failed.<evidence>.<n>` for the scratch snapshot `<target>-@<n>`: the time in
/// the name of the evidence is that of the failure.
fn kept_path(scratch: &Path, evidence: &Path) -> PathBuf {
    let name = scratch.file_name().unwrap_or_default().as_bytes();
    let at = name
        .windows(2)
        .rposition(|two| two == super::MARK.as_bytes());
    let (target, number) = name.split_at(at.unwrap_or(name.len()));
    let time = evidence.file_name().unwrap_or_default().as_bytes();
    let time = time.split(|byte| *byte == b'-').next().unwrap_or_default();
    let number = number.get(super::MARK.len()..).unwrap_or_default();
    let name = [target, MARK.as_bytes(), time, b".", number].concat();
    scratch.with_file_name(OsStr::from_bytes(&name))
}

/// Whether `name` is that of a kept snapshot for the target named `target`.
pub fn is_kept(name: &OsStr, target: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(target.as_bytes());
    rest.is_some_and(|rest| rest.starts_with(MARK.as_bytes()))
}

/// The path that the name of the kept snapshot `path` was derived from.
pub fn target_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (target, _) = name.rsplit_once(MARK)?;
    Some(path.with_file_name(target))
}

/// The evidence that a kept snapshot belongs to, if that is there.
pub fn evidence_of(path: &Path) -> Option<PathBuf> {
    let evidence = fs::read_link(path.join(EVIDENCE)).ok()?;
    evidence.is_dir().then_some(evidence)
}

/// The bytes that the files of a snapshot take on the disk and share with no other
/// subvolume.
pub fn exclusive_bytes(directory: &Path) -> Result<u64> {
    let sum = |directory: &Path| -> io::Result<u64> {
        let mut total = 0;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                total += extents::exclusive_bytes(&File::open(entry.path())?)?;
            }
        }
        Ok(total)
    };
    sum(directory).context(|| format!("unable to measure {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_snapshot_has_the_time_of_its_evidence_and_is_no_scratch() {
        let target = Path::new("/m/v/linux-gcc/linux-gcc-a");
        let scratch = Path::new("/m/v/linux-gcc/linux-gcc-a-@12.3");
        let evidence = Path::new("/s/failed/20261127T101530Z-linux-gcc-2");
        let kept = kept_path(scratch, evidence);
        let name = "linux-gcc-a-@failed.20261127T101530Z.12.3";
        assert_eq!(kept, target.with_file_name(name));
        assert_eq!(target_of(&kept).as_deref(), Some(target));
        assert_eq!(target_of(scratch), None);
        let (name, target) = (kept.file_name().unwrap(), target.file_name().unwrap());
        assert!(is_kept(name, target) && !super::super::is_scratch(name, target));
        assert!(!is_kept(name, "linux-gcc".as_ref()));
        assert!(!is_kept(scratch.file_name().unwrap(), target));
    }
}
