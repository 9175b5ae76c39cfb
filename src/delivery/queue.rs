//! The queue of results on disk. Each result is one file:
//!
//! ```text
//! results/<id>                 a line of JSON, the task; then the text to post
//! artifacts/<id>/artifact-<n>  a file to post before it, removed once posted
//! sent/<id>                    a result that the deliverer has sent
//! aside/<id>/                  the `result` as it was, and the `reason`
//! ```
//!
//! Storing a result costs two syncs of the disk, of the file and of its directory.
//! Artifacts are stored before their result; those without one are removed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::artifacts::Artifact;
use super::reserve::Reserve;
use super::stored::{Hashing, StoredArtifact, StoredResult, decode, digest, encode};
use super::task::TaskRecord;
use crate::controller::address::UploadTarget;
use crate::diag;
use crate::durable;
use crate::error::{Class, Context as _, Error, Result, reason};
use crate::json::Value;
use crate::trace;

/// The number of results that are kept when they were set aside, the newest ones.
const MAX_ASIDE: usize = 100;
/// The number of bytes that they may have together.
const MAX_ASIDE_BYTES: u64 = 256 << 20;
/// The largest result in bytes: controllers take 15 MiB at most.
const MAX_RESULT_BYTES: u64 = 64 << 20;
/// The longest first line in bytes: a task has some 1000, an artifact as many.
const MAX_HEAD_BYTES: u64 = 1 << 20;

/// The queue in a state directory.
#[derive(Debug)]
pub(super) struct Queue {
    state: PathBuf,
}

/// The results that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The oldest first.
    pub results: Vec<StoredResult>,
    /// The number of further results that cannot be read at present.
    pub unread: usize,
}

impl Queue {
    /// The queue in `state`, which is open in the agent.
    pub(super) fn at(state: &Path) -> Queue {
        Queue {
            state: state.to_owned(),
        }
    }

    /// Creates the directories in `state` if they are missing, and removes files
    /// that a crash left incomplete.
    pub(super) fn open(state: &Path) -> Result<Queue> {
        let queue = Queue::at(state);
        for name in ["results", "artifacts", "sent", "aside"] {
            let path = state.join(name);
            let mut builder = fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .context(|| format!("unable to create directory {}", path.display()))
                .map_err(|error| {
                    error
                        .with_class(Class::Os)
                        .hint("choose another place: --state <dir>")
                })?;
        }
        queue.tidy()?;
        Ok(queue)
    }

    /// Removes incomplete results and artifacts without a result, and completes the
    /// setting aside of results.
    ///
    /// What cannot be removed is reported, and does not keep the agent from starting.
    fn tidy(&self) -> Result<()> {
        let remove = |path: &Path, remove: fn(&Path) -> io::Result<()>| {
            trace!(3, "tidy", "rm -r {}", path.display());
            diag::report(remove(path).context(|| format!("unable to remove {}", path.display())));
        };
        for name in self.names("results", true)? {
            remove(&self.path(&name), |path| fs::remove_file(path));
        }
        let there: BTreeSet<String> = self.names("results", false)?.into_iter().collect();
        for name in self.names("artifacts", false)? {
            if !there.contains(&name) {
                remove(&self.artifacts(&name), |path| fs::remove_dir_all(path));
            }
        }
        for name in self.names("aside", true)? {
            let hidden = self.state.join("aside").join(&name);
            if hidden.join("result").exists() {
                let path = hidden.with_file_name(name.trim_start_matches('.'));
                diag::report(
                    fs::rename(&hidden, &path)
                        .context(|| format!("unable to rename {}", hidden.display())),
                );
            } else {
                remove(&hidden, |path| fs::remove_dir_all(path));
            }
        }
        Ok(())
    }

    /// Stores a result and its artifacts, durably. `challenge` is the signature for
    /// the artifacts, `seconds` the time since 1970. If the disk is full, the
    /// reserve is given up for the result. After an error nothing is stored.
    pub(super) fn put(
        &self,
        seconds: u64,
        task: &TaskRecord,
        text: &[u8],
        challenge: Option<&str>,
        artifacts: &mut [Artifact],
        reserve: &Reserve,
    ) -> Result<()> {
        let what = || format!("unable to store result in {}", self.state.display());
        // Both attempts use one name, so that a result is never stored twice.
        let id = self.new_id(seconds).context(what)?;
        let mut stored = StoredResult {
            id,
            task: task.clone(),
            artifacts: Vec::new(),
            sha256: digest(text),
        };
        let dir = self.artifacts(&stored.id);
        let mut put = |challenge: Option<&str>, artifacts: &mut [Artifact]| {
            let written = self.write(&mut stored, text, challenge, artifacts);
            written.inspect_err(|_| {
                // The first error is the one that is reported.
                let _ = fs::remove_dir_all(&dir);
            })
        };
        match put(challenge, artifacts) {
            Err(error) if durable::is_full(&error) && reserve.release().context(what)? => {
                diag::warning(format!(
                    "{} is full: the reserve was given up for a result",
                    self.state.display()
                ))
                .emit();
                // On a full disk the result matters more than its artifacts.
                if !artifacts.is_empty() {
                    diag::warning("the artifacts of the task were dropped").emit();
                }
                put(None, &mut [])
            }
            other => other,
        }
        .context(what)
    }

