//! The record of a task, which is kept until its controller has the result.

use std::fmt;

use super::clock::Stamp;
use crate::controller::Assignment;
use crate::controller::address::UploadTarget;
use crate::json::Value;

/// A task that was accepted. It is made once, from the controller's answer, and
/// is what the journal and the queue record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// When the controller handed it out. All its deadlines count from there.
    pub accepted: Stamp,
    /// The controller's name of it.
    pub session: String,
    /// The controller, as given on the command line without a password.
    pub controller: String,
    /// Where the result goes.
    pub result_url: UploadTarget,
    /// The text to sign, if the controller authenticates agents.
    pub challenge: Option<String>,
    /// Where artifacts go, by their type. Not recorded: what is stored with a
    /// result has its own.
    pub upload_urls: Vec<(String, UploadTarget)>,
    /// The package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The machine that it is built in.
    pub machine: String,
    /// Whether it is interactive: a controller hands such a task out once.
    pub interactive: bool,
}

impl TaskRecord {
    /// The record of what a controller handed out at `accepted`.
    pub fn new(assignment: &Assignment, accepted: Stamp) -> TaskRecord {
        let task = &assignment.task;
        TaskRecord {
            accepted,
            session: assignment.session.clone(),
            controller: assignment.controller.clone(),
            result_url: assignment.result_url.clone(),
            challenge: assignment.challenge.clone(),
            upload_urls: assignment.upload_urls.clone(),
            name: task.name().to_owned(),
            version: task.version().to_owned(),
            machine: task.machine().to_owned(),
            interactive: task.interactive().is_some(),
        }
    }

    /// The end of a task without a result, up to the name of its controller. A directory
    /// has its task back, also an interactive one.
    pub fn way_back(&self) -> &'static str {
        match (self.interactive, &self.result_url) {
            (false, _) | (_, UploadTarget::Spool { .. }) => "given back to",
            (true, _) => "reported as abort to",
        }
    }

    /// The members of a JSON object.
    pub(super) fn to_json(&self) -> Vec<(&'static str, Value)> {
        let mut pairs = Vec::from(self.accepted.to_json());
        pairs.extend([
            ("session", self.session.as_str().into()),
            ("controller", self.controller.as_str().into()),
            ("result-url", self.result_url.to_url().into()),
            ("name", self.name.as_str().into()),
            ("version", self.version.as_str().into()),
            ("machine", self.machine.as_str().into()),
        ]);
        if let Some(challenge) = &self.challenge {
            pairs.push(("challenge", challenge.as_str().into()));
        }
        if self.interactive {
            pairs.push(("interactive", true.into()));
        }
        pairs
    }

    pub(super) fn from_json(value: &Value) -> Option<TaskRecord> {
        let get = |name: &str| {
            let found = value.get(name).and_then(Value::as_str);
            found.map(str::to_owned)
        };
        Some(TaskRecord {
            accepted: Stamp::from_json(value),
            session: get("session")?,
            controller: get("controller")?,
            result_url: UploadTarget::parse(&get("result-url")?).ok()?,
            challenge: get("challenge"),
            upload_urls: Vec::new(),
            // Version 0.1.0 had all three as one text in its stored results.
            name: get("name").or_else(|| get("task"))?,
            version: get("version").unwrap_or_default(),
            machine: get("machine").unwrap_or_default(),
            interactive: value.get("interactive").and_then(Value::as_bool) == Some(true),
        })
    }
}

/// `<name>/<version> on <machine>`.
impl fmt::Display for TaskRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskRecord {
            name,
            version,
            machine,
            ..
        } = self;
        if version.is_empty() {
            return f.write_str(name);
        }
        write!(f, "{name}/{version} on {machine}")
    }
}
