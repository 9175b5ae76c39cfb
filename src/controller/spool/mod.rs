//! A directory that plays controller, for hosts without a network, for
//! experiments and for tests.
//!
//! ```text
//! <dir>/tasks/<task>.manifest      dropped by the operator, by rename
//! <dir>/claimed/<task>.manifest    taken by an agent, which has it locked
//! <dir>/results/<task>.manifest    the result; appears whole
//! <dir>/done/<task>.manifest       the task that the result is of
//! <dir>/rejected/<task>.manifest   not a task, and why in <task>.reason
//! ```
//!
//! Several agents can share a directory: a task belongs to the agent that holds the
//! lock on its file (flock(2)). The kernel frees the lock of a dead agent, and another
//! one takes the task again. The file of a task is only renamed from directory to
//! directory, so that it is never lost. An idle turn writes nothing.
//!
//! Tasks are taken in the order of their names. A task for a machine that was not
//! offered stays for other agents. When a task is taken, an older result of the same
//! name is renamed to `<task>.manifest.old`.

mod task_file;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::address::SUFFIX;
use super::failure::{Failure, FailureClass};
use crate::diag;
use crate::durable;
use crate::error::{reason, word};
use crate::manifest::{ResultRequest, Style, TaskManifest, TaskRequest};
use crate::sys::flock;
use crate::trace;
use task_file::{Opened, TaskFile};

/// The longest name of a task in bytes, so that the names of the files that go with
/// it are not longer than file systems allow (255).
const MAX_NAME_BYTES: usize = 200;
/// A task that ended this many agents is not tried again.
const TRIES_MAX: u32 = 3;

/// A directory controller, and the task in it that this agent has claimed.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    /// The tasks of this agent by name. Dropping a lock gives the task up.
    claims: BTreeMap<String, Claim>,
}

#[derive(Debug)]
struct Claim {
    _lock: flock::Locked,
    name: String,
    version: String,
}