    fn write(
        &self,
        stored: &mut StoredResult,
        text: &[u8],
        challenge: Option<&str>,
        artifacts: &mut [Artifact],
    ) -> io::Result<()> {
        stored.artifacts.clear();
        let dir = self.artifacts(&stored.id);
        if !artifacts.is_empty() {
            fs::DirBuilder::new().mode(0o700).create(&dir)?;
            durable::sync_parent(&dir)?;
        }
        for (i, artifact) in artifacts.iter_mut().enumerate() {
            let path = dir.join(format!("artifact-{i}"));
            let mut contents = Hashing::new(&mut artifact.contents);
            durable::write_new(&path, &mut contents)?;
            stored.artifacts.push(StoredArtifact {
                kind: artifact.kind.clone(),
                url: artifact.url.clone(),
                instance: artifact.instance.clone(),
                name: artifact.name.clone(),
                challenge: challenge.map(str::to_owned),
                sha256: contents.finish(),
                path,
            });
        }
        if !artifacts.is_empty() {
            durable::sync_directory(&dir)?;
        }
        // The line has no line feed in it: JSON has them escaped.
        let head = format!("{}\n", encode(stored));
        durable::appear(&self.path(&stored.id), &[head.as_bytes(), text])
    }

    /// The results that wait to be sent. A damaged one is reported and set aside;
    /// one that cannot be read at present stays.
    pub(super) fn waiting(&self) -> Result<Waiting> {
        let mut waiting = Waiting::default();
        for id in self.names("results", false)? {
            match self.load(&self.path(&id), &id) {
                Ok(stored) => waiting.results.push(stored),
                Err(error) => {
                    diag::failure(&error).emit();
                    if !Queue::is_damaged(&error) {
                        waiting.unread += 1;
                    } else if let Err(error) = self.set_aside(&id, &error.to_string()) {
                        diag::failure(&error).emit();
                    }
                }
            }
        }
        Ok(waiting)
    }

    fn load(&self, path: &Path, id: &str) -> Result<StoredResult> {
        let what = || format!("unable to read stored result {}", path.display());
        let file = durable::open(path).context(what)?;
        let mut line = String::new();
        BufReader::new(file.take(MAX_HEAD_BYTES))
            .read_line(&mut line)
            .context(what)?;
        let value = Value::parse(&line).context(what)?;
        decode(&self.artifacts(id), id, &value)
            .ok_or_else(|| Error::new(format!("{}: bad envelope", what())))
    }

    /// The text of a result. It must be the one that was stored.
    pub(super) fn text(&self, stored: &StoredResult) -> Result<Vec<u8>> {
        let path = self.path(&stored.id);
        let what = || format!("unable to read stored result {}", path.display());
        let mut text = durable::read(&path, MAX_HEAD_BYTES + MAX_RESULT_BYTES).context(what)?;
        let head = text.iter().position(|b| *b == b'\n');
        text.drain(..head.map_or(text.len(), |end| end + 1));
        if digest(&text) != stored.sha256 {
            return Err(Error::new(format!("{}: it has changed", what())));
        }
        Ok(text)
    }

    /// Whether an error says that a result will never be readable.
    pub(super) fn is_damaged(error: &Error) -> bool {
        error.io().is_none_or(durable::is_damaged)
    }

    /// Removes an artifact that was posted, or that is given up.
    pub(super) fn artifact_done(&self, artifact: &StoredArtifact) -> Result<()> {
        durable::remove(&artifact.path)
            .context(|| format!("unable to remove {}", artifact.path.display()))
    }

