//! The journal of tasks: one line of JSON per event, appended, and synced where
//! that matters.
//!
//! After a crash it says which task was under way, so that the task is given back
//! and its controller does not wait for its own timeout (3 h by default). A line
//! that a crash cut short is the last one, and is ignored. A journal with other
//! damage is kept under another name, and its readable lines count.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::event::{self, Stage, Tasks, UnfinishedTask};
use super::task::TaskRecord;
use crate::diag;
use crate::durable;
use crate::error::{Context as _, Result, reason};
use crate::json::Value;

/// A longer journal is replaced by one with the tasks under way only, in bytes. An
/// event has some 500, and a task four events.
const LENGTH_MAX: u64 = 64 * 1024;
/// The most that is read, from the end of the journal, in bytes: many times what
/// the agent ever writes.
const READ_MAX: u64 = 4 << 20;
/// The number of damaged journals that are kept.
const BAD_MAX: usize = 4;

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    tasks: Tasks,
    /// The directory entry is durable: true if the file had events already. So a
    /// turn without a task does not sync.
    named: bool,
    /// The file has a part of a line behind `length`.
    torn: bool,
}

impl Journal {
    /// Opens the journal at `path`, or creates it; returns also the tasks that were
    /// under way. A damaged journal is set aside.
    pub(super) fn open(path: &Path) -> io::Result<(Journal, Vec<UnfinishedTask>)> {
        durable::tidy(path);
        // A journal is set aside only if it cannot be read twice.
        let found = match read(path) {
            Ok((_, _, Some(_))) | Err(_) => read(path),
            whole => whole,
        };
        let (file, text, damage) = match found {
            Ok((file, text, damage)) => (Some(file), text, damage),
            Err(e) if durable::is_damaged(&e) => (None, Vec::new(), Some(reason(&e))),
            Err(e) => return Err(e),
        };
        let end = text.iter().rposition(|byte| *byte == b'\n');
        let end = end.map_or(0, |at| at + 1);
        let (mut tasks, bad) = Tasks::replay(&text[..end]);
        let unreadable = (bad > 0).then(|| format!("{bad} unreadable lines"));
        let (file, length, torn) = match (file, damage.or(unreadable)) {
            (Some(file), None) => (file, end, end < text.len()),
            (_, why) => {
                // The lost lines may have said that a task was handed out again.
                tasks.sent.clear();
                let text = tasks.to_text();
                let file = set_aside(path, &text, &why.unwrap_or_default(), &tasks)?;
                (file, text.len(), false)
            }
        };
        let journal = Journal {
            path: path.to_owned(),
            file,
            length: u64::try_from(length).unwrap_or(u64::MAX),
            named: !text.is_empty(),
            tasks,
            torn,
        };
        journal.reserve();
        let left = journal.tasks.open.values().cloned().collect();
        Ok((journal, left))
    }

    /// Records that a task was accepted, before anything else is done about it.
    pub(super) fn accepted(&mut self, task: &TaskRecord) -> Result<()> {
        self.accept(task).context(|| self.unable())
    }

    fn accept(&mut self, task: &TaskRecord) -> io::Result<()> {
        if self.length > LENGTH_MAX {
            self.shorten()?;
        }
        if !self.named {
            durable::sync_parent(&self.path)?;
            self.named = true;
        }
        self.append(&event::accepted(task))?;
        self.file.sync_data()?;
        self.tasks.accepted(task.clone());
        Ok(())
    }

    /// Records how far the task of `session` has come.
    pub(super) fn reached(&mut self, session: &str, stage: Stage) -> Result<()> {
        self.record(session, stage, None).context(|| self.unable())
    }

    /// Records that the stored result `id` was sent, so that it is not sent again
    /// if a power cut keeps it in the store.
    pub(super) fn sent(&mut self, session: &str, id: &str) -> Result<()> {
        self.record(session, Stage::Sent, Some(id))
            .context(|| self.unable())
    }

    fn record(&mut self, session: &str, stage: Stage, result: Option<&str>) -> io::Result<()> {
        self.append(&event::reached(session, stage, result))?;
        // The other stages may be lost in a power cut: a start changes nothing, and
        // a stored result is found in the queue.
        if stage == Stage::Sent {
            self.file.sync_data()?;
        }
        self.tasks.reached(session, stage, result);
        Ok(())
    }

    /// Whether the stored result `id` of the task of `session` was sent already.
    pub(super) fn was_sent(&self, session: &str, id: &str) -> bool {
        self.tasks.sent.get(session).is_some_and(|sent| sent == id)
    }

