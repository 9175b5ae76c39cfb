//! Results on their way back: nothing is lost between a worker that has done
//! its work and a controller that knows it.
//!
//! ```text
//! accepted -> started -> stored -> sent
//! ```
//!
//! Each step is on disk before the next is taken: a result is noted as sent
//! before it goes from the store. A result that is stored is
//! tried again, with growing pauses, over turns and restarts, until the
//! controller takes it (2xx), says that it never will (a final 4xx), or has
//! long given up on it; in the last two cases it is kept aside with the reason.
//! Artifacts go before the result, since controllers only take them while the
//! build is open.
//!
//! A failure in the middle of an exchange does not say whether the controller
//! has the result. It is sent again then: a controller closes the session with
//! the first and ignores the second.

mod entry;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::backoff::Backoff;
use crate::controller::Controllers;
use crate::controller::address::UploadTarget;
use crate::controller::failure::{Failure, FailureClass};
use crate::controller::multipart::Form;
use crate::diag;
use crate::error::{Context as _, Error, Result, reason};
use crate::status::Phase;
use crate::store::{
    Accepted, Artifact, Boot, Envelope, Journal, Reserve, Results, Stage, Stored, StoredArtifact,
    Unfinished, uptime,
};
use crate::watch::Watch;

use entry::seconds;
pub use entry::{entry, interrupted};
pub use schedule::Settings;
use schedule::{is_dead, place};

/// Space for a result of any size that controllers take (15 MiB).
const RESERVE: u64 = 16 << 20;

/// What is on its way.
#[derive(Debug)]
pub struct Outbox {
    results: Results,
    journal: Journal,
    reserve: Reserve,
    settings: Settings,
    pauses: BTreeMap<String, Pause>,
    boot: Boot,
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
struct Pause {
    backoff: Backoff,
    until: Instant,
}

/// What came of [`Outbox::deliver`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Results that controllers have taken.
    pub sent: usize,
    /// Results that were given up and set aside.
    pub aside: usize,
    /// Results that still wait.
    pub waiting: usize,
    /// When the next of them is due.
    pub next: Option<Instant>,
}

/// What came of one result.
enum Outcome {
    Sent,
    Aside(String),
    Later(Failure),
    /// It could not be read, for a reason that may pass.
    Unread(Error),
}

impl Outbox {
    /// Opens the outbox in the directory `state`, which only this agent uses.
    /// Returns with it the tasks that were under way when a predecessor died,
    /// and of which there is no result: somebody should tell their controllers.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made, read or written.
    pub fn open(state: &Path, settings: Settings) -> Result<(Outbox, Vec<Unfinished>)> {
        let results = Results::open(state)?;
        let path = state.join("journal");
        let (journal, unfinished) = Journal::open(&path)
            .context(|| format!("unable to open journal {}", path.display()))?;
        let mut outbox = Outbox {
            results,
            journal,
            reserve: Reserve::keep(&state.join("reserve"), RESERVE),
            settings,
            pauses: BTreeMap::new(),
            boot: Boot::current(),
        };
        // The last step before the crash may have been the store, and the
        // journal the one after it; or the journal, and the store after it.
        let waiting = outbox.results.waiting()?;
        let mut stored = BTreeSet::new();
        for result in waiting.results {
            if outbox.was_sent(&result) {
                outbox.results.done(&result)?;
            } else {
                stored.insert(result.envelope.session);
            }
        }
        let (done, mut open): (Vec<_>, Vec<_>) = unfinished
            .into_iter()
            .partition(|task| stored.contains(&task.accepted.session));
        for task in done {
            outbox.reached(&task.accepted.session, Stage::Stored)?;
        }
        if waiting.unread > 0 && !open.is_empty() {
            // To interrupt a task that has a result would lose the result.
            diag::warning("tasks that were under way are given back at the next start")
                .info("there are results that cannot be read now, and may be theirs")
                .emit();
            open.clear();
        }
        Ok((outbox, open))
    }

