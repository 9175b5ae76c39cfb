//! Delivery: nothing is lost between a worker that has done its work and a
//! controller that has the result.
//!
//! ```text
//! accept -> start -> finish | give_back -> flush
//! ```
//!
//! ```text
//! <state>/journal                how far each task has come
//! <state>/journal.bad-<n>        a damaged journal
//! <state>/results/<id>           a result that waits to be sent
//! <state>/artifacts/<id>/        its artifacts
//! <state>/sent/<id>              a result that the deliverer has sent
//! <state>/aside/<id>/            a result that no controller takes, and the reason
//! <state>/reserve                space for a result on a full disk
//! ```
//!
//! Each step is on disk before the next one begins, and a result is recorded as
//! sent before it is removed from the queue. A stored result is sent again, with
//! growing pauses, over turns and restarts, until the controller takes it (2xx),
//! refuses it for good (a final 4xx), or no longer waits for it; in the last two
//! cases it is set aside with the reason. Artifacts go before their result, since
//! controllers only take them while the build is open.
//!
//! A failure in the middle of an exchange does not say whether the controller has
//! the result. It is sent again then: a controller closes the session with the
//! first result and ignores the second.
//!
//! A result that can be neither stored nor sent is kept in memory and tried again
//! with each flush. Its journal entry stays open meanwhile, so that the next agent
//! gives the task back if this one ends.

mod artifacts;
mod boot_file;
mod clock;
mod compose;
mod courier;
mod deliverer;
mod event;
mod flush;
mod journal;
mod queue;
mod reserve;
mod retry;
mod stored;
mod task;
mod unsaved;

use std::collections::BTreeSet;
use std::path::Path;

use crate::auth::Key;
use crate::controller::address::UploadTarget;
use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::manifest::{ResultManifest, ResultRequest};

use event::Stage;
use flush::{Ledger, Sender};
use journal::Journal;
use queue::Queue;
use reserve::Reserve;
use stored::StoredResult;
use unsaved::UnsavedResult;

pub use boot_file::BootFile;
pub use clock::{Boot, Now, Stamp};
pub use courier::Courier;
pub use deliverer::{Deliverer, DelivererSettings, MODE, serve};
pub use event::UnfinishedTask;
pub use flush::Flushed;
pub use retry::RetryLimits;
pub use stored::StoredArtifact;
pub use task::TaskRecord;

/// Space for a result of any size that controllers take (15 MiB), in bytes.
const RESERVE: u64 = 16 << 20;

/// How results are made and sent.
#[derive(Clone, Copy, Debug)]
pub struct DeliverySettings {
    /// The largest result request in bytes.
    pub result_limit: u64,
    /// Whether controllers are of 2017 and know no `interrupt`.
    pub legacy: bool,
    /// When results are sent again.
    pub retry: RetryLimits,
}

/// The tasks of this agent that a controller waits for.
#[derive(Debug)]
pub struct Delivery {
    settings: DeliverySettings,
    key: Option<Key>,
    boot: Boot,
    /// `None` for trial runs: their results are sent at once or dropped.
    store: Option<Store>,
    unsaved: Vec<UnsavedResult>,
    sender: Sender,
}

/// The state directory.
#[derive(Debug)]
struct Store {
    queue: Queue,
    books: Books,
}

/// The records beside the queue.
#[derive(Debug)]
struct Books {
    journal: Journal,
    reserve: Reserve,
}

impl Ledger for Books {
    fn was_sent(&self, stored: &StoredResult) -> bool {
        self.journal.was_sent(&stored.task.session, &stored.id)
    }

    fn sent(&mut self, queue: &Queue, stored: &StoredResult) -> Result<()> {
        // The journal comes first: a result that a power cut keeps in the queue is
        // not sent again. If the journal fails, the result is removed all the same.
        let noted = self.journal.sent(&stored.task.session, &stored.id);
        queue.done(stored)?;
        self.reserve.restore();
        noted
    }

    fn aside(&mut self, stored: &StoredResult) -> Result<()> {
        self.reserve.restore();
        self.journal.reached(&stored.task.session, Stage::Sent)
    }
}

impl Delivery {
    /// Deliveries that store nothing, of a trial run.
    pub fn trial(settings: DeliverySettings, key: Option<Key>) -> Delivery {
        let boot = Boot::current();
        Delivery {
            settings,
            key,
            sender: Sender::new(settings.retry, boot.clone()),
            boot,
            store: None,
            unsaved: Vec::new(),
        }
    }

    /// Opens the directory `state`, which only this agent uses. Returns also the
    /// tasks that were under way when the former agent ended and have no result:
    /// they are to be given back.
    pub fn open(
        state: &Path,
        settings: DeliverySettings,
        key: Option<Key>,
    ) -> Result<(Delivery, Vec<UnfinishedTask>)> {
        let queue = Queue::open(state)?;
        let path = state.join("journal");
        let (journal, unfinished) = Journal::open(&path)
            .context(|| format!("unable to open journal {}", path.display()))?;
        let mut books = Books {
            journal,
            reserve: Reserve::keep(&state.join("reserve"), RESERVE),
        };
        for stored in queue.marked()? {
            books.sent(&queue, &stored)?;
        }
        // A crash may have come between a change of the queue and its journal entry,
        // or between a journal entry and its change of the queue.
        let waiting = queue.waiting()?;
        let mut stored = BTreeSet::new();
        for result in waiting.results {
            if books.was_sent(&result) {
                queue.done(&result)?;
            } else {
                stored.insert(result.task.session);
            }
        }
        let (done, mut open): (Vec<_>, Vec<_>) = unfinished
            .into_iter()
            .partition(|open| stored.contains(&open.task.session));
        for open in done {
            books.journal.reached(&open.task.session, Stage::Stored)?;
        }
        if waiting.unread > 0 && !open.is_empty() {
            // One of the unreadable results may be that of a task under way, and an
            // interrupt in its place would lose it.
            diag::warning("tasks that were under way are given back at the next start")
                .info("there are results that cannot be read now, and may be theirs")
                .emit();
            open.clear();
        }
        let mut delivery = Delivery::trial(settings, key);
        delivery.store = Some(Store { queue, books });
        Ok((delivery, open))
    }