    /// Starts anew, with the tasks under way. Results that were sent are gone from
    /// the queue.
    fn shorten(&mut self) -> io::Result<()> {
        if self.tasks.open.is_empty() {
            self.file.set_len(0)?;
            self.length = 0;
        } else {
            let text = self.tasks.to_text();
            // Without space for a second file the first one grows.
            let Ok(file) = durable::begin(&self.path, text.as_bytes()) else {
                return Ok(());
            };
            self.file = file;
            self.length = u64::try_from(text.len()).unwrap_or(u64::MAX);
            self.named = false;
        }
        self.torn = false;
        self.tasks.sent.clear();
        self.reserve();
        Ok(())
    }

    /// Allocates space ahead, so that the journal can be written on a full disk. A
    /// file system that cannot do that is no error.
    fn reserve(&self) {
        // fallocate(2) writes even if the space is there already.
        let there = self.file.metadata().map_or(0, |m| m.blocks() * 512);
        if there >= 2 * LENGTH_MAX {
            return;
        }
        let size = i64::try_from(2 * LENGTH_MAX).unwrap_or(i64::MAX);
        let _ = fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, size);
    }

    fn append(&mut self, event: &Value) -> io::Result<()> {
        // A part of a line must not become the start of the next line.
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        let line = format!("{event}\n");
        self.file.write_all(line.as_bytes()).inspect_err(|_| {
            self.torn = self.file.set_len(self.length).is_err();
        })?;
        self.length += u64::try_from(line.len()).unwrap_or(0);
        Ok(())
    }

    fn unable(&self) -> String {
        format!("unable to write journal {}", self.path.display())
    }
}

/// The readable part of a journal (its end, if it is too long), and what is wrong
/// with the journal.
fn read(path: &Path) -> io::Result<(File, Vec<u8>, Option<String>)> {
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true).mode(0o600);
    let mut file = options.open(path)?;
    let over = file.metadata()?.len().saturating_sub(READ_MAX);
    file.seek(SeekFrom::Start(over))?;
    let mut text = Vec::new();
    let damage = match (&file).take(READ_MAX).read_to_end(&mut text) {
        Err(e) if durable::is_damaged(&e) => Some(reason(&e)),
        Err(e) => return Err(e),
        // The agent never writes so much.
        Ok(_) => (over > 0).then(|| format!("larger than {READ_MAX} bytes")),
    };
    Ok((file, text, damage))
}

