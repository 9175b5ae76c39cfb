//! Sending the stored results that are due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clock::{Boot, Now};
use super::courier::Courier;
use super::queue::Queue;
use super::retry::{Retry, RetryLimits, is_out_of_reach};
use super::stored::StoredResult;
use crate::controller::address::UploadTarget;
use crate::controller::failure::{Failure, FailureClass};
use crate::diag;
use crate::error::{Error, Result};

/// The effect of a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Results that controllers have taken.
    pub sent: usize,
    /// Results that were given up and set aside.
    pub aside: usize,
    /// Results that still wait.
    pub waiting: usize,
    /// When the next of them is due, in time since the start of the host.
    pub next: Option<Duration>,
}

/// The end of an attempt to send one result.
enum Attempt {
    Sent,
    Aside(String),
    Later(Failure),
    /// It cannot be read at present.
    Unread(Error),
}

/// The record of results that left the queue.
pub(super) trait Ledger {
    /// Whether a result was sent, although it is in the queue.
    fn was_sent(&self, stored: &StoredResult) -> bool;

    /// Records that a result was sent, and removes it from the queue.
    fn sent(&mut self, queue: &Queue, stored: &StoredResult) -> Result<()>;

    /// Records that a result was set aside.
    fn aside(&mut self, stored: &StoredResult) -> Result<()>;
}

/// Sends results, and remembers when to try again.
#[derive(Debug)]
pub(super) struct Sender {
    limits: RetryLimits,
    boot: Boot,
    retries: BTreeMap<String, Retry>,
}

impl Flushed {
    fn wait(&mut self, until: Option<Duration>) {
        self.waiting += 1;
        self.next = self.next.into_iter().chain(until).min();
    }
}

impl Sender {
    pub(super) fn new(limits: RetryLimits, boot: Boot) -> Sender {
        Sender {
            limits,
            boot,
            retries: BTreeMap::new(),
        }
    }

    /// Sends the results for those targets that are due, the oldest first, and
    /// reports on them. The others wait. One that cannot be read, sent or moved does
    /// not keep the rest from being sent.
    ///
    /// # Errors
    ///
    /// If the state directory cannot be read, or the ledger cannot be written. Failures
    /// of controllers are no errors: the results wait.
    pub(super) fn flush(
        &mut self,
        queue: &Queue,
        ledger: &mut dyn Ledger,
        targets: fn(&UploadTarget) -> bool,
        now: Now,
        courier: &mut dyn Courier,
    ) -> Result<Flushed> {
        let limits = self.limits;
        let waiting = queue.waiting()?;
        let mut flushed = Flushed {
            waiting: waiting.unread,
            ..Flushed::default()
        };
        let mut out_of_reach = BTreeSet::new();
        let mut failed = None;
        let mut note = |result: Result<()>| {
            if let Err(error) = result {
                diag::failure(&error).emit();
                failed = Some(error);
            }
        };
        for mut stored in waiting.results {
            if ledger.was_sent(&stored) {
                diag::report(queue.done(&stored));
                continue;
            }
            let retry = self.retries.get(&stored.id).copied();
            let server = stored.task.result_url.server();
            let age = self.boot.age(&stored.task.accepted, now);
            let expired = limits.is_expired(age);
            let is_due = retry.is_none_or(|retry| retry.due <= now.uptime)
                && targets(&stored.task.result_url);
            let skips = out_of_reach.contains(&server);
            if !is_due || courier.must_stop() || (skips && !expired) {
                flushed.wait(retry.map(|retry| retry.due));
                continue;
            }
            // A result expires only after an attempt to reach its server.
            let attempt = if skips {
                Attempt::Aside(too_old(limits.expiry))
            } else {
                let attempts = retry.map_or(0, |retry| retry.attempts()) + 1;
                let alone = limits.gives_up_artifacts(attempts, age);
                match send(queue, &mut stored, alone, courier) {
                    Ok(Attempt::Later(failure)) => {
                        if is_out_of_reach(failure.class()) {
                            out_of_reach.insert(server);
                        }
                        if expired && failure.class() != FailureClass::Stopped {
                            Attempt::Aside(format!("{}: {failure}", too_old(limits.expiry)))
                        } else {
                            Attempt::Later(failure)
                        }
                    }
                    Ok(attempt) => attempt,
                    Err(error) => Attempt::Unread(error),
                }
            };
            match attempt {
                Attempt::Sent => {
                    self.retries.remove(&stored.id);
                    note(ledger.sent(queue, &stored));
                    flushed.sent += 1;
                }
                Attempt::Aside(why) => match queue.set_aside(&stored.id, &why) {
                    Ok(()) => {
                        self.retries.remove(&stored.id);
                        diag::error(format!("result of {} set aside: {why}", stored.task))
                            .info(format!("it is kept in {}", queue.aside(&stored).display()))
                            .emit();
                        note(ledger.aside(&stored));
                        flushed.aside += 1;
                    }
                    Err(error) => {
                        diag::failure(&error).emit();
                        flushed.wait(Some(self.pause(&stored, now).due));
                    }
                },
                Attempt::Unread(error) => {
                    diag::failure(&error).emit();
                    flushed.wait(None);
                }
                Attempt::Later(failure) => {
                    let due = self.pause(&stored, now).due;
                    report(&stored, failure, due.saturating_sub(now.uptime));
                    flushed.wait(Some(due));
                }
            }
        }
        failed.map_or(Ok(flushed), Err)
    }

