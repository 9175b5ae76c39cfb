//! Results on their way back: stored first, then sent, again and again if need
//! be, and forgotten when the controller has them.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Agent;
use super::turn::wall_clock;
use crate::controller::failure::Failure;
use crate::controller::multipart::Form;
use crate::controller::{Assignment, Controllers};
use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::manifest::{Cut, ResultManifest, ResultRequest, Style, fit};
use crate::perform::Artifacts;
use crate::status;
use crate::store::{
    Accepted, Artifact, Envelope, Journal, Reserve, Results, Stage, Stored, StoredArtifact,
    Unfinished,
};
use crate::watch::Watch;

/// The first pause after a failed attempt to send a result; it doubles up to
/// [`LONGEST`].
const FIRST: Duration = Duration::from_secs(30);
/// The longest pause between attempts.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Space that is kept for the result of the task that fills the disk: the
/// largest that is sent, and a little.
const RESERVE: u64 = 16 << 20;

/// The results of this agent that are not with their controllers yet.
#[derive(Debug)]
pub(super) struct Outbox {
    results: Results,
    journal: Journal,
    reserve: Reserve,
    expiry: Duration,
    /// Failed attempts of each, and when to make the next one.
    pauses: HashMap<String, (u32, Instant)>,
    /// What was under way when the former agent died.
    pub(super) unfinished: Vec<Unfinished>,
}

impl Outbox {
    pub(super) fn open(state: &Path, expiry: Duration) -> Result<Outbox> {
        let results = Results::open(state)?;
        let path = state.join("journal");
        let (journal, unfinished) = Journal::open(&path)
            .context(|| format!("unable to open journal {}", path.display()))?;
        Ok(Outbox {
            results,
            journal,
            reserve: Reserve::keep(&state.join("reserve"), RESERVE),
            expiry,
            pauses: HashMap::new(),
            unfinished,
        })
    }

    /// The results that wait to be sent.
    pub(super) fn waiting(&self) -> Result<Vec<Stored>> {
        self.results.waiting()
    }

    pub(super) fn reached(&mut self, session: &str, stage: Stage) -> Result<()> {
        self.journal
            .reached(session, stage)
            .context(|| format!("unable to write journal {}", self.journal.path().display()))
    }

    pub(super) fn accept(&mut self, task: &Accepted) -> Result<()> {
        self.journal
            .accepted(task)
            .context(|| format!("unable to write journal {}", self.journal.path().display()))
    }

