//! The events of the journal, a JSON object each, and the tasks that they are of.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::task::TaskRecord;
use crate::json::Value;

/// How far a task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Its machine was started.
    Started,
    /// Its result is in the queue.
    Stored,
    /// The controller has the result, or does not need one.
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

/// A task without a stored result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedTask {
    /// The task.
    pub task: TaskRecord,
    /// Whether its machine was started.
    pub started: bool,
}

/// The tasks that the events are of.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// Tasks under way, by session.
    pub open: BTreeMap<String, UnfinishedTask>,
    /// By session, the name of the stored result that was sent.
    pub sent: BTreeMap<String, String>,
}

impl Tasks {
    /// Reads whole lines. Returns also how many of them are unreadable.
    pub(super) fn replay(text: &[u8]) -> (Tasks, usize) {
        let mut tasks = Tasks::default();
        let lines = text.split(|byte| *byte == b'\n');
        let bad = lines
            .filter(|line| !line.is_empty() && tasks.apply(line).is_none())
            .count();
        (tasks, bad)
    }

    fn apply(&mut self, line: &[u8]) -> Option<()> {
        let value = Value::parse(std::str::from_utf8(line).ok()?).ok()?;
        let get = |name: &str| value.get(name).and_then(Value::as_str);
        let (event, session) = (get("event")?, get("session")?);
        let stages = [Stage::Started, Stage::Stored, Stage::Sent];
        if let Some(stage) = stages.into_iter().find(|stage| stage.word() == event) {
            self.reached(session, stage, get("result"));
        } else if event == "accepted" {
            self.accepted(TaskRecord::from_json(&value)?);
        }
        // Other events are those of a later version.
        Some(())
    }

    pub(super) fn accepted(&mut self, task: TaskRecord) {
        // A directory that plays controller uses its names again.
        self.sent.remove(&task.session);
        let session = task.session.clone();
        let started = false;
        self.open.insert(session, UnfinishedTask { task, started });
    }

    pub(super) fn reached(&mut self, session: &str, stage: Stage, result: Option<&str>) {
        if stage == Stage::Started {
            if let Some(open) = self.open.get_mut(session) {
                open.started = true;
            }
            return;
        }
        self.open.remove(session);
        if let (Stage::Sent, Some(result)) = (stage, result) {
            self.sent.insert(session.to_owned(), result.to_owned());
        }
    }

    /// The lines that say which tasks are under way, and no more.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for (session, open) in &self.open {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", accepted(&open.task));
            if open.started {
                let _ = writeln!(text, "{}", reached(session, Stage::Started, None));
            }
        }
        text
    }
}

/// The event that a task has come so far, with the name of its stored result.
pub(super) fn reached(session: &str, stage: Stage, result: Option<&str>) -> Value {
    let mut pairs = vec![
        ("event", Value::from(stage.word())),
        ("session", session.into()),
    ];
    pairs.extend(result.map(|result| ("result", result.into())));
    Value::object(pairs)
}

/// The event that a task was accepted.
pub(super) fn accepted(task: &TaskRecord) -> Value {
    let mut pairs = vec![("event", Value::from("accepted"))];
    pairs.extend(task.to_json());
    Value::object(pairs)
}