    /// The fingerprint of the agent's key, for task requests.
    pub fn fingerprint(&self) -> Option<&str> {
        self.key.as_ref().map(Key::fingerprint)
    }

    /// The time of something that happens now.
    pub fn stamp(&self, now: Now) -> Stamp {
        Stamp::new(now, &self.boot)
    }

    /// Records a task, before anything else is done about it.
    pub fn accept(&mut self, task: &TaskRecord) -> Result<()> {
        match &mut self.store {
            Some(store) => store.books.journal.accepted(task),
            None => Ok(()),
        }
    }

    /// Records that the machine of a task is about to be started.
    pub fn start(&mut self, task: &TaskRecord) -> Result<()> {
        match &mut self.store {
            Some(store) => store.books.journal.reached(&task.session, Stage::Started),
            None => Ok(()),
        }
    }

    /// Stores the result of a task with the `archive` of its artifacts, durably;
    /// without a store, sends it. A result that can be neither stored nor sent is kept
    /// and tried again. `agent_checksum` is for controllers that know it.
    ///
    /// # Errors
    ///
    /// The first host fault on the way. The result is not lost by it.
    pub fn finish(
        &mut self,
        task: &TaskRecord,
        result: ResultManifest,
        agent_checksum: Option<String>,
        archive: Option<&Path>,
        now: Now,
        courier: &mut dyn Courier,
    ) -> Result<()> {
        let (members, unread) = match archive.map(|path| artifacts::open(path, task)) {
            Some(Err(error)) => (Vec::new(), Err(error)),
            Some(Ok(members)) => (members, Ok(())),
            None => (Vec::new(), Ok(())),
        };
        let unsaved = UnsavedResult {
            task: task.clone(),
            request: ResultRequest {
                session: task.session.clone(),
                challenge: None,
                agent_checksum,
                result,
            },
        };
        self.save(unsaved, members, now, courier).and(unread)
    }

    /// Gives a task back for `reason`, so that its controller can hand it out again.
    ///
    /// # Errors
    ///
    /// As [`Delivery::finish`].
    pub fn give_back(
        &mut self,
        task: &TaskRecord,
        reason: &str,
        now: Now,
        courier: &mut dyn Courier,
    ) -> Result<()> {
        courier.release(&task.result_url);
        if task.result_url.offers_again() {
            return self.close(task);
        }
        if self.store.is_none() {
            return Ok(());
        }
        let result = compose::given_back(task, reason, self.settings.legacy);
        self.finish(task, result, None, None, now, courier)
    }

    /// Records that a task is over without a result in the queue.
    fn close(&mut self, task: &TaskRecord) -> Result<()> {
        match &mut self.store {
            Some(store) => store.books.journal.reached(&task.session, Stage::Sent),
            None => Ok(()),
        }
    }

    /// Sends the stored results that are due, the oldest first, and reports on them.
    ///
    /// # Errors
    ///
    /// If the state directory cannot be read or written. Failures of controllers are
    /// no errors: the results wait.
    pub fn flush(&mut self, now: Now, courier: &mut dyn Courier) -> Result<Flushed> {
        self.flush_to(|_| true, now, courier)
    }

    /// The same beside a [`Deliverer`], which sends the results for HTTP controllers.
    pub fn flush_beside(&mut self, now: Now, courier: &mut dyn Courier) -> Result<Flushed> {
        self.flush_to(|target| !deliverer::is_http(target), now, courier)
    }

    fn flush_to(
        &mut self,
        targets: fn(&UploadTarget) -> bool,
        now: Now,
        courier: &mut dyn Courier,
    ) -> Result<Flushed> {
        self.save_again(now, courier);
        let Some(Store { queue, books }) = &mut self.store else {
            return Ok(Flushed::default());
        };
        for stored in queue.marked()? {
            books.sent(queue, &stored)?;
        }
        self.sender.flush(queue, books, targets, now, courier)
    }

    /// Whether there is something for a [`Deliverer`] to send.
    pub fn has_deliveries(&self) -> Result<bool> {
        match &self.store {
            Some(store) => store.queue.has(deliverer::is_http),
            None => Ok(false),
        }
    }

    /// The number of results that are neither stored nor sent.
    pub fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// Where the stored results go. While they wait, a directory that plays
    /// controller must not offer their tasks to other agents.
    pub fn targets(&self) -> Result<Vec<UploadTarget>> {
        let Some(store) = &self.store else {
            return Ok(Vec::new());
        };
        let results = store.queue.waiting()?.results;
        Ok(results.into_iter().map(|r| r.task.result_url).collect())
    }
}

/// Reports all errors but the first, and returns that.
fn first_of(errors: Vec<Error>) -> Result<()> {
    let mut errors = errors.into_iter();
    let first = errors.next().map_or(Ok(()), Err);
    for error in errors {
        diag::failure(&error).emit();
    }
    first
}
