//! Evidence of failed guests, which lasts longer than they do: a directory for each
//! failure, `<state>/<owner>/failed/<time>-<machine>/`.
//!
//! A directory has the end `.partial` until all its files are on disk; a crash leaves at
//! most one of those, which the next sweep removes. Number and size are bounded: the
//! oldest evidence goes first. A disk that takes no evidence costs the evidence only.

mod calendar;
mod list;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::diag;
use crate::durable;
use crate::error::{Context as _, Error, Result};
use crate::sys::tree::remove_tree;
use crate::trace;

pub use calendar::date;
pub use list::{FailedGuest, KeptState, failed_guests, json, text};

/// The maximum size of one file, in bytes. The screen is the largest one.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// The maximum size of all evidence of an agent, in bytes.
const MAX_TOTAL_BYTES: u64 = 64 << 20;

/// The maximum length of a machine's name in that of its evidence, in bytes.
const MAX_NAME: usize = 100;

/// The maximum number of failures of one machine in one second.
const MAX_SAME: u32 = 100;

/// The end of the name of evidence that is incomplete.
const PARTIAL: &str = ".partial";

/// The name of the summary in each directory.
pub const SUMMARY: &str = "failure.json";

/// The name of the link to the state of the guest that is kept.
pub const STATE_LINK: &str = "state";

/// A file of evidence: name and contents.
pub type EvidenceFile = (&'static str, Vec<u8>);

/// The evidence of an agent.
#[derive(Clone, Debug)]
pub struct EvidenceStore {
    directory: PathBuf,
    /// The maximum number of failures; 0: none is kept.
    keep: usize,
    /// The last attempt failed, which was reported.
    is_failing: Arc<AtomicBool>,
}

/// The directory of the evidence below an agent's state directory.
#[must_use]
pub fn directory(state: &Path) -> PathBuf {
    state.join("failed")
}

impl EvidenceStore {
    /// Evidence below the agent's directory `state`, of at most `keep` failures.
    #[must_use]
    pub fn new(state: &Path, keep: usize) -> EvidenceStore {
        EvidenceStore {
            directory: directory(state),
            keep,
            is_failing: Arc::default(),
        }
    }

    /// Begins the evidence of a guest of `machine` that failed at `wall`, a time since
    /// 1970. `None` if it cannot be kept, which is reported once.
    pub fn begin(&self, machine: &str, wall: Duration) -> Option<Evidence> {
        if self.keep == 0 {
            return None;
        }
        let begun = self.make(machine, wall);
        begun.map_err(|error| self.report(&error)).ok()
    }

    fn make(&self, machine: &str, wall: Duration) -> Result<Evidence> {
        let unable = || {
            format!(
                "unable to create a directory in {}",
                self.directory.display()
            )
        };
        let mut private = DirBuilder::new();
        private.mode(0o700);
        private
            .recursive(true)
            .create(&self.directory)
            .context(unable)?;
        private.recursive(false);
        let stem = format!("{}-{}", calendar::stamp(wall), plain(machine));
        for number in 1..=MAX_SAME {
            let name = match number {
                1 => stem.clone(),
                _ => format!("{stem}-{number}"),
            };
            let path = self.directory.join(&name);
            let partial = self.directory.join(name + PARTIAL);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            match private.create(&partial) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made.context(unable)?;
                    return Ok(Evidence {
                        path,
                        partial,
                        wall,
                        store: self.clone(),
                    });
                }
            }
        }
        Err(Error::new(unable()).hint("too many failures in one second"))
    }

    /// The states of failed guests that are kept, the oldest first.
    pub fn states(&self) -> Result<Vec<KeptState>> {
        let mut failed = failed_guests(&self.directory)?;
        failed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(failed.iter().filter_map(FailedGuest::state).collect())
    }

    /// Reports the first of several failures to keep evidence.
    fn report(&self, error: &Error) {
        if self.is_failing.swap(true, Ordering::Relaxed) {
            trace!(3, "keep_evidence", "{error}");
        } else {
            diag::warning(format_args!("evidence of a failed guest is lost: {error}"))
                .info("further losses are not reported until evidence can be kept again")
                .emit();
        }
    }

    /// Removes the oldest evidence until the rest is within the limits. `newest` stays.
    fn prune(&self, newest: &Evidence) -> io::Result<()> {
        let mut all = Vec::new();
        for path in published(&self.directory)? {
            if path != newest.path {
                all.push((size(&path)?, path));
            }
        }
        // The clock may have been wrong: names from the future go first.
        let now = calendar::stamp(newest.wall);
        all.sort_by_key(|(_, path)| {
            let name = path.file_name().unwrap_or_default().to_owned();
            let time = name.as_encoded_bytes().get(..now.len());
            (time.is_none_or(|time| time <= now.as_bytes()), name)
        });
        let mut total: u64 = size(&newest.path)? + all.iter().map(|(size, _)| size).sum::<u64>();
        let mut count = all.len() + 1;
        for (size, path) in all {
            if count <= self.keep && total <= MAX_TOTAL_BYTES {
                break;
            }
            // So that a crash leaves no published directory without some of its files.
            let mut partial = path.clone().into_os_string();
            partial.push(PARTIAL);
            fs::rename(&path, &partial)?;
            remove_tree(Path::new(&partial))?;
            count -= 1;
            total -= size;
        }
        Ok(())
    }
}

/// The evidence of a guest, under way; removed unless it is published.
#[derive(Debug)]
#[must_use = "evidence is removed unless it is published"]
pub struct Evidence {
    path: PathBuf,
    partial: PathBuf,
    wall: Duration,
    store: EvidenceStore,
}

