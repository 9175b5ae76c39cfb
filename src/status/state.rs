//! The model, and its JSON in the state file.

use std::collections::VecDeque;
use std::time::Duration;

use super::{DRAINING, Idle, Moment, Phase};
use crate::json::Value;

/// How many outcomes are remembered.
const REMEMBERED: usize = 10;

/// The subject of a phase; unknown parts are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Name of the machine.
    pub machine: Option<String>,
    /// Names of the auxiliary machines.
    pub auxiliary: Vec<String>,
    /// Package and version, `libfoo/1.2.3`.
    pub task: Option<String>,
    /// The controller's session.
    pub session: Option<String>,
    /// The controller.
    pub controller: Option<String>,
    /// The way for a user to the guest, who may be logged in.
    pub login: Option<String>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Package and version.
    pub task: String,
    /// Name of the machine.
    pub machine: String,
    /// The word of the result: `success`, `error`, `abort`, ...
    pub status: String,
    /// When, since 1970.
    pub at: Duration,
    /// From receiving the task to storing its result.
    pub took: Duration,
    /// The most memory that its guest had at any time, in bytes, if that is known.
    pub memory_peak: Option<u64>,
}

/// Everything that is shown.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) phase: Phase,
    /// Numbers and names behind the reason to be idle, for people.
    pub(super) detail: String,
    pub(super) since: Moment,
    pub(super) limit: Option<Duration>,
    pub(super) draining: bool,
    pub(super) subject: Subject,
    pub(super) outcomes: VecDeque<Outcome>,
    /// How often each result status came up.
    pub(super) counts: Vec<(String, u64)>,
}

impl State {
    pub(super) fn new(now: Moment) -> State {
        State {
            phase: Phase::Enumerating,
            detail: String::new(),
            since: now,
            limit: None,
            draining: false,
            subject: Subject::default(),
            outcomes: VecDeque::new(),
            counts: Vec::new(),
        }
    }

    pub(super) fn remember(&mut self, outcome: Outcome) {
        match self
            .counts
            .iter_mut()
            .find(|(status, _)| *status == outcome.status)
        {
            Some((_, count)) => *count += 1,
            None => self.counts.push((outcome.status.clone(), 1)),
        }
        self.outcomes.push_front(outcome);
        self.outcomes.truncate(REMEMBERED);
    }

    /// The phase, or that it is the last one.
    pub(super) fn keyword(&self) -> &'static str {
        match self.phase {
            Phase::Idle(_) | Phase::Stopped => self.phase.keyword(),
            _ if self.draining => DRAINING,
            phase => phase.keyword(),
        }
    }

    /// Whether two states look the same from outside. The beginning counts only
    /// where the phase does.
    pub(super) fn looks_like(&self, other: &State) -> bool {
        self.phase == other.phase
            && self.detail == other.detail
            && self.since.instant == other.since.instant
            && self.limit == other.limit
            && self.draining == other.draining
            && self.subject == other.subject
            && self.outcomes == other.outcomes
    }

    /// One line: `building libfoo/1.2.3 on linux-gcc: 42s of 1h30m`.
    pub(super) fn line(&self, elapsed: Duration) -> String {
        let (subject, times) = self.parts(elapsed);
        subject + &times
    }

    /// The line in two parts: the subject, and the times behind it.
    pub(super) fn parts(&self, elapsed: Duration) -> (String, String) {
        let mut line = self.keyword().to_owned();
        if self.phase == Phase::Stopped {
            return (line, String::new());
        }
        if self.keyword() == DRAINING {
            line.push_str(", ");
            line.push_str(self.phase.keyword());
        }
        if let Phase::Idle(reason) = self.phase {
            line.push_str(": ");
            line.push_str(reason.text());
            if !self.detail.is_empty() {
                line.push_str(": ");
                line.push_str(&self.detail);
            }
            return (line, String::new());
        }
        if let Some(task) = &self.subject.task {
            line.push(' ');
            line.push_str(task);
        }
        if let Some(machine) = &self.subject.machine {
            line.push_str(if self.subject.task.is_some() {
                " on "
            } else {
                " "
            });
            line.push_str(machine);
        }
        if !self.subject.auxiliary.is_empty() {
            line.push_str(" with ");
            line.push_str(&self.subject.auxiliary.join(", "));
        }
        if let Some(login) = &self.subject.login {
            line.push_str(", a user may log in at ");
            line.push_str(login);
        }
        let mut times = format!(": {}", super::human(elapsed));
        if let Some(limit) = self.limit {
            times.push_str(" of ");
            times.push_str(&super::human(limit));
        }
        (line, times)
    }

    /// The members of the state file that change.
    pub(super) fn json(&self) -> Vec<(&'static str, Value)> {
        let seconds = |length: Duration| Value::from(length.as_secs());
        let outcomes = self.outcomes.iter().map(|outcome| {
            Value::object([
                ("task", Value::from(&*outcome.task)),
                ("machine", Value::from(&*outcome.machine)),
                ("status", Value::from(&*outcome.status)),
                ("at", seconds(outcome.at)),
                ("seconds", seconds(outcome.took)),
                ("memory_peak_bytes", outcome.memory_peak.into()),
            ])
        });
        let auxiliary = self
            .subject
            .auxiliary
            .iter()
            .map(|name| Value::from(&**name));
        vec![
            ("phase", self.keyword().into()),
            ("work", self.phase.keyword().into()),
            ("reason", self.phase.reason().map(Idle::keyword).into()),
            ("detail", Value::from(&*self.detail)),
            ("since", seconds(self.since.wall)),
            ("since_monotonic", seconds(self.since.monotonic)),
            ("limit", self.limit.map(seconds).into()),
            ("machine", self.subject.machine.as_deref().into()),
            ("auxiliary", Value::Array(auxiliary.collect())),
            ("task", self.subject.task.as_deref().into()),
            ("session", self.subject.session.as_deref().into()),
            ("controller", self.subject.controller.as_deref().into()),
            ("login", self.subject.login.as_deref().into()),
            ("results", Value::Array(outcomes.collect())),
        ]
    }
}
