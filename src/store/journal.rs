//! What became of each task: one line of JSON per event, appended, and synced
//! where that matters.
//!
//! After a crash it says which task was under way, so that the controller can
//! be told instead of waiting for its own time-out (3 h by default). A line that
//! a crash cut short is at the end, and is as if it had not been written.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::file;
use crate::json::Value;

/// The journal starts anew when it is longer and nothing is under way. An entry
/// has some 500 bytes, a task four of them.
const LENGTH_MAX: u64 = 64 * 1024;
/// What is read back at most: many times what is ever written.
const READ_MAX: u64 = 4 << 20;

/// A task that was taken on: what it takes to tell the controller about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Seconds since 1970 when it was.
    pub at: u64,
    /// The controller's name of it.
    pub session: String,
    /// Where it came from, as given on the command line without a password.
    pub controller: String,
    /// Where the result goes.
    pub result_url: String,
    /// What is to be signed, if anything.
    pub challenge: Option<String>,
    /// The package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The machine that it is built in.
    pub machine: String,
}

/// How far a task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its machine was started.
    Started,
    /// Its result is in the store.
    Stored,
    /// The controller has the result, or will never take it.
    Sent,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Stage::Started => "started",
            Stage::Stored => "stored",
            Stage::Sent => "sent",
        }
    }
}

/// A task of which no result was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The task.
    pub accepted: Accepted,
    /// Whether its machine was started.
    pub started: bool,
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    open: BTreeMap<String, Unfinished>,
    /// Its name is on disk: one with entries was there before they were. A turn
    /// without a task does not sync.
    named: bool,
}

