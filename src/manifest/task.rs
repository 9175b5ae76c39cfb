//! Task manifests, on their way from a controller to a worker.

use super::auxiliary::{self, AuxiliaryNeed};
use super::syntax::{ParseError, SerializeError, Style};
use super::values::{Section, Values, single};

/// A new `trust` value is put behind the last value of one of these names, as
/// libbbot's writer does.
const BEFORE_TRUST: [&str; 5] = [
    "name",
    "version",
    "repository",
    "repository-url",
    "repository-type",
];

/// `auxiliary-environment` is put behind the last value of one of these names.
const BEFORE_AUXILIARY_ENVIRONMENT: [&str; 3] = ["machine", "target", "environment"];

/// The kinds of tasks that the agent takes: `--interactive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InteractiveMode {
    /// Tasks that are not interactive.
    #[default]
    No,
    /// Interactive ones only.
    Only,
    /// Both; a controller hands out interactive ones first.
    Both,
}

impl InteractiveMode {
    /// The word on the command line, and the value of `interactive-mode` in a request.
    pub fn keyword(self) -> &'static str {
        match self {
            InteractiveMode::No => "false",
            InteractiveMode::Only => "true",
            InteractiveMode::Both => "both",
        }
    }
}

/// A task manifest.
///
/// The agent reads few of its values. The worker gets all of them in the order in
/// which the controller wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskManifest(Values);

impl TaskManifest {
    pub(super) const KIND: &str = "task";

    /// Reads a task manifest.
    pub fn parse(text: &[u8], source: &str) -> Result<TaskManifest, ParseError> {
        TaskManifest::read(single(text, source, Self::KIND)?)
    }

    pub(super) fn read(section: Section<'_>) -> Result<TaskManifest, ParseError> {
        section.required("name")?;
        section.required("version")?;
        section.required("machine")?;
        section.unique("interactive")?;
        Ok(TaskManifest(section.into_values()))
    }

    /// The text.
    pub fn to_text(&self, style: Style) -> Result<String, SerializeError> {
        self.0.to_text("task manifest", style)
    }

    /// The name of the package.
    pub fn name(&self) -> &str {
        self.0.get("name").unwrap_or_default()
    }

    /// The version of the package, opaque.
    pub fn version(&self) -> &str {
        self.0.get("version").unwrap_or_default()
    }

    /// The machine to build in.
    pub fn machine(&self) -> &str {
        self.0.get("machine").unwrap_or_default()
    }

    /// The auxiliary machines that it needs; an error is a clause.
    pub fn auxiliary_machines(&self) -> Result<Vec<AuxiliaryNeed>, String> {
        auxiliary::needs(self.0.iter())
    }

    /// Gives the worker the variables of the auxiliary machines, if there are any.
    pub fn set_auxiliary_environment(&mut self, text: &str) {
        if !text.is_empty() {
            let before = &BEFORE_AUXILIARY_ENVIRONMENT;
            self.0.replace("auxiliary-environment", [text], before);
        }
    }

    /// Checks that the agent takes such tasks; an error is a clause.
    pub fn check_mode(&self, mode: InteractiveMode) -> Result<(), String> {
        match (self.interactive(), mode) {
            (Some(breakpoint), InteractiveMode::No) => Err(format!(
                "it is interactive (stops at {breakpoint}), see --interactive"
            )),
            (None, InteractiveMode::Only) => {
                Err("it is not interactive, see --interactive".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The step at which the build stops for a person to log in.
    pub fn interactive(&self) -> Option<&str> {
        self.0.get("interactive").filter(|v| !v.is_empty())
    }

    /// The worker checksum of the last build.
    pub fn worker_checksum(&self) -> Option<&str> {
        self.0.get("worker-checksum").filter(|v| !v.is_empty())
    }

    /// The dependency checksum of the last build.
    pub fn dependency_checksum(&self) -> Option<&str> {
        self.0.get("dependency-checksum").filter(|v| !v.is_empty())
    }

    /// Replaces the controller's trusted fingerprints by the agent's, if it has any.
    pub fn replace_trust(&mut self, fingerprints: &[String]) {
        if !fingerprints.is_empty() {
            self.0.replace(
                "trust",
                fingerprints.iter().map(String::as_str),
                &BEFORE_TRUST,
            );
        }
    }

    /// Drops the checksums, so that the worker cannot skip the build.
    pub fn drop_checksums(&mut self) {
        self.0.replace("worker-checksum", [], &[]);
        self.0.replace("dependency-checksum", [], &[]);
    }
}