    /// Puts the next attempt off.
    fn pause(&mut self, stored: &StoredResult, now: Now) -> &Retry {
        let limits = &self.limits;
        let retry = self.retries.entry(stored.id.clone());
        let retry = retry.or_insert_with(|| Retry::new(limits));
        retry.failed(now);
        retry
    }
}

/// Sends the artifacts of a result, then the result. With `alone` artifacts that
/// cannot be sent are given up.
fn send(
    queue: &Queue,
    stored: &mut StoredResult,
    alone: bool,
    courier: &mut dyn Courier,
) -> Result<Attempt> {
    for artifact in std::mem::take(&mut stored.artifacts) {
        let (name, task) = (&artifact.name, &stored.task);
        match courier.send_artifact(&artifact, &task.session) {
            Ok(message) => {
                diag::info(format!("uploaded {name} of {task}: {message}")).emit();
            }
            Err(failure)
                if failure.class() == FailureClass::Stopped || !failure.is_final() && !alone =>
            {
                return Ok(Attempt::Later(failure));
            }
            Err(failure) => {
                let what = format!("unable to upload {name} of {task} to {}", artifact.url);
                diag::failure(&failure.into_error(&what)).emit();
            }
        }
        queue.artifact_done(&artifact)?;
    }
    let text = match queue.text(stored) {
        Ok(text) => text,
        Err(error) if Queue::is_damaged(&error) => {
            return Ok(Attempt::Aside(error.to_string()));
        }
        Err(error) => return Ok(Attempt::Unread(error)),
    };
    Ok(match courier.send_result(&stored.task.result_url, &text) {
        Ok(()) => Attempt::Sent,
        Err(failure) if failure.is_final() => Attempt::Aside(failure.to_string()),
        Err(failure) => Attempt::Later(failure),
    })
}

fn too_old(expiry: Duration) -> String {
    let hours = expiry.as_secs_f32() / 3600.0;
    format!("not delivered within {hours} hours (--result-expiry)")
}

/// Reports a failure, and when the next attempt is due.
fn report(stored: &StoredResult, failure: Failure, pause: Duration) {
    if failure.class() == FailureClass::Stopped {
        return;
    }
    let what = format!("unable to upload result to {}", stored.task.result_url);
    diag::failure(&failure.into_error(&what))
        .info(format!(
            "the result of {} is stored, next attempt in {} s",
            stored.task,
            pause.as_secs()
        ))
        .emit();
}