    pub(super) fn put(
        &mut self,
        envelope: &Envelope,
        text: &str,
        artifacts: &mut [Artifact<'_>],
    ) -> Result<()> {
        self.results
            .put(envelope, text.as_bytes(), artifacts, &self.reserve)?;
        self.reached(&envelope.session, Stage::Stored)
    }

    /// Sends what waits and is due.
    fn deliver(&mut self, controllers: &mut Controllers, watch: &Watch) -> Result<()> {
        let waiting = self.results.waiting()?;
        let all: Vec<&str> = waiting.iter().map(|stored| stored.id.as_str()).collect();
        self.pauses.retain(|id, _| all.contains(&id.as_str()));
        for stored in &waiting {
            let now = Instant::now();
            let due = self.pauses.get(&stored.id).is_none_or(|(_, at)| *at <= now);
            if !due || watch.must_stop() {
                continue;
            }
            watch.enter(status::Phase::Uploading, None);
            match self.send(stored, controllers)? {
                Sent::Done => self.forget(stored)?,
                Sent::Never(why) => self.give_up(stored, &why)?,
                Sent::Later(failure) => self.postpone(stored, failure)?,
            }
        }
        if waiting.is_empty() {
            self.reserve.restore();
        }
        Ok(())
    }

    fn send(&self, stored: &Stored, controllers: &mut Controllers) -> Result<Sent> {
        for artifact in &stored.artifacts {
            if let Err(failure) = post_artifact(stored, artifact, controllers)? {
                if !failure.is_final() {
                    return Ok(Sent::Later(failure));
                }
                let what = format!("unable to upload {} to {}", artifact.name, artifact.url);
                diag::failure(&failure.into_error(&what)).emit();
            }
            self.results.artifact_done(artifact)?;
        }
        let text = match self.results.text(stored) {
            Ok(text) => text,
            Err(error) => return Ok(Sent::Never(error.to_string())),
        };
        Ok(
            match controllers.upload(&stored.envelope.result_url, &text) {
                Ok(()) => Sent::Done,
                Err(failure) if failure.is_final() => Sent::Never(failure.to_string()),
                Err(failure) => Sent::Later(failure),
            },
        )
    }

    fn forget(&mut self, stored: &Stored) -> Result<()> {
        self.results.done(stored)?;
        self.pauses.remove(&stored.id);
        self.reached(&stored.envelope.session, Stage::Sent)
    }

    fn give_up(&mut self, stored: &Stored, why: &str) -> Result<()> {
        let Envelope {
            task, result_url, ..
        } = &stored.envelope;
        diag::error(format_args!(
            "unable to upload result of {task} to {result_url}: {why}"
        ))
        .info("it was set aside and will not be sent again")
        .emit();
        self.results.set_aside(stored, why)?;
        self.reached(&stored.envelope.session, Stage::Sent)
    }

    fn postpone(&mut self, stored: &Stored, failure: Failure) -> Result<()> {
        let Envelope {
            task,
            result_url,
            stored: at,
            ..
        } = &stored.envelope;
        // The wall clock, as it is about days on which we may not have run. A
        // clock that was set back only makes a result wait longer.
        let age = Duration::from_secs(wall_clock().saturating_sub(*at));
        if age > self.expiry {
            return self.give_up(
                stored,
                &format!("too old after {} s: {failure}", age.as_secs()),
            );
        }
        let (count, _) = self
            .pauses
            .get(&stored.id)
            .copied()
            .unwrap_or((0, Instant::now()));
        let pause = FIRST.saturating_mul(1 << count.min(8)).min(LONGEST);
        self.pauses
            .insert(stored.id.clone(), (count + 1, Instant::now() + pause));
        let error = failure.into_error(&format!(
            "unable to upload result of {task} to {result_url}"
        ));
        diag::failure(&error)
            .info(format_args!(
                "it is kept and sent again in {} s or later",
                pause.as_secs()
            ))
            .emit();
        Ok(())
    }
}

/// What came of an attempt to send a result.
enum Sent {
    Done,
    /// Nobody will ever take it.
    Never(String),
    /// Another time.
    Later(Failure),
}

fn post_artifact(
    stored: &Stored,
    artifact: &StoredArtifact,
    controllers: &Controllers,
) -> Result<std::result::Result<(), Failure>> {
    let file = File::open(&artifact.path)
        .context(|| format!("unable to open {}", artifact.path.display()))?;
    let form = Form {
        session: &stored.envelope.session,
        challenge: artifact.challenge.as_deref(),
        instance: &artifact.instance,
        sha256: &artifact.sha256,
        name: &artifact.name,
    };
    Ok(controllers
        .upload_artifact(&artifact.url, &form, &file)
        .map(drop))
}

impl Agent {
    /// Sends the results that wait.
    pub(super) fn deliver(&mut self) -> Result<()> {
        match &mut self.outbox {
            Some(outbox) => outbox.deliver(&mut self.controllers, &self.watch),
            None => Ok(()),
        }
    }

    /// Stores a result, so that nothing can take it away any more; without a
    /// store, sends it.
    pub(super) fn store(
        &mut self,
        assignment: &Assignment,
        machine: &str,
        result: ResultManifest,
        agent_checksum: Option<String>,
        _artifacts: Option<&Artifacts>,
    ) -> Result<()> {
        let challenge = self.sign(assignment.challenge.as_deref())?;
        let request = ResultRequest {
            session: assignment.session.clone(),
            challenge,
            agent_checksum,
            result,
        };
        let text = self.fitting(&request)?;
        let task = &assignment.task;
        let envelope = Envelope {
            stored: wall_clock(),
            controller: assignment.controller.clone(),
            result_url: assignment.result_url.clone(),
            session: assignment.session.clone(),
            task: format!("{}/{} on {machine}", task.name(), task.version()),
        };
        match &mut self.outbox {
            Some(outbox) => outbox.put(&envelope, &text, &mut []),
            None => self
                .controllers
                .upload(&envelope.result_url, text.as_bytes())
                .map_err(|failure| {
                    failure.into_error(&format!(
                        "unable to upload result to {}",
                        envelope.result_url
                    ))
                }),
        }
    }

    /// The text of a request that the controller will take.
    fn fitting(&self, request: &ResultRequest) -> Result<String> {
        let limit = usize::try_from(self.options.result_limit).unwrap_or(usize::MAX);
        let (text, cuts) =
            fit(request, limit, Style::OLD).context(|| "unable to compose the result request")?;
        for Cut { operation, bytes } in cuts {
            diag::warning(format_args!(
                "left {bytes} bytes out of the {operation} log to keep the result below --result-limit"
            ))
            .emit();
        }
        Ok(text)
    }

    fn sign(&self, challenge: Option<&str>) -> Result<Option<String>> {
        match (challenge, &self.key) {
            (Some(challenge), Some(key)) => key.sign(challenge.as_bytes()).map(Some),
            (Some(_), None) => Err(Error::new("unable to sign the challenge: there is no key")
                .hint("name a key that the controller knows: --auth-key <file>")),
            (None, _) => Ok(None),
        }
    }
}
