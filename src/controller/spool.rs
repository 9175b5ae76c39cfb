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
//! Several agents may share a directory: a task belongs to the one that has its
//! file locked (flock(2)). When an agent dies the lock is free, and whoever
//! finds it so may take the task again. The file of a task stays what it was
//! from the first directory to the last, so it is never lost; and an idle turn
//! writes nothing.
//!
//! Tasks are taken in the order of their names. One for a machine that was not
//! offered stays for others. When a task is taken, an older result of the same
//! name goes out of the way, as `<task>.manifest.old`: what is there under the
//! name of the result is the result.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;

use super::address::{SUFFIX, UploadTarget};
use super::failure::{Failure, FailureClass};
use crate::diag;
use crate::durable;
use crate::error::reason;
use crate::manifest::{ResultRequest, Style, TaskManifest, TaskRequest, TaskResponse};
use crate::sys::flock;
use crate::trace;

/// Tasks have a few kB.
const TASK_MAX: u64 = 1 << 20;
/// A task that ended this many agents is not tried again.
const TRIES_MAX: u32 = 3;

/// A directory controller, and the task in it that this agent has claimed.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    /// Our tasks by name. Dropping a lock gives the task up.
    claims: BTreeMap<String, Claim>,
    /// Complaints that were made, so that each is made once.
    said: BTreeSet<String>,
}

#[derive(Debug)]
struct Claim {
    _lock: flock::Locked,
    name: String,
    version: String,
}

/// A task file that we have locked.
struct Locked {
    lock: flock::Locked,
    path: PathBuf,
}

