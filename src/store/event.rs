//! What the journal says: an object of JSON per event, and what they amount to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::json::Value;

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
    /// The controller has the result, or need not have it.
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

/// What the events amount to.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// Those under way, by session.
    pub open: BTreeMap<String, Unfinished>,
    /// By session, the name of the stored result that was sent.
    pub sent: BTreeMap<String, String>,
}

impl Tasks {
    /// What whole lines say, and how many of them say nothing.
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
            self.accepted(decode(&value));
        }
        // Another word is one of a later version.
        Some(())
    }

    pub(super) fn accepted(&mut self, accepted: Accepted) {
        // A directory that plays controller uses its names again.
        self.sent.remove(&accepted.session);
        let task = Unfinished {
            accepted,
            started: false,
        };
        self.open.insert(task.accepted.session.clone(), task);
    }

    pub(super) fn reached(&mut self, session: &str, stage: Stage, result: Option<&str>) {
        if stage == Stage::Started {
            if let Some(task) = self.open.get_mut(session) {
                task.started = true;
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
        for (session, task) in &self.open {
            // Into a string, which takes everything.
            let _ = writeln!(text, "{}", accepted(&task.accepted));
            if task.started {
                let _ = writeln!(text, "{}", reached(session, Stage::Started, None));
            }
        }
        text
    }
}

/// The event that a task has come so far, with the name of its stored result.
pub(super) fn reached(session: &str, stage: Stage, result: Option<&str>) -> Value {
    let mut pairs = vec![
        ("event", string(stage.word())),
        ("session", string(session)),
    ];
    pairs.extend(result.map(|result| ("result", string(result))));
    Value::object(pairs)
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// The event that a task was taken on.
pub(super) fn accepted(task: &Accepted) -> Value {
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