impl Evidence {
    /// The directory in which it will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the files, and a link to the `state` of the guest if that is kept, and gives
    /// the directory its name, then removes old evidence. Returns whether it is in place.
    /// A failure is reported; nothing of this evidence is left then.
    pub fn publish(self, files: &[EvidenceFile], state: Option<&Path>) -> bool {
        let written = self.write(files, state).context(|| {
            let path = self.path.display();
            format!("unable to write {path}")
        });
        match written {
            Ok(()) => self.store.is_failing.store(false, Ordering::Relaxed),
            Err(error) => {
                self.store.report(&error);
                return false;
            }
        }
        if let Err(error) = self.store.prune(&self) {
            diag::warning(format_args!(
                "unable to remove old evidence in {}: {}",
                self.store.directory.display(),
                crate::error::reason(&error)
            ))
            .emit();
        }
        true
    }

    fn write(&self, files: &[EvidenceFile], state: Option<&Path>) -> io::Result<()> {
        for (name, contents) in files {
            let mut contents = &contents[..contents.len().min(MAX_FILE_BYTES)];
            durable::write_new(&self.partial.join(name), &mut contents)?;
        }
        if let Some(state) = state {
            symlink(state, self.partial.join(STATE_LINK))?;
        }
        durable::sync_directory(&self.partial)?;
        durable::rename(&self.partial, &self.path)
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        // There is none if it was published; what cannot be removed is swept later.
        let _ = remove_tree(&self.partial);
    }
}

/// The incomplete evidence in `directory`.
#[must_use]
pub fn partials(directory: &Path) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        path.as_os_str()
            .as_encoded_bytes()
            .ends_with(PARTIAL.as_bytes())
    };
    entries(directory).map_or_else(|_| Vec::new(), |all| all.filter(named).collect())
}

/// The complete evidence in `directory`, in no order.
fn published(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let all = match entries(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        all => all?,
    };
    let is_published = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.first().is_some_and(u8::is_ascii_digit) && !name.ends_with(PARTIAL.as_bytes())
    };
    Ok(all.filter(is_published).collect())
}

fn entries(directory: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(directory)?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())))
}

/// The size of the files in a directory, in bytes.
fn size(directory: &Path) -> io::Result<u64> {
    let mut total = 0;
    for path in entries(directory)? {
        total += fs::symlink_metadata(path)?.len();
    }
    Ok(total)
}

/// A machine's name as a part of a file name.
fn plain(machine: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_+.".contains(c);
    let replaced = |c: char| if allowed(c) { c } else { '_' };
    machine.chars().take(MAX_NAME).map(replaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str, keep: usize) -> (PathBuf, EvidenceStore) {
        let state = std::env::temp_dir().join(format!("bbot-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&state);
        let store = EvidenceStore::new(&state, keep);
        (state, store)
    }

    fn names(store: &EvidenceStore) -> Vec<String> {
        let mut names: Vec<_> = entries(&store.directory)
            .unwrap()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    fn fail(store: &EvidenceStore, second: u64, contents: &[u8]) {
        let evidence = store.begin("m", Duration::from_secs(second)).unwrap();
        assert!(evidence.publish(&[("a", contents.to_vec())], None));
    }

    #[test]
    fn evidence_appears_whole_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let (state, store) = store("whole", 2);
        let evidence = store
            .begin("a/../b\u{1b}", Duration::from_secs(1_795_774_530))
            .unwrap();
        let path = evidence.path().to_owned();
        assert!(
            path.ends_with("failed/20261127T101530Z-a_.._b_"),
            "{path:?}"
        );
        assert!(!path.exists());
        assert_eq!(partials(&store.directory).len(), 1);
        let files = [("a", b"x".to_vec()), (SUMMARY, b"{}".to_vec())];
        assert!(evidence.publish(&files, None));
        assert!(partials(&store.directory).is_empty());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.directory), 0o700);
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("a")), 0o600);
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn evidence_that_is_given_up_leaves_nothing() {
        let (state, store) = store("dropped", 2);
        drop(store.begin("m", Duration::ZERO).unwrap());
        assert!(names(&store).is_empty());
        assert!(
            EvidenceStore::new(&state, 0)
                .begin("m", Duration::ZERO)
                .is_none()
        );
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn the_oldest_goes_first_and_failures_of_one_second_have_names_of_their_own() {
        let (state, store) = store("oldest", 3);
        for second in [0, 1, 1, 2] {
            fail(&store, second, b"x");
        }
        assert_eq!(
            names(&store),
            [
                "19700101T000001Z-m",
                "19700101T000001Z-m-2",
                "19700101T000002Z-m"
            ]
        );
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn evidence_of_a_wrong_clock_goes_before_that_of_the_right_one() {
        let (state, store) = store("clock", 2);
        for second in [100, 2_000_000_000, 2_000_000_001, 200, 201] {
            fail(&store, second, b"x");
        }
        assert_eq!(names(&store), ["19700101T000320Z-m", "19700101T000321Z-m"]);
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn files_and_the_whole_are_bounded() {
        let (state, store) = store("bounded", 1000);
        let large = vec![b'x'; MAX_FILE_BYTES + 1];
        for second in 0..20 {
            fail(&store, second, &large);
        }
        let all = published(&store.directory).unwrap();
        assert_eq!(all.len(), 16);
        assert_eq!(size(&all[0]).unwrap(), MAX_FILE_BYTES as u64);
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn a_state_directory_that_is_none_costs_the_evidence_only() {
        let (state, store) = store("none", 2);
        fs::write(&state, "").unwrap();
        assert!(store.begin("m", Duration::ZERO).is_none());
        assert!(store.is_failing.load(Ordering::Relaxed));
        fs::remove_file(&state).unwrap();
        fail(&store, 1, b"x");
        assert!(!store.is_failing.load(Ordering::Relaxed));
        fs::remove_dir_all(state).unwrap();
    }
}