impl Spool {
    /// The directory `dir`, which need not be there yet.
    #[must_use]
    pub fn new(dir: PathBuf) -> Spool {
        Spool {
            dir,
            claims: BTreeMap::new(),
            said: BTreeSet::new(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, directory: &str, task: &str) -> PathBuf {
        self.dir.join(directory).join(format!("{task}{SUFFIX}"))
    }

    /// Offers a task for one of the machines of the request, or none.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used.
    pub fn respond(&mut self, request: &TaskRequest) -> Result<TaskResponse, Failure> {
        self.prepare()?;
        let names = request.machines.iter().map(|machine| machine.name());
        let machines: BTreeSet<&str> = names.collect();
        let mut said = BTreeSet::new();
        for directory in ["claimed", "tasks"] {
            for task in self.names(directory)? {
                if self.claims.contains_key(&task) {
                    continue;
                }
                let Some(locked) = self.lock(directory, &task) else {
                    continue;
                };
                if directory == "claimed" && self.path("results", &task).exists() {
                    // Its agent died between the result and this.
                    self.finish(&task)
                        .map_err(|e| self.failed("finish task", &task, &e))?;
                    continue;
                }
                match self.consider(locked, directory, &task, &machines) {
                    Verdict::Take(response) => {
                        self.said.retain(|s| said.contains(s));
                        return Ok(*response);
                    }
                    Verdict::Leave(why) => {
                        if !self.said.contains(&why) {
                            diag::warning(&why).emit();
                        }
                        said.insert(why);
                    }
                    Verdict::Failed(failure) => return Err(failure),
                    Verdict::Gone => {}
                }
            }
        }
        self.said = said;
        Ok(TaskResponse::default())
    }

    /// Makes the directories that are missing. All there: writes nothing.
    fn prepare(&self) -> Result<(), Failure> {
        if !self.dir.is_dir() {
            return Err(Failure::new(
                FailureClass::Directory,
                format!("no directory {}", self.dir.display()),
            )
            .hint(format!("make it: mkdir -p {}/tasks", self.dir.display())));
        }
        for name in ["tasks", "claimed", "results", "done", "rejected"] {
            let path = self.dir.join(name);
            if !path.is_dir() {
                fs::create_dir(&path).map_err(|error| {
                    let what = format!("unable to create directory {}", path.display());
                    Failure::directory(&what, &error)
                })?;
            }
        }
        Ok(())
    }

    /// The tasks in a directory, in the order of their names.
    fn names(&self, directory: &str) -> Result<Vec<String>, Failure> {
        let path = self.dir.join(directory);
        let failed = |error: &io::Error| {
            let what = format!("unable to read directory {}", path.display());
            Failure::directory(&what, error)
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|e| failed(&e))? {
            let name = entry.map_err(|e| failed(&e))?.file_name();
            // Hidden names are files in the making. A name that is not UTF-8 or
            // has control characters cannot stand in a manifest.
            let Some(name) = name.to_str() else { continue };
            if let Some(task) = name.strip_suffix(SUFFIX)
                && !task.is_empty()
                && !task.starts_with('.')
                && !task.contains(char::is_control)
            {
                names.push(task.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Locks a task file, unless another agent has it or it has just gone.
    fn lock(&self, directory: &str, task: &str) -> Option<Locked> {
        let path = self.path(directory, task);
        // Not through links, and without waiting for the writer of a fifo.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                trace!(3, "lock", "{}: {}", path.display(), reason(&error));
                return None;
            }
        };
        let lock = flock::Locked::take(file, flock::How::TryExclusive).ok()?;
        // Another agent may have moved it between the open and the lock.
        let ours = lock.metadata().ok()?;
        let there = fs::symlink_metadata(&path).ok()?;
        let same = (ours.dev(), ours.ino()) == (there.dev(), there.ino());
        same.then_some(Locked { lock, path })
    }

    fn consider(
        &mut self,
        locked: Locked,
        directory: &str,
        task: &str,
        machines: &BTreeSet<&str>,
    ) -> Verdict {
        let manifest = match read_task(&locked) {
            Ok(manifest) => manifest,
            Err(why) => return self.reject(&locked, task, &why),
        };
        if !machines.contains(manifest.machine()) {
            return Verdict::Leave(format!(
                "task {} is for machine {}, which is not offered",
                locked.path.display(),
                manifest.machine()
            ));
        }
        if let Some(why) = manifest.not_served() {
            return Verdict::Leave(format!("task {} is left: {why}", locked.path.display()));
        }
        let again = directory == "claimed";
        if again {
            let tries = self.tries(task) + 1;
            if tries > TRIES_MAX {
                let why = format!("it was begun {TRIES_MAX} times and never ended");
                return self.reject(&locked, task, &why);
            }
            diag::warning(format!(
                "task {} was begun before and is taken again",
                locked.path.display()
            ))
            .emit();
            if let Err(error) = self.set_tries(task, tries) {
                return Verdict::Failed(self.failed("claim task", task, &error));
            }
        } else if self.claimed_by_another(task) {
            // Its namesake is not done yet; it has to wait for that.
            return Verdict::Gone;
        } else if let Err(error) = self.claim(&locked, task) {
            return Verdict::Failed(self.failed("claim task", task, &error));
        }
        let claim = Claim {
            _lock: locked.lock,
            name: manifest.name().to_owned(),
            version: manifest.version().to_owned(),
        };
        self.claims.insert(task.to_owned(), claim);
        Verdict::Take(Box::new(TaskResponse {
            session: task.to_owned(),
            result_url: Some(
                UploadTarget::Spool {
                    directory: self.dir.clone(),
                    task: task.to_owned(),
                }
                .to_url(),
            ),
            task: Some(manifest),
            ..TaskResponse::default()
        }))
    }

    fn claimed_by_another(&self, task: &str) -> bool {
        self.path("claimed", task).exists()
    }

    fn claim(&self, locked: &Locked, task: &str) -> io::Result<()> {
        let result = self.path("results", task);
        if result.exists() {
            let mut old = result.clone().into_os_string();
            old.push(".old");
            durable::rename(&result, Path::new(&old))?;
        }
        self.set_tries(task, 1)?;
        let to = self.path("claimed", task);
        trace!(3, "claim", "mv {} {}", locked.path.display(), to.display());
        durable::rename(&locked.path, &to)
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

    /// Puts what is not a task out of the way, with the reason beside it.
    fn reject(&self, locked: &Locked, task: &str, why: &str) -> Verdict {
        diag::error(format!("task {} set aside: {why}", locked.path.display())).emit();
        let to = self.path("rejected", task);
        let note = self.dir.join("rejected").join(format!("{task}.reason"));
        let moved = durable::replace(&note, format!("{why}\n").as_bytes())
            .and_then(|()| durable::remove(&self.tries_path(task)))
            .and_then(|()| durable::rename(&locked.path, &to));
        match moved {
            Ok(()) => Verdict::Gone,
            Err(error) => Verdict::Failed(self.failed("set aside task", task, &error)),
        }
    }

    fn failed(&self, what: &str, task: &str, error: &io::Error) -> Failure {
        let dir = self.dir.display();
        Failure::directory(&format!("unable to {what} {task} of {dir}"), error)
    }

    /// Takes the lock of a claimed task, if nobody has it.
    pub(super) fn hold(&mut self, task: &str) {
        if self.claims.contains_key(task) {
            return;
        }
        if let Some(locked) = self.lock("claimed", task)
            && let Ok(manifest) = read_task(&locked)
        {
            let claim = Claim {
                _lock: locked.lock,
                name: manifest.name().to_owned(),
                version: manifest.version().to_owned(),
            };
            self.claims.insert(task.to_owned(), claim);
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
                diag::warning(self.failed("put back task", task, &error)).emit();
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
            if self.path("results", task).exists() {
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
        // An older result went out of the way when the task was claimed. So one
        // that is there is of this task, by an agent that died before it could
        // say so: whoever has read it is not to get another.
        if !result.exists() {
            durable::replace(&result, text.as_bytes())
                .map_err(|error| self.failed("write result of", task, &error))?;
        }
        // The result is there: what goes wrong now is put right at the next
        // start, and is no failure of the delivery.
        if let Err(error) = self.finish(task) {
            diag::warning(self.failed("finish task", task, &error)).emit();
        }
        self.claims.remove(task);
        Ok(())
    }

    /// The note goes first: without the task nobody would look for it.
    fn finish(&self, task: &str) -> io::Result<()> {
        durable::remove(&self.tries_path(task))?;
        durable::rename(&self.path("claimed", task), &self.path("done", task))
    }
}

/// The decision about a task file.
enum Verdict {
    /// This agent takes it.
    Take(Box<TaskResponse>),
    /// It stays where it is, for this reason.
    Leave(String),
    /// It is not here any more, or not to be touched.
    Gone,
    /// The directory cannot be used.
    Failed(Failure),
}

fn read_task(locked: &Locked) -> Result<TaskManifest, String> {
    let metadata = locked.lock.metadata().map_err(|e| reason(&e))?;
    if !metadata.is_file() {
        return Err("not a file".to_owned());
    }
    if metadata.len() > TASK_MAX {
        return Err(format!("longer than {TASK_MAX} bytes"));
    }
    let mut text = Vec::new();
    (&*locked.lock)
        .take(TASK_MAX)
        .read_to_end(&mut text)
        .map_err(|e| reason(&e))?;
    let name = locked.path.file_name().unwrap_or_default();
    TaskManifest::parse(&text, &name.to_string_lossy()).map_err(|e| e.to_string())
}
