//! Results that wait to be sent, each a file that appears by rename and goes at
//! once:
//!
//! ```text
//! results/<id>                 a line of JSON: where it goes, and what it is;
//!                              behind it the text to post
//! artifacts/<id>/artifact-<n>  a file to post before it, gone when posted
//! aside/<id>/                  `result`, as it was, and the `reason`
//! ```
//!
//! A result that is stored has cost two syncs of the disk, of the file and of
//! its directory. Artifacts are there before it is, and of no use without it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::envelope::{
    Artifact, Envelope, Hashing, Stored, StoredArtifact, decode, digest, encode,
};
use super::reserve::Reserve;
use crate::diag;
use crate::durable;
use crate::error::{Context as _, Error, Result, reason};
use crate::json::Value;
use crate::trace;

/// Results that were set aside are kept for the operator: the newest, at most
/// this many, and this many bytes.
const ASIDE_MAX: usize = 100;
const ASIDE_BYTES: u64 = 256 << 20;
/// No result is longer: controllers take 15 MiB at most.
const RESULT_MAX: u64 = 64 << 20;
/// An envelope has some 1000 bytes, and as many per artifact.
const ENVELOPE_MAX: u64 = 1 << 20;

/// The directory of results.
#[derive(Debug)]
pub struct Results {
    state: PathBuf,
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The oldest first.
    pub results: Vec<Stored>,
    /// How many more could not be read for a reason that may pass.
    pub unread: usize,
}