/// Keeps a damaged journal under another name, and begins one with `text`.
fn set_aside(path: &Path, text: &str, why: &str, tasks: &Tasks) -> io::Result<File> {
    let name = |n: usize| path.with_extension(format!("bad-{n}"));
    let bad = (0..BAD_MAX - 1).map(name).find(|name| !name.exists());
    let bad = bad.unwrap_or_else(|| name(BAD_MAX - 1));
    let _ = fs::remove_file(&bad);
    // The journal has both names until there is a new one, so that a crash between
    // loses nothing. A directory can only be renamed.
    fs::hard_link(path, &bad).or_else(|_| fs::rename(path, &bad))?;
    let file = durable::begin(path, text.as_bytes())?;
    durable::sync_parent(path)?;
    diag::warning(format!("journal {} was damaged: {why}", path.display()))
        .info(format!("it is kept as {}", bad.display()))
        .info(format!("tasks under way in the rest: {}", tasks.open.len()))
        .emit();
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::address::UploadTarget;
    use crate::delivery::clock::Stamp;
    use std::fs;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let name = format!("bbot-agent-journal-{}-{name}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            Place(dir.join("journal"))
        }

        /// How many were set aside.
        fn bad(&self) -> usize {
            let entries = fs::read_dir(self.0.parent().unwrap()).unwrap();
            entries.count() - 1
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    fn task(session: &str) -> TaskRecord {
        TaskRecord {
            accepted: Stamp {
                wall: 1_700_000_000,
                boot: None,
                uptime: 7,
            },
            session: session.to_owned(),
            controller: "http://c/".to_owned(),
            result_url: UploadTarget::parse("http://c/?build-result").unwrap(),
            upload_urls: Vec::new(),
            challenge: Some("abc\n\"\\\u{1}é".to_owned()),
            name: "libfoo".to_owned(),
            version: "1.2.3".to_owned(),
            machine: "linux".to_owned(),
            interactive: true,
        }
    }

    fn sessions(place: &Place) -> Vec<(String, bool)> {
        let (_, left) = Journal::open(&place.0).unwrap();
        let pairs = left.into_iter().map(|t| (t.task.session, t.started));
        pairs.collect()
    }

    #[test]
    fn a_task_is_under_way_from_accepted_to_stored() {
        let place = Place::new("stages");
        let (mut journal, left) = Journal::open(&place.0).unwrap();
        assert!(left.is_empty());
        journal.accepted(&task("a")).unwrap();
        let (_, left) = Journal::open(&place.0).unwrap();
        assert_eq!(left[0].task, task("a"));
        journal.reached("a", Stage::Started).unwrap();
        assert_eq!(sessions(&place), [("a".to_owned(), true)]);
        journal.reached("a", Stage::Stored).unwrap();
        assert!(sessions(&place).is_empty());
        journal.reached("a", Stage::Sent).unwrap();
        assert!(sessions(&place).is_empty());
    }

    #[test]
    fn only_a_directory_has_an_interactive_task_back() {
        let mut task = task("a");
        assert_eq!(task.way_back(), "reported as abort to");
        task.result_url = UploadTarget::parse("file:///c/results/a.manifest").unwrap();
        assert_eq!(task.way_back(), "given back to");
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
        assert_eq!(place.bad(), 0);
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

    #[test]
    fn with_a_task_under_way_it_stays_short_and_keeps_the_task() {
        let place = Place::new("short");
        let (mut journal, _) = Journal::open(&place.0).unwrap();
        journal.accepted(&task("a")).unwrap();
        journal.reached("a", Stage::Started).unwrap();
        for _ in 0..600 {
            journal.accepted(&task("b")).unwrap();
            journal.reached("b", Stage::Sent).unwrap();
        }
        assert!(fs::metadata(&place.0).unwrap().len() < LENGTH_MAX + 1024);
        assert_eq!(sessions(&place), [("a".to_owned(), true)]);
        assert_eq!(place.bad(), 0);
    }

    #[test]
    fn damage_is_kept_aside_once_and_what_makes_sense_counts() {
        let place = Place::new("damage");
        let (mut journal, _) = Journal::open(&place.0).unwrap();
        for session in ["a", "b", "c", "d"] {
            journal.accepted(&task(session)).unwrap();
        }
        journal.reached("c", Stage::Started).unwrap();
        journal.sent("d", "1").unwrap();
        let mut text = fs::read(&place.0).unwrap();
        text[0] = 0;
        fs::write(&place.0, &text).unwrap();
        let (journal, _) = Journal::open(&place.0).unwrap();
        // A line that is lost may have said that the task came again.
        assert!(!journal.was_sent("d", "1"));
        let left = [("b".to_owned(), false), ("c".to_owned(), true)];
        for _ in 0..2 {
            assert_eq!(sessions(&place), left);
            assert_eq!(place.bad(), 1);
        }
        assert_eq!(fs::read(place.0.with_extension("bad-0")).unwrap(), text);
        // They do not fill the disk.
        for _ in 0..2 * BAD_MAX {
            fs::write(&place.0, "?\n").unwrap();
            assert!(sessions(&place).is_empty());
        }
        assert_eq!(place.bad(), BAD_MAX);
    }

    #[test]
    fn what_is_no_journal_is_out_of_the_way() {
        let place = Place::new("none");
        fs::create_dir(&place.0).unwrap();
        assert!(sessions(&place).is_empty());
        let mut text = vec![b'x'; 5 << 20];
        text.extend(format!("\n{}\n", event::accepted(&task("a"))).bytes());
        fs::write(&place.0, text).unwrap();
        assert_eq!(sessions(&place).len(), 1);
        assert!(fs::metadata(&place.0).unwrap().len() < 1024);
        assert_eq!(place.bad(), 2);
    }

    #[test]
    fn what_was_sent_is_known_until_the_task_comes_again() {
        let place = Place::new("sent");
        let (mut journal, _) = Journal::open(&place.0).unwrap();
        journal.accepted(&task("a")).unwrap();
        journal.sent("a", "1").unwrap();
        let (mut journal, left) = Journal::open(&place.0).unwrap();
        assert!(left.is_empty());
        let known = |journal: &Journal| ["1", "2"].map(|id| journal.was_sent("a", id));
        assert_eq!(known(&journal), [true, false]);
        journal.accepted(&task("a")).unwrap();
        assert_eq!(known(&journal), [false, false]);
    }
}
