//! Warnings about what stays as it is from turn to turn, each given once.
//!
//! They are kept in a file, so that an agent that makes one turn for each start does
//! not give them each time. An idle turn writes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::diag;
use crate::durable;
use crate::error::reason;
use crate::trace;

/// The largest file of notes in bytes: some ten thousand lines.
const MAX_NOTES_BYTES: u64 = 1 << 20;

/// The warnings that were given.
#[derive(Debug, Default)]
pub(super) struct Notes {
    path: Option<PathBuf>,
    /// Lines `<source><tab><text>`.
    given: BTreeSet<String>,
}

impl Notes {
    /// The notes in the file at `path`. If it cannot be read there are none. With
    /// `repeats` they are given again.
    pub(super) fn open(path: PathBuf, repeats: bool) -> Notes {
        let text = match repeats {
            true => Vec::new(),
            false => durable::read(&path, MAX_NOTES_BYTES).unwrap_or_default(),
        };
        let lines = String::from_utf8_lossy(&text);
        Notes {
            given: lines.lines().map(str::to_owned).collect(),
            path: Some(path),
        }
    }

    /// Gives the warnings that are new. With `all` the source has no others at
    /// present, so that one that comes back is new again.
    pub(super) fn report(&mut self, source: &str, texts: BTreeSet<String>, all: bool) {
        let mut changed = false;
        let mut lines = BTreeSet::new();
        for text in texts {
            let line = format!("{source}\t{text}").replace(['\n', '\r'], " ");
            if !self.given.contains(&line) {
                diag::warning(text).emit();
                changed = true;
            }
            lines.insert(line);
        }
        if all {
            let of_source = format!("{source}\t");
            let before = self.given.len();
            self.given
                .retain(|line| lines.contains(line) || !line.starts_with(&of_source));
            changed |= self.given.len() != before;
        }
        self.given.append(&mut lines);
        if let (true, Some(path)) = (changed, &self.path) {
            let text: String = self.given.iter().map(|line| format!("{line}\n")).collect();
            if let Err(error) = durable::publish(path, text.as_bytes()) {
                trace!(2, "report", "{}: {}", path.display(), reason(&error));
            }
        }
    }
}