impl Journal {
    /// Opens the journal at `path`, or makes one; returns with it the tasks that
    /// were under way.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn open(path: &Path) -> io::Result<(Journal, Vec<Unfinished>)> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        let text = match file::read(path, READ_MAX) {
            // Nobody writes so much; what it is, it is no journal of ours.
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => Vec::new(),
            other => other?,
        };
        let open = replay(&text);
        let left = open.values().cloned().collect();
        let mut journal = Journal {
            path: path.to_owned(),
            file,
            length: u64::try_from(text.len()).unwrap_or(u64::MAX),
            open,
            named: !text.is_empty(),
        };
        if !text.is_empty() && !text.ends_with(b"\n") {
            // Ends the torn line, so that the next one is whole.
            journal.write("\n")?;
        }
        journal.reserve();
        Ok((journal, left))
    }

    /// Records that a task was taken on, before anything else is done about it.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn accepted(&mut self, task: &Accepted) -> io::Result<()> {
        if self.open.is_empty() && self.length > LENGTH_MAX {
            self.file.set_len(0)?;
            self.length = 0;
            self.reserve();
        }
        if !self.named {
            file::sync_parent(&self.path)?;
            self.named = true;
        }
        self.append(&encode(task))?;
        self.file.sync_data()?;
        let task = Unfinished {
            accepted: task.clone(),
            started: false,
        };
        self.open.insert(task.accepted.session.clone(), task);
        Ok(())
    }

    /// Records how far the task of `session` has come.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn reached(&mut self, session: &str, stage: Stage) -> io::Result<()> {
        self.append(&Value::Object(vec![
            ("event".to_owned(), string(stage.word())),
            ("session".to_owned(), string(session)),
        ]))?;
        // The stages between, a power cut may take: that a machine was started
        // changes nothing then, and what is stored is found in the store.
        if stage == Stage::Sent {
            self.file.sync_data()?;
        }
        note(&mut self.open, session, stage);
        Ok(())
    }

    /// Has space at hand, so that a full disk does not keep the journal from
    /// saying what became of a task. File systems that cannot do that are fine.
    fn reserve(&self) {
        // To ask for what is there already would be a write all the same.
        let there = self.file.metadata().map_or(0, |m| m.blocks() * 512);
        if there >= 2 * LENGTH_MAX {
            return;
        }
        let size = i64::try_from(2 * LENGTH_MAX).unwrap_or(i64::MAX);
        let _ = fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, size);
    }

    fn append(&mut self, event: &Value) -> io::Result<()> {
        let before = self.length;
        self.write(&format!("{event}\n")).inspect_err(|_| {
            // Half a line must not become part of the next.
            let _ = self.file.set_len(before);
            self.length = before;
        })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.length += u64::try_from(text.len()).unwrap_or(0);
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn note(open: &mut BTreeMap<String, Unfinished>, session: &str, stage: Stage) {
    match stage {
        Stage::Started => {
            if let Some(task) = open.get_mut(session) {
                task.started = true;
            }
        }
        Stage::Stored | Stage::Sent => {
            open.remove(session);
        }
    }
}

fn replay(text: &[u8]) -> BTreeMap<String, Unfinished> {
    let mut open = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        // A torn or foreign line says nothing.
        let Some(value) = std::str::from_utf8(line)
            .ok()
            .and_then(|line| Value::parse(line).ok())
        else {
            continue;
        };
        let get = |name: &str| value.get(name).and_then(Value::as_str);
        let (Some(event), Some(session)) = (get("event"), get("session")) else {
            continue;
        };
        let stages = [Stage::Started, Stage::Stored, Stage::Sent];
        if let Some(stage) = stages.into_iter().find(|stage| stage.word() == event) {
            note(&mut open, session, stage);
        } else if event == "accepted" {
            let accepted = decode(&value);
            open.insert(
                session.to_owned(),
                Unfinished {
                    accepted,
                    started: false,
                },
            );
        }
    }
    open
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn encode(task: &Accepted) -> Value {
    let mut pairs = vec![
        ("event".to_owned(), string("accepted")),
        ("at".to_owned(), Value::Number(task.at.to_string())),
    ];
    for (name, value) in [
        ("session", Some(&task.session)),
        ("controller", Some(&task.controller)),
        ("result-url", Some(&task.result_url)),
        ("challenge", task.challenge.as_ref()),
        ("name", Some(&task.name)),
        ("version", Some(&task.version)),
        ("machine", Some(&task.machine)),
    ] {
        if let Some(value) = value {
            pairs.push((name.to_owned(), string(value)));
        }
    }
    Value::Object(pairs)
}

fn decode(value: &Value) -> Accepted {
    let get = |name: &str| {
        let found = value.get(name).and_then(Value::as_str);
        found.map(str::to_owned)
    };
    Accepted {
        at: value.get("at").and_then(Value::as_u64).unwrap_or(0),
        session: get("session").unwrap_or_default(),
        controller: get("controller").unwrap_or_default(),
        result_url: get("result-url").unwrap_or_default(),
        challenge: get("challenge"),
        name: get("name").unwrap_or_default(),
        version: get("version").unwrap_or_default(),
        machine: get("machine").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let name = format!("bbot-agent-journal-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_file(&path);
            Place(path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn task(session: &str) -> Accepted {
        Accepted {
            at: 1_700_000_000,
            session: session.to_owned(),
            controller: "http://c/".to_owned(),
            result_url: "http://c/?build-result".to_owned(),
            challenge: Some("abc\n\"\\\u{1}é".to_owned()),
            name: "libfoo".to_owned(),
            version: "1.2.3".to_owned(),
            machine: "linux".to_owned(),
        }
    }

    fn sessions(place: &Place) -> Vec<(String, bool)> {
        let (_, left) = Journal::open(&place.0).unwrap();
        let pairs = left.into_iter().map(|t| (t.accepted.session, t.started));
        pairs.collect()
    }

    #[test]
    fn a_task_is_under_way_from_accepted_to_stored() {
        let place = Place::new("stages");
        let (mut journal, left) = Journal::open(&place.0).unwrap();
        assert!(left.is_empty());
        journal.accepted(&task("a")).unwrap();
        let (_, left) = Journal::open(&place.0).unwrap();
        assert_eq!(left[0].accepted, task("a"));
        journal.reached("a", Stage::Started).unwrap();
        assert_eq!(sessions(&place), [("a".to_owned(), true)]);
        journal.reached("a", Stage::Stored).unwrap();
        assert!(sessions(&place).is_empty());
        journal.reached("a", Stage::Sent).unwrap();
        assert!(sessions(&place).is_empty());
    }

    #[test]
    fn a_torn_tail_is_as_if_it_had_not_been_written() {
        let place = Place::new("torn");
        let (mut journal, _) = Journal::open(&place.0).unwrap();
        journal.accepted(&task("a")).unwrap();
        journal.reached("a", Stage::Started).unwrap();
        journal.accepted(&task("b")).unwrap();
        journal.reached("a", Stage::Stored).unwrap();
        let whole = fs::read(&place.0).unwrap();
        let mut seen = Vec::new();
        for cut in 0..=whole.len() {
            fs::write(&place.0, &whole[..cut]).unwrap();
            seen.push(sessions(&place).len());
            // What is appended after a torn line counts.
            let (mut journal, _) = Journal::open(&place.0).unwrap();
            journal.accepted(&task("c")).unwrap();
            assert!(sessions(&place).iter().any(|(s, _)| s == "c"), "{cut}");
        }
        assert_eq!(seen.first(), Some(&0));
        assert_eq!(seen.last(), Some(&1));
        assert!(seen.contains(&2));
    }

    #[test]
    fn it_starts_anew_when_long_and_idle() {
        let place = Place::new("long");
        let (mut journal, _) = Journal::open(&place.0).unwrap();
        for _ in 0..400 {
            journal.accepted(&task("a")).unwrap();
            journal.reached("a", Stage::Sent).unwrap();
        }
        assert!(fs::metadata(&place.0).unwrap().len() < LENGTH_MAX + 1024);
        assert!(sessions(&place).is_empty());
    }
}