impl Spool {
    /// The directory `dir`, which need not be there yet.
    pub fn new(dir: PathBuf) -> Spool {
        Spool {
            dir,
            claims: BTreeMap::new(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, directory: &str, task: &str) -> PathBuf {
        self.dir.join(directory).join(format!("{task}{SUFFIX}"))
    }

    /// Takes a task for one of the machines of the request, if there is one, and returns
    /// its name as well. Each task that stays where it is adds a line to `notes`; none
    /// keeps the others from being offered.
    pub(super) fn take(
        &mut self,
        request: &TaskRequest,
        notes: &mut BTreeSet<String>,
    ) -> Result<Option<(String, TaskManifest)>, Failure> {
        self.prepare()?;
        let mut failed = None;
        for directory in ["claimed", "tasks"] {
            for task in self.names(directory, notes)? {
                if self.claims.contains_key(&task) {
                    continue;
                }
                let path = self.path(directory, &task);
                let verdict = match TaskFile::lock(&path) {
                    Opened::Busy => continue,
                    Opened::Failed(error) => {
                        let error = reason(&error);
                        Verdict::Leave(format!("unable to open task {}: {error}", path.display()))
                    }
                    Opened::NotFile(why) => self.reject(&path, &task, why),
                    // Its agent died between the result and this.
                    Opened::Locked(_) if directory == "claimed" && self.has_result(&task) => {
                        match self.finish(&task) {
                            Ok(()) => Verdict::Gone,
                            Err(error) => self.failed("finish task", &task, &error),
                        }
                    }
                    Opened::Locked(file) => self.consider(file, directory, &task, request),
                };
                match verdict {
                    Verdict::Take(manifest) => return Ok(Some((task, manifest))),
                    Verdict::Leave(why) => {
                        notes.insert(why);
                    }
                    Verdict::Failed(failure) => failed = failed.or(Some(failure)),
                    Verdict::Gone => {}
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Makes the directories that are missing. All there: writes nothing.
    fn prepare(&self) -> Result<(), Failure> {
        let in_the_way = |path: &Path| {
            let path_word = word(path);
            let what = format!("{} is not a directory", path.display());
            Failure::new(FailureClass::Directory, what)
                .hint(format!("move it away: mv {path_word} {path_word}.old"))
        };
        if !self.dir.is_dir() {
            if self.dir.exists() {
                return Err(in_the_way(&self.dir));
            }
            let what = format!("no directory {}", self.dir.display());
            let tasks = self.dir.join("tasks");
            return Err(Failure::new(FailureClass::Directory, what)
                .hint(format!("make it: mkdir -p {}", word(&tasks))));
        }
        for name in ["tasks", "claimed", "results", "done", "rejected"] {
            let path = self.dir.join(name);
            if path.is_dir() {
                continue;
            }
            // Another agent may make it at the same time, which is no error here.
            fs::create_dir_all(&path).map_err(|error| {
                if path.exists() {
                    return in_the_way(&path);
                }
                let what = format!("unable to create directory {}", path.display());
                Failure::directory(&what, &error)
            })?;
        }
        Ok(())
    }

    /// The tasks in a directory, in the order of their names. A name that cannot stand
    /// in a manifest adds a line to `notes`.
    fn names(&self, directory: &str, notes: &mut BTreeSet<String>) -> Result<Vec<String>, Failure> {
        let path = self.dir.join(directory);
        let failed = |error: &io::Error| {
            let what = format!("unable to read directory {}", path.display());
            Failure::directory(&what, error)
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|e| failed(&e))? {
            let name = entry.map_err(|e| failed(&e))?.file_name();
            let text = name.to_string_lossy();
            // Hidden names are files in the making.
            let Some(task) = text.strip_suffix(SUFFIX).filter(|t| !t.is_empty()) else {
                continue;
            };
            if task.starts_with('.') {
                continue;
            }
            if name.to_str().is_none() || task.contains(char::is_control) {
                notes.insert(format!(
                    "task {} is left: its name is not UTF-8 or has control characters, rename it",
                    path.join(&*text).display()
                ));
            } else {
                names.push(task.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn consider(
        &mut self,
        file: TaskFile,
        directory: &str,
        task: &str,
        request: &TaskRequest,
    ) -> Verdict {
        if task.len() > MAX_NAME_BYTES {
            let why = format!("its name is longer than {MAX_NAME_BYTES} bytes");
            return self.reject(&file.path, task, &why);
        }
        let is_valid = |task: TaskManifest| task.auxiliary_machines().map(|_| task);
        let manifest = match file.read().and_then(is_valid) {
            Ok(manifest) => manifest,
            Err(why) => return self.reject(&file.path, task, &why),
        };
        if let Err(why) = request.offers(&manifest) {
            return Verdict::Leave(format!("task {} waits: {why}", file.path.display()));
        }
        let again = directory == "claimed";
        if again {
            let tries = self.tries(task) + 1;
            if tries > TRIES_MAX {
                let why = format!("it was begun {TRIES_MAX} times and never ended");
                return self.reject(&file.path, task, &why);
            }
            diag::warning(format!(
                "task {} was begun before and is taken again",
                file.path.display()
            ))
            .emit();
            if let Err(error) = self.set_tries(task, tries) {
                return self.failed("claim task", task, &error);
            }
        } else if self.claimed_by_another(task) {
            // Its namesake is not done yet; it has to wait for that.
            return Verdict::Gone;
        } else if let Err(error) = self.claim(&file, task) {
            return self.failed("claim task", task, &error);
        }
        self.keep(file, task, &manifest);
        Verdict::Take(manifest)
    }

    /// Keeps the lock of a task.
    fn keep(&mut self, file: TaskFile, task: &str, manifest: &TaskManifest) {
        let claim = Claim {
            _lock: file.lock,
            name: manifest.name().to_owned(),
            version: manifest.version().to_owned(),
        };
        self.claims.insert(task.to_owned(), claim);
    }

    fn claimed_by_another(&self, task: &str) -> bool {
        self.path("claimed", task).exists()
    }

    /// Whether the result of a task is there. A directory of that name is not one.
    fn has_result(&self, task: &str) -> bool {
        self.path("results", task).is_file()
    }

    fn claim(&self, file: &TaskFile, task: &str) -> io::Result<()> {
        let result = self.path("results", task);
        if result.exists() {
            let mut old = result.clone().into_os_string();
            old.push(".old");
            durable::rename(&result, Path::new(&old))?;
        }
        self.set_tries(task, 1)?;
        let to = self.path("claimed", task);
        trace!(3, "claim", "mv {} {}", file.path.display(), to.display());
        durable::rename(&file.path, &to)
    }

    /// How often a task was begun.
    fn tries(&self, task: &str) -> u32 {
        let read = durable::read(&self.tries_path(task), 16);
        let text = read.ok().and_then(|text| String::from_utf8(text).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(1)
    }

    fn set_tries(&self, task: &str, tries: u32) -> io::Result<()> {
        durable::replace(&self.tries_path(task), format!("{tries}\n").as_bytes())
    }

    fn tries_path(&self, task: &str) -> PathBuf {
        self.dir.join("claimed").join(format!(".{task}.tries"))
    }

    /// Moves a file that is not a task to rejected/, with the reason beside it.
    fn reject(&self, from: &Path, task: &str, why: &str) -> Verdict {
        let to = self.path("rejected", task);
        // The reason comes second: in the way of the file may be something that
        // stays, and an idle turn writes nothing.
        match durable::rename(from, &to) {
            Ok(()) => {}
            // Another agent was faster.
            Err(_) if fs::symlink_metadata(from).is_err() => return Verdict::Gone,
            Err(error) => {
                let what = format!("unable to move task {} to rejected/", from.display());
                return Spool::left(&format!("{what} ({why})"), &error);
            }
        }
        diag::error(format!("task {} is rejected: {why}", from.display()))
            .info(format!(
                "it is now {}: correct it and move it back to tasks/",
                to.display()
            ))
            .emit();
        let short = &task[..task.floor_char_boundary(MAX_NAME_BYTES)];
        let note = self.dir.join("rejected").join(format!("{short}.reason"));
        let noted = durable::replace(&note, format!("{why}\n").as_bytes())
            .and_then(|()| durable::remove(&self.tries_path(short)));
        if let Err(error) = noted {
            let (note, error) = (note.display(), reason(&error));
            diag::warning(format!("unable to write {note}: {error}")).emit();
        }
        Verdict::Gone
    }

    fn failed(&self, what: &str, task: &str, error: &io::Error) -> Verdict {
        Spool::left(&self.what(what, task), error)
    }

    /// The verdict after an error: about this task, or about all of the directory.
    fn left(what: &str, error: &io::Error) -> Verdict {
        use nix::libc::{EACCES, EDQUOT, EIO, ENOSPC, EROFS};
        match error.raw_os_error() {
            Some(EACCES | EDQUOT | EIO | ENOSPC | EROFS) => {
                Verdict::Failed(Failure::directory(what, error))
            }
            _ => Verdict::Leave(format!("{what}: {}", reason(error))),
        }
    }

    fn what(&self, what: &str, task: &str) -> String {
        format!("unable to {what} {task} of {}", self.dir.display())
    }

    /// Takes the lock of a claimed task, if it is free.
    pub(super) fn hold(&mut self, task: &str) {
        if self.claims.contains_key(task) {
            return;
        }
        if let Opened::Locked(file) = TaskFile::lock(&self.path("claimed", task))
            && let Ok(manifest) = file.read()
        {
            self.keep(file, task, &manifest);
        }
    }

    /// Puts a claimed task back, as if it had not been taken.
    pub(super) fn release(&mut self, task: &str) {
        let Some(claim) = self.claims.remove(task) else {
            return;
        };
        let to = self.path("tasks", task);
        // A task of the same name that was dropped meanwhile stays; this one is then
        // found unlocked.
        if !to.exists() {
            let released = durable::remove(&self.tries_path(task))
                .and_then(|()| durable::rename(&self.path("claimed", task), &to));
            if let Err(error) = released {
                diag::warning(Failure::directory(
                    &self.what("put back task", task),
                    &error,
                ))
                .emit();
            }
        }
        drop(claim);
    }

    /// Takes a result request, as a controller would: it must be readable, and
    /// of the package of the task.
    ///
    /// # Errors
    ///
    /// Final ones for what a controller would answer with 4xx, others when the
    /// directory cannot be written.
    pub fn deliver(&mut self, task: &str, text: &[u8]) -> Result<(), Failure> {
        let refused =
            |code, why: String| Failure::new(FailureClass::Client(code), format!("refused: {why}"));
        let request =
            ResultRequest::parse(text, "").map_err(|error| refused(400, error.to_string()))?;
        if request.session != task {
            return Err(refused(400, format!("session is not {task}")));
        }
        self.hold(task);
        let Some(claim) = self.claims.get(task) else {
            if self.has_result(task) {
                // Delivered before, by an agent that died right after.
                return Ok(());
            }
            return Err(refused(404, format!("no claimed task {task}")));
        };
        let result = &request.result;
        if (&result.name, &result.version) != (&claim.name, &claim.version) {
            return Err(refused(
                400,
                format!(
                    "result is of {}/{}, task of {}/{}",
                    result.name, result.version, claim.name, claim.version
                ),
            ));
        }
        let text = result
            .to_text(Style::TODAY)
            .map_err(|error| refused(400, error.to_string()))?;
        let result = self.path("results", task);
        // An older result was renamed when the task was claimed. A result that is
        // there is one of this task, by an agent that died before it could record
        // that. It may have been read, and is not replaced.
        if !result.is_file() {
            durable::replace(&result, text.as_bytes())
                .map_err(|error| Failure::directory(&self.what("write result of", task), &error))?;
        }
        // The result is delivered. A failure from here on is corrected at the next
        // start.
        if let Err(error) = self.finish(task) {
            diag::warning(Failure::directory(&self.what("finish task", task), &error)).emit();
        }
        self.claims.remove(task);
        Ok(())
    }

    /// The count of attempts is removed first: it is found by the name of the task.
    fn finish(&self, task: &str) -> io::Result<()> {
        durable::remove(&self.tries_path(task))?;
        durable::rename(&self.path("claimed", task), &self.path("done", task))
    }
}

/// The decision about a task file.
enum Verdict {
    /// This agent takes it.
    Take(TaskManifest),
    /// It stays where it is, for this reason.
    Leave(String),
    /// It is not here any more, or not to be touched.
    Gone,
    /// The directory cannot be used.
    Failed(Failure),
}