impl Results {
    /// Makes the directories in `state` if they are missing, and removes what a
    /// crash left half-written.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn open(state: &Path) -> Result<Results> {
        let results = Results {
            state: state.to_owned(),
        };
        for name in ["results", "artifacts", "aside"] {
            let path = state.join(name);
            let mut builder = fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .context(|| format!("unable to create directory {}", path.display()))
                .map_err(|error| error.hint("choose another place: --state <dir>"))?;
        }
        results.tidy()?;
        Ok(results)
    }

    /// Removes what is half-written or belongs to no result, and ends what was
    /// being set aside.
    fn tidy(&self) -> Result<()> {
        let remove = |path: &Path, remove: fn(&Path) -> io::Result<()>| {
            trace!(3, "tidy", "rm -r {}", path.display());
            remove(path).context(|| format!("unable to remove {}", path.display()))
        };
        for name in self.names("results", true)? {
            remove(&self.path(&name), |path| fs::remove_file(path))?;
        }
        let there: BTreeSet<String> = self.names("results", false)?.into_iter().collect();
        for name in self.names("artifacts", false)? {
            if !there.contains(&name) {
                remove(&self.artifacts(&name), |path| fs::remove_dir_all(path))?;
            }
        }
        for name in self.names("aside", true)? {
            let hidden = self.state.join("aside").join(&name);
            if hidden.join("result").exists() {
                let path = hidden.with_file_name(name.trim_start_matches('.'));
                fs::rename(&hidden, &path)
                    .context(|| format!("unable to rename {}", hidden.display()))?;
            } else {
                remove(&hidden, |path| fs::remove_dir_all(path))?;
            }
        }
        Ok(())
    }

    /// Stores a result and its artifacts. When this returns, a power cut can no
    /// longer take them away. On a full disk the reserve is given up for it.
    ///
    /// # Errors
    ///
    /// Those of the file system; nothing is stored then.
    pub fn put(
        &self,
        envelope: &Envelope,
        text: &[u8],
        artifacts: &mut [Artifact<'_>],
        reserve: &Reserve,
    ) -> Result<Stored> {
        let what = || format!("unable to store result in {}", self.state.display());
        // Without space, what can be had again (the artifacts cannot) counts
        // less than the result: they are tried only once.
        // One name for both attempts: of one result there is never a second.
        let id = self.new_id(envelope.stored).context(what)?;
        match self.put_once(&id, envelope, text, artifacts) {
            Err(error) if durable::is_full(&error) && reserve.release().context(what)? => {
                diag::warning(format!(
                    "{} is full: the reserve was given up for a result",
                    self.state.display()
                ))
                .emit();
                if !artifacts.is_empty() {
                    diag::warning("the artifacts of the task were dropped").emit();
                }
                self.put_once(&id, envelope, text, &mut []).context(what)
            }
            other => other.context(what),
        }
    }

    fn put_once(
        &self,
        id: &str,
        envelope: &Envelope,
        text: &[u8],
        artifacts: &mut [Artifact<'_>],
    ) -> io::Result<Stored> {
        let written = self.write(id, envelope, text, artifacts);
        written.inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_dir_all(self.artifacts(id));
        })
    }

    fn write(
        &self,
        id: &str,
        envelope: &Envelope,
        text: &[u8],
        artifacts: &mut [Artifact<'_>],
    ) -> io::Result<Stored> {
        let mut stored = Stored {
            id: id.to_owned(),
            envelope: envelope.clone(),
            artifacts: Vec::new(),
            sha256: digest(text),
        };
        let dir = self.artifacts(id);
        if !artifacts.is_empty() {
            fs::DirBuilder::new().mode(0o700).create(&dir)?;
            durable::sync_parent(&dir)?;
        }
        for (i, artifact) in artifacts.iter_mut().enumerate() {
            let path = dir.join(format!("artifact-{i}"));
            let mut contents = Hashing::new(artifact.contents);
            durable::write_new(&path, &mut contents)?;
            stored.artifacts.push(StoredArtifact {
                kind: artifact.kind.clone(),
                url: artifact.url.clone(),
                instance: artifact.instance.clone(),
                name: artifact.name.clone(),
                challenge: artifact.challenge.clone(),
                sha256: contents.finish(),
                path,
            });
        }
        if !artifacts.is_empty() {
            durable::sync_directory(&dir)?;
        }
        // No line feed in it: JSON has them escaped.
        let head = format!("{}\n", encode(&stored));
        durable::appear(&self.path(id), &[head.as_bytes(), text])?;
        Ok(stored)
    }

    /// What waits to be sent, the oldest first. What is damaged is set aside, so
    /// that it is complained about once; what cannot be read now stays.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn waiting(&self) -> Result<Waiting> {
        let mut waiting = Waiting::default();
        for id in self.names("results", false)? {
            match self.load(&id) {
                Ok(stored) => waiting.results.push(stored),
                Err(error) => {
                    diag::failure(&error).emit();
                    if Results::is_damaged(&error) {
                        self.move_aside(&id, &error.to_string())?;
                    } else {
                        waiting.unread += 1;
                    }
                }
            }
        }
        Ok(waiting)
    }

    fn load(&self, id: &str) -> Result<Stored> {
        let path = self.path(id);
        let what = || format!("unable to read stored result {}", path.display());
        let file = File::open(&path).context(what)?;
        let mut line = String::new();
        BufReader::new(file.take(ENVELOPE_MAX))
            .read_line(&mut line)
            .context(what)?;
        let value = Value::parse(&line).context(what)?;
        decode(&self.artifacts(id), id, &value)
            .ok_or_else(|| Error::new(format!("{}: bad envelope", what())))
    }

    /// The text of a result.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not what was stored; [`is_damaged`] says
    /// whether it is worth another attempt.
    ///
    /// [`is_damaged`]: Results::is_damaged
    pub fn text(&self, stored: &Stored) -> Result<Vec<u8>> {
        let path = self.path(&stored.id);
        let what = || format!("unable to read stored result {}", path.display());
        let mut text = durable::read(&path, ENVELOPE_MAX + RESULT_MAX).context(what)?;
        let head = text.iter().position(|b| *b == b'\n');
        text.drain(..head.map_or(text.len(), |end| end + 1));
        if digest(&text) != stored.sha256 {
            return Err(Error::new(format!("{}: it has changed", what())));
        }
        Ok(text)
    }

    /// Whether an error says that a result will never be readable.
    #[must_use]
    pub fn is_damaged(error: &Error) -> bool {
        error.io().is_none_or(durable::is_damaged)
    }

    /// Takes note that an artifact has been posted, or never will be.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn artifact_done(&self, artifact: &StoredArtifact) -> Result<()> {
        durable::remove(&artifact.path)
            .context(|| format!("unable to remove {}", artifact.path.display()))
    }

    /// Removes a result that has been sent.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn done(&self, stored: &Stored) -> Result<()> {
        let path = self.path(&stored.id);
        durable::remove(&path).context(|| format!("unable to remove {}", path.display()))?;
        let artifacts = self.artifacts(&stored.id);
        match fs::remove_dir_all(&artifacts) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.context(|| format!("unable to remove {}", artifacts.display())),
        }
    }

    /// Keeps a result that will not be sent any more, with the reason.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn set_aside(&self, stored: &Stored, why: &str) -> Result<()> {
        self.move_aside(&stored.id, why)
    }

    /// Where a result is kept when it is set aside.
    #[must_use]
    pub fn aside(&self, stored: &Stored) -> PathBuf {
        self.state.join("aside").join(&stored.id)
    }

    fn move_aside(&self, id: &str, why: &str) -> Result<()> {
        let from = self.path(id);
        let to = self.state.join("aside").join(id);
        let what = || format!("unable to set {} aside", from.display());
        // Whole under its name, see `tidy`.
        let hidden = to.with_file_name(format!(".{id}"));
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&hidden);
        made.context(what)?;
        // Best effort: on a full disk the reason is only in the log, and
        // mostly there are no artifacts.
        if let Err(error) = durable::replace(&hidden.join("reason"), format!("{why}\n").as_bytes())
        {
            trace!(2, "move_aside", "{}: {}", from.display(), reason(&error));
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
            fs::remove_dir_all(path).context(|| format!("unable to remove {}", path.display()))?;
        }
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.state.join("results").join(id)
    }

    fn artifacts(&self, id: &str) -> PathBuf {
        self.state.join("artifacts").join(id)
    }

    /// Names by age; hidden ones are partial.
    fn names(&self, directory: &str, hidden: bool) -> Result<Vec<String>> {
        let path = self.state.join(directory);
        let what = || format!("unable to read directory {}", path.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).context(what)? {
            let name = entry.context(what)?.file_name();
            // Ours are ASCII; others are not ours.
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
                && !taken(self.artifacts(&id))?
                && !taken(self.state.join("aside").join(&id))?
            {
                return Ok(id);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// What the files below a directory hold; what cannot be seen counts nothing.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            metadata => metadata.map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

/// How many of the oldest have to go; the newest stays whatever its size.
fn surplus(sizes: &[u64]) -> usize {
    let mut bytes = 0;
    let keep = sizes
        .iter()
        .rev()
        .take(ASIDE_MAX)
        .take_while(|size| {
            bytes += *size;
            bytes <= ASIDE_BYTES
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