    /// Takes note of a task, before anything is done about it.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn accepted(&mut self, task: &Accepted) -> Result<()> {
        let noted = self.journal.accepted(task);
        self.noted(noted)
    }

    /// Takes note that the machine of a task was started.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn started(&mut self, session: &str) -> Result<()> {
        self.reached(session, Stage::Started)
    }

    /// Takes note that a task is over without a result: its controller need not
    /// be told, or cannot.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn dropped(&mut self, session: &str) -> Result<()> {
        self.reached(session, Stage::Sent)
    }

    fn was_sent(&self, stored: &Stored) -> bool {
        self.journal.was_sent(&stored.envelope.session, &stored.id)
    }

    fn reached(&mut self, session: &str, stage: Stage) -> Result<()> {
        let noted = self.journal.reached(session, stage);
        self.noted(noted)
    }

    fn noted(&self, noted: io::Result<()>) -> Result<()> {
        let path = self.journal.path();
        noted.context(|| format!("unable to write journal {}", path.display()))
    }

    /// Stores a result, before the first attempt to send it. `text` is the
    /// result request, signature and all.
    ///
    /// # Errors
    ///
    /// If it cannot be stored, not even with the reserve.
    pub fn store(
        &mut self,
        task: &Accepted,
        text: &[u8],
        artifacts: &mut [Artifact<'_>],
        wall: SystemTime,
    ) -> Result<()> {
        let envelope = Envelope {
            stored: seconds(wall),
            boot: self.boot.id.clone(),
            uptime: uptime().as_secs(),
            controller: task.controller.clone(),
            result_url: task.result_url.clone(),
            session: task.session.clone(),
            task: format!("{}/{} on {}", task.name, task.version, task.machine),
        };
        self.results
            .put(&envelope, text, artifacts, &self.reserve)?;
        // What is stored is safe; the journal is put right at the next start.
        if let Err(error) = self.reached(&task.session, Stage::Stored) {
            diag::failure(&error).emit();
        }
        Ok(())
    }

    /// Has the controllers keep others from the tasks whose results wait here;
    /// to be called once, before the first task is asked for.
    ///
    /// # Errors
    ///
    /// If the results cannot be read.
    pub fn hold(&self, controllers: &mut Controllers) -> Result<()> {
        for stored in self.results.waiting()?.results {
            if let Ok(target) = UploadTarget::parse(&stored.envelope.result_url) {
                controllers.hold(&target);
            }
        }
        Ok(())
    }

    /// Sends what is due, the oldest first, and reports what came of it. `now` is
    /// the time since the start of the host, [`uptime`].
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written; what controllers do is in the
    /// [`Delivery`].
    pub fn deliver(
        &mut self,
        controllers: &mut Controllers,
        now: Duration,
        watch: &Watch,
    ) -> Result<Delivery> {
        let waiting = self.results.waiting()?;
        let mut delivery = Delivery {
            waiting: waiting.unread,
            ..Delivery::default()
        };
        let mut dead = BTreeSet::new();
        for mut stored in waiting.results {
            if self.was_sent(&stored) {
                self.results.done(&stored)?;
                continue;
            }
            let pause = self.pauses.get(&stored.id).copied();
            let due = pause.is_none_or(|pause| pause.until <= Instant::now());
            let place = place(&stored.envelope.result_url);
            let is_dead_place = dead.contains(&place);
            let age = self.age(&stored.envelope, now);
            let expired = age > self.settings.expiry;
            if !due || watch.must_stop() || (is_dead_place && !expired) {
                delivery.wait(pause.map(|pause| pause.until));
                continue;
            }
            watch.enter(Phase::Uploading, None);
            // Never without an attempt at the place where it goes.
            let outcome = if is_dead_place {
                Outcome::Aside(self.too_old())
            } else {
                match self.send(controllers, &mut stored, age)? {
                    Outcome::Later(why) if expired && why.class() != FailureClass::Stopped => {
                        if is_dead(why.class()) {
                            dead.insert(place.clone());
                        }
                        Outcome::Aside(format!("{}: {why}", self.too_old()))
                    }
                    outcome => outcome,
                }
            };
            match outcome {
                Outcome::Sent => {
                    // First the journal: what a power cut then keeps in the store
                    // is not sent again. Without the journal it must go all the more.
                    let noted = self.journal.sent(&stored.envelope.session, &stored.id);
                    self.results.done(&stored)?;
                    self.over(&stored);
                    self.noted(noted)?;
                    delivery.sent += 1;
                }
                Outcome::Aside(why) => {
                    let task = &stored.envelope.task;
                    diag::error(format!("result of {task} set aside: {why}"))
                        .info(format!(
                            "it is kept in {}",
                            self.results.aside(&stored).display()
                        ))
                        .emit();
                    self.results.set_aside(&stored, &why)?;
                    self.over(&stored);
                    self.dropped(&stored.envelope.session)?;
                    delivery.aside += 1;
                }
                Outcome::Unread(error) => {
                    diag::failure(&error).emit();
                    delivery.wait(None);
                }
                Outcome::Later(failure) => {
                    if is_dead(failure.class()) {
                        dead.insert(place);
                    }
                    let until = self.postpone(&stored, failure);
                    delivery.wait(Some(until));
                }
            }
        }
        Ok(delivery)
    }

    /// How old a result is at least. Restarts of the agent count, as with a timer
    /// every turn is one; the wall clock does not, since it may be wrong.
    fn age(&self, envelope: &Envelope, now: Duration) -> Duration {
        let then = Duration::from_secs(envelope.uptime);
        self.boot.age(envelope.boot.as_deref(), then, now)
    }

    fn too_old(&self) -> String {
        let hours = self.settings.expiry.as_secs_f32() / 3600.0;
        format!("not delivered within {hours} hours (--result-expiry)")
    }

    fn send(
        &self,
        controllers: &mut Controllers,
        stored: &mut Stored,
        age: Duration,
    ) -> Result<Outcome> {
        for artifact in std::mem::take(&mut stored.artifacts) {
            let session = &stored.envelope.session;
            match upload(controllers, &artifact, session) {
                Ok(said) => {
                    let name = &artifact.name;
                    diag::info(format!(
                        "uploaded {name} of {}: {said}",
                        stored.envelope.task
                    ))
                    .emit();
                }
                // The result has its own time to get there.
                Err(failure) if !failure.is_final() && age < self.settings.expiry / 2 => {
                    return Ok(Outcome::Later(failure));
                }
                Err(failure) => {
                    let what = format!(
                        "unable to upload {} of {} to {}",
                        artifact.name,
                        stored.envelope.task,
                        crate::controller::url::masked(&artifact.url)
                    );
                    diag::failure(&failure.into_error(&what)).emit();
                }
            }
            self.results.artifact_done(&artifact)?;
        }
        let text = match self.results.text(stored) {
            Ok(text) => text,
            Err(error) if Results::is_damaged(&error) => {
                return Ok(Outcome::Aside(error.to_string()));
            }
            Err(error) => return Ok(Outcome::Unread(error)),
        };
        let sent = target(&stored.envelope.result_url)
            .and_then(|target| controllers.upload(&target, &text));
        match sent {
            Ok(()) => Ok(Outcome::Sent),
            Err(failure) if failure.is_final() => Ok(Outcome::Aside(failure.to_string())),
            Err(failure) => Ok(Outcome::Later(failure)),
        }
    }

    fn over(&mut self, stored: &Stored) {
        self.pauses.remove(&stored.id);
        self.reserve.restore();
    }

    /// Reports a failure and says when the next attempt is.
    fn postpone(&mut self, stored: &Stored, failure: Failure) -> Instant {
        let Settings {
            first_pause,
            last_pause,
            ..
        } = self.settings;
        let before = self.pauses.get(&stored.id).map(|pause| pause.backoff);
        let mut backoff = before.unwrap_or(Backoff::new(first_pause, last_pause));
        let length = backoff.failed();
        let until = Instant::now() + length;
        let pause = Pause { backoff, until };
        self.pauses.insert(stored.id.clone(), pause);
        let what = format!(
            "unable to upload result to {}",
            crate::controller::url::masked(&stored.envelope.result_url)
        );
        if failure.class() == FailureClass::Stopped {
            return until;
        }
        diag::failure(&failure.into_error(&what))
            .info(format!(
                "the result of {} is stored, next attempt in {} s",
                stored.envelope.task,
                length.as_secs()
            ))
            .emit();
        until
    }
}

impl Delivery {
    fn wait(&mut self, until: Option<Instant>) {
        self.waiting += 1;
        self.next = match (self.next, until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

fn target(url: &str) -> Result<UploadTarget, Failure> {
    UploadTarget::parse(url).map_err(|why| Failure::new(FailureClass::Client(400), why))
}

fn upload(
    controllers: &Controllers,
    artifact: &StoredArtifact,
    session: &str,
) -> Result<String, Failure> {
    let file = File::open(&artifact.path).map_err(|error| {
        Failure::new(
            FailureClass::Setup,
            format!("{}: {}", artifact.path.display(), reason(&error)),
        )
    })?;
    let form = Form {
        session,
        challenge: artifact.challenge.as_deref(),
        instance: &artifact.instance,
        sha256: &artifact.sha256,
        name: &artifact.name,
    };
    controllers.upload_artifact(&target(&artifact.url)?, &form, &file)
}
