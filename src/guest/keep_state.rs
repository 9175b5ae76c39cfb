//! The state of a failed guest: its disk, its memory and the state of its devices, kept as
//! long as its evidence, and within limits.

use std::fs::{self, OpenOptions};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Guest;
use crate::cli::Space;
use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::evidence::{EvidenceFile, EvidenceStore, STATE_LINK};
use crate::json::Value;
use crate::machine::memory::{FAILED, RAM, STATE};
use crate::machine::{Spec, record};
use crate::snapshot::{self, Snapshot};
use crate::status::{self, Phase};
use crate::watch::{Watch, moment};

/// The time for QEMU to write the memory of a guest.
const SAVE_TIMEOUT: Duration = Duration::from_secs(600);

/// The limits of the states that are kept.
#[derive(Clone, Copy, Debug)]
pub struct StateLimits {
    /// The bytes of all of them.
    pub bytes: u64,
    /// The space that is left free.
    pub min_free: Space,
}

/// The way that a guest is run, if its state is kept when it fails.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) limits: StateLimits,
    pub(super) record: Value,
}

impl Recorded {
    pub(super) fn new(limits: StateLimits, spec: &Spec) -> Result<Recorded> {
        let record = record::record(spec)?;
        Ok(Recorded { limits, record })
    }
}

/// The name of the file of evidence with the way that a guest was run.
pub const RECORD: &str = "resume.json";

/// A state that is kept from when its evidence is stored.
#[derive(Debug)]
pub(super) struct SavedState {
    pub(super) snapshot: Snapshot,
    pub(super) file: EvidenceFile,
    bytes: u64,
    has_memory: bool,
}

impl SavedState {
    /// The facts for the summary of the evidence.
    pub(super) fn summary(&self) -> (&'static str, Value) {
        let path = self.snapshot.path().display().to_string();
        let facts = [
            ("path", Value::from(path)),
            ("bytes", self.bytes.into()),
            ("memory", self.has_memory.into()),
        ];
        (STATE_LINK, Value::object(facts))
    }

    /// Leaves the state beside its evidence, which is in place, and reports it.
    pub(super) fn leave(self, evidence: &Path) {
        let what = match self.has_memory {
            true => "memory and disk",
            false => "the disk",
        };
        let (path, size) = (self.snapshot.path().display(), status::bytes(self.bytes));
        diag::info(format_args!(
            "kept {what} of the failed guest in {path}, {size}"
        ))
        .info(format_args!(
            "to start it again: bbot-agent --resume {}",
            evidence.display()
        ))
        .emit();
        self.snapshot.leave();
    }
}

/// Removes the oldest of the states that are kept, of those that `concerns`. Returns
/// whether there was one.
pub fn remove_oldest_state(
    store: &EvidenceStore,
    concerns: impl Fn(&Path) -> bool,
) -> Result<bool> {
    let states = store.states()?;
    let Some(oldest) = states.iter().find(|state| concerns(&state.path)) else {
        return Ok(false);
    };
    snapshot::delete(&oldest.path)?;
    let path = oldest.path.display();
    diag::info(format_args!(
        "removed {path}: the oldest state of a failed guest"
    ))
    .emit();
    Ok(true)
}

impl Guest<'_> {
    /// Saves the state of the guest, whose evidence is going to be at `evidence`. What
    /// cannot be kept is added to `missing`, with the reason.
    pub(super) fn save_state(
        &mut self,
        evidence: &Path,
        missing: &mut Vec<String>,
    ) -> Option<SavedState> {
        let recorded = self.recorded.take()?;
        self.watch.enter(Phase::Saving, None);
        let memory = match self.save_memory(recorded.limits) {
            Ok(memory) => memory,
            Err(error) => {
                missing.push(format!("memory: {error}"));
                diag::warning(format_args!(
                    "the memory of the failed guest is not kept: {error}"
                ))
                .emit();
                None
            }
        };
        let saved = self.save_disk(evidence, &recorded, memory.is_some());
        if let Some(file) = memory {
            // The snapshot has it.
            let _ = fs::remove_file(file);
        }
        saved
            .map_err(|error| {
                missing.push(format!("state: {error}"));
                diag::warning(format_args!(
                    "the state of the failed guest is not kept: {error}"
                ))
                .emit();
            })
            .ok()
    }

    /// Saves devices and memory to a file beside the disk. `None`: QEMU has ended.
    fn save_memory(&mut self, limits: StateLimits) -> Result<Option<PathBuf>> {
        if self.machine.exited().is_some() {
            return Ok(None);
        }
        let total = snapshot::space(&self.directory)?.total;
        let least = limits.min_free.of(total) + self.profile.ram_kb * 1024;
        free(&self.evidence, &self.directory, least, self.watch)?;
        let path = self.directory.join(FAILED);
        let mut new = OpenOptions::new();
        let new = new.read(true).write(true).create_new(true).mode(0o600);
        let file = new.open(&path);
        let file = file.context(|| format!("unable to create {}", path.display()))?;
        let until = moment().instant + SAVE_TIMEOUT;
        let watch = self.watch;
        let wait = &mut |fds: &[BorrowedFd<'_>], deadline| watch.wait(fds, deadline);
        let saved = self.machine.save_whole(file, until, wait);
        if matches!(saved, Ok(Some(()))) {
            return Ok(Some(path));
        }
        let _ = fs::remove_file(&path);
        saved?;
        Err(Error::new("the agent was told to stop"))
    }

    /// Makes the snapshot that is kept.
    fn save_disk(
        &self,
        evidence: &Path,
        recorded: &Recorded,
        has_memory: bool,
    ) -> Result<SavedState> {
        let bytes = snapshot::exclusive_bytes(&self.directory)?;
        let limit = recorded.limits.bytes;
        if bytes > limit {
            let (bytes, limit) = (status::bytes(bytes), status::bytes(limit));
            let text = format!("it takes {bytes}, more than the {limit} of --keep-state");
            return Err(Error::new(text));
        }
        let all = || -> Result<u64> {
            let states = self.evidence.states()?;
            Ok(states.iter().map(|state| state.bytes).sum())
        };
        while all()? > limit - bytes && remove_oldest_state(&self.evidence, |_| true)? {}
        let snapshot = Snapshot::of_failed(&self.directory, evidence, &[RAM, STATE])?;
        let mut record = recorded.record.clone();
        if let Value::Object(members) = &mut record {
            let version = Value::from(self.machine.version());
            members.push(("version".to_owned(), version));
            members.push(("memory".to_owned(), has_memory.into()));
        }
        Ok(SavedState {
            snapshot,
            file: (RECORD, format!("{record}\n").into_bytes()),
            bytes,
            has_memory,
        })
    }
}

/// Makes sure that `least` bytes are free where `directory` is. States that are kept there
/// go, the oldest first.
fn free(store: &EvidenceStore, directory: &Path, least: u64, watch: &Watch) -> Result<()> {
    // <volume>/<machine>/<scratch>
    let volume = directory.ancestors().nth(2).unwrap_or(directory);
    while snapshot::space(directory)?.available < least {
        if !remove_oldest_state(store, |path| path.starts_with(volume))? {
            let least = status::bytes(least);
            let text = format!("less than {least} are free (--min-free and the guest's memory)");
            return Err(Error::new(text));
        }
        snapshot::await_cleaner(directory, &mut |length| watch.rest(length));
    }
    Ok(())
}