    /// Removes a result that has been sent.
    pub(super) fn done(&self, stored: &StoredResult) -> Result<()> {
        for path in [self.path(&stored.id), self.sent(&stored.id)] {
            durable::remove(&path).context(|| format!("unable to remove {}", path.display()))?;
        }
        let artifacts = self.artifacts(&stored.id);
        match fs::remove_dir_all(&artifacts) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.context(|| format!("unable to remove {}", artifacts.display())),
        }
    }

    /// Takes a result that was sent out of the queue, durably. The agent records and
    /// removes it.
    pub(super) fn mark_sent(&self, stored: &StoredResult) -> Result<()> {
        let (from, to) = (self.path(&stored.id), self.sent(&stored.id));
        durable::rename(&from, &to).context(|| format!("unable to rename {}", from.display()))
    }

    /// The results that the deliverer has sent.
    pub(super) fn marked(&self) -> Result<Vec<StoredResult>> {
        let names = self.names("sent", false)?.into_iter();
        Ok(names
            .filter_map(|id| match self.load(&self.sent(&id), &id) {
                Ok(stored) => Some(stored),
                Err(error) => {
                    diag::failure(&error).emit();
                    // It was sent: nothing is lost.
                    let _ = durable::remove(&self.sent(&id));
                    None
                }
            })
            .collect())
    }

    /// Whether a result for such a target waits.
    pub(super) fn has(&self, target: fn(&UploadTarget) -> bool) -> Result<bool> {
        let names = self.names("results", false)?;
        let load = |id: &String| self.load(&self.path(id), id);
        Ok(names
            .iter()
            .any(|id| load(id).is_ok_and(|stored| target(&stored.task.result_url))))
    }

    /// The directory that a result is kept in when it is set aside.
    pub(super) fn aside(&self, stored: &StoredResult) -> PathBuf {
        self.state.join("aside").join(&stored.id)
    }

    /// Keeps the result `id`, which will not be sent any more, with the reason.
    pub(super) fn set_aside(&self, id: &str, why: &str) -> Result<()> {
        let from = self.path(id);
        let to = self.state.join("aside").join(id);
        let what = || format!("unable to set {} aside", from.display());
        // The directory is complete when it gets its name: see `tidy`.
        let hidden = to.with_file_name(format!(".{id}"));
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&hidden);
        made.context(what)?;
        // On a full disk the reason is in the log only. Few results have artifacts.
        if let Err(error) = durable::replace(&hidden.join("reason"), format!("{why}\n").as_bytes())
        {
            trace!(2, "set_aside", "{}: {}", from.display(), reason(&error));
        }
        let _ = fs::rename(self.artifacts(id), hidden.join("artifacts"));
        durable::rename(&from, &hidden.join("result")).context(what)?;
        durable::rename(&hidden, &to).context(what)?;
        let kept = self.names("aside", false)?;
        let paths: Vec<_> = kept
            .iter()
            .map(|name| self.state.join("aside").join(name))
            .collect();
        let sizes: Vec<u64> = paths.iter().map(|path| size(path)).collect();
        for path in &paths[..surplus(&sizes)] {
            if let Err(error) = fs::remove_dir_all(path) {
                let (path, error) = (path.display(), reason(&error));
                diag::warning(format!("unable to remove {path}: {error}")).emit();
            }
        }
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.state.join("results").join(id)
    }

    fn sent(&self, id: &str) -> PathBuf {
        self.state.join("sent").join(id)
    }

    fn artifacts(&self, id: &str) -> PathBuf {
        self.state.join("artifacts").join(id)
    }

    /// Names in order of age. Hidden ones are incomplete.
    fn names(&self, directory: &str, hidden: bool) -> Result<Vec<String>> {
        let path = self.state.join(directory);
        let what = || format!("unable to read directory {}", path.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).context(what)? {
            let name = entry.context(what)?.file_name();
            // The names that the agent makes are ASCII.
            if let Ok(name) = name.into_string()
                && name.starts_with('.') == hidden
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn new_id(&self, seconds: u64) -> io::Result<String> {
        for n in 0..1_000_000 {
            let id = format!("{seconds:012}-{n:06}");
            let taken = |path: PathBuf| path.try_exists();
            if !taken(self.path(&id))?
                && !taken(self.sent(&id))?
                && !taken(self.artifacts(&id))?
                && !taken(self.state.join("aside").join(&id))?
            {
                return Ok(id);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// The bytes of the files below a directory; those that cannot be read count zero.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            metadata => metadata.map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

/// The number of the oldest results that have to go. The newest one always stays.
fn surplus(sizes: &[u64]) -> usize {
    let mut bytes = 0;
    let keep = sizes
        .iter()
        .rev()
        .take(MAX_ASIDE)
        .take_while(|size| {
            bytes += *size;
            bytes <= MAX_ASIDE_BYTES
        })
        .count();
    sizes.len() - keep.max(1).min(sizes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_number_and_size() {
        assert_eq!(surplus(&[]), 0);
        assert_eq!(surplus(&[1; 100]), 0);
        assert_eq!(surplus(&[1; 103]), 3);
        assert_eq!(surplus(&[100 << 20, 100 << 20, 100 << 20]), 1);
        assert_eq!(surplus(&[1, 300 << 20]), 1);
    }
}
