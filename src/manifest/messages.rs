//! The messages between agent and controller.

use std::rc::Rc;

use super::auxiliary::AuxiliaryNeed;
use super::machine::{MachineHeader, Role};
use super::result::ResultManifest;
use super::syntax::{ParseError, SerializeError, Serializer, Style};
use super::task::{InteractiveMode, TaskManifest};
use super::values::{Section, Stream, end, pair, start};

/// A request for a task: the agent and the machines it offers.
///
/// Controllers reject unknown values, so optional values are only for controllers
/// that know them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskRequest {
    /// The agent's name.
    pub agent: String,
    /// The toolchain's name and version; `None` for controllers before May 2017.
    pub toolchain: Option<(String, String)>,
    /// The mode of interactive builds, if not `false`, and the login for users.
    pub interactive: Option<(InteractiveMode, String)>,
    /// The SHA-256 of the agent's public key, if it has one.
    pub fingerprint: Option<String>,
    /// The memory for the auxiliary machines of a task in kB. It is sent only if one is
    /// offered: without one, controllers hand out no task that needs one.
    pub auxiliary_ram: u64,
    /// The machines; shared, as they stay the same from request to request.
    pub machines: Vec<Rc<MachineHeader>>,
}

impl TaskRequest {
    /// The text.
    pub fn to_text(&self, style: Style) -> Result<String, SerializeError> {
        let mut to = Serializer::new("task request manifest", style);
        start(&mut to)?;
        pair(&mut to, "agent", &self.agent)?;
        if let Some((name, version)) = &self.toolchain {
            pair(&mut to, "toolchain-name", name)?;
            pair(&mut to, "toolchain-version", version)?;
        }
        if let Some((mode, login)) = &self.interactive {
            pair(&mut to, "interactive-mode", mode.keyword())?;
            pair(&mut to, "interactive-login", login)?;
        }
        if let Some(fingerprint) = &self.fingerprint {
            pair(&mut to, "fingerprint", fingerprint)?;
        }
        if self.names(Role::Auxiliary).next().is_some() {
            pair(&mut to, "auxiliary-ram", &self.auxiliary_ram.to_string())?;
        }
        end(&mut to)?;
        for machine in &self.machines {
            machine.values().write(&mut to)?;
        }
        Ok(to.into_text())
    }

    /// The names of the machines that are offered for a role.
    fn names(&self, role: Role) -> impl Iterator<Item = &str> {
        let machines = self.machines.iter();
        let machines = machines.filter(move |machine| machine.role() == role);
        machines.map(|machine| machine.name())
    }

    /// Checks that a task is of the mode, and names machines that are offered; an error is a clause.
    pub fn offers(&self, task: &TaskManifest) -> Result<(), String> {
        let mode = self.interactive.as_ref().map(|(mode, _)| *mode);
        task.check_mode(mode.unwrap_or_default())?;
        if !self.names(Role::Build).any(|name| name == task.machine()) {
            return Err(format!(
                "machine {} is not offered at present",
                task.machine()
            ));
        }
        for AuxiliaryNeed { machine, .. } in task.auxiliary_machines()? {
            if !self.names(Role::Auxiliary).any(|name| name == machine) {
                return Err(format!(
                    "auxiliary machine {machine} is not offered at present"
                ));
            }
        }
        Ok(())
    }
}

/// A controller's answer that has a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskResponse {
    /// Identifies the task to the controller.
    pub session: String,
    /// The text to sign, if the controller authenticates agents.
    pub challenge: Option<String>,
    /// The URL for the result.
    pub result_url: String,
    /// URLs for artifacts: type and URL of each.
    pub upload_urls: Vec<(String, String)>,
    /// The agent checksum that came with the last result of this build.
    pub agent_checksum: Option<String>,
    /// The task.
    pub task: TaskManifest,
}

impl TaskResponse {
    const KIND: &str = "task response";

    /// Reads a task response; `None`: there is no task.
    pub fn parse(text: &[u8], source: &str) -> Result<Option<TaskResponse>, ParseError> {
        let mut stream = Stream::new(text, source, Self::KIND);
        let section = stream.expect(Self::KIND)?;
        let session = section.unique("session")?;
        let session = session.ok_or_else(|| section.missing("session"))?;
        let session = session.value.to_string();
        if session.is_empty() {
            // No task: the other values have no meaning.
            return Ok(None);
        }
        let challenge = text_of(&section, "challenge")?;
        let result_url = section.required("result-url")?.value.to_string();
        let agent_checksum = text_of(&section, "agent-checksum")?;
        let mut upload_urls = Vec::new();
        for pair in section.into_pairs() {
            let kind = pair.name.strip_suffix("-upload-url");
            if let Some(kind) = kind.filter(|kind| !kind.is_empty()) {
                upload_urls.push((kind.to_owned(), pair.value.into_owned()));
            }
        }
        let task = TaskManifest::read(stream.expect(TaskManifest::KIND)?)?;
        stream.finish()?;
        Ok(Some(TaskResponse {
            session,
            challenge,
            result_url,
            upload_urls,
            agent_checksum,
            task,
        }))
    }
}

/// A result on its way to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRequest {
    /// The session of the response, unchanged.
    pub session: String,
    /// The signature of the challenge in base64, if there was one.
    pub challenge: Option<String>,
    /// The agent's checksum, which comes with the next task of this build.
    pub agent_checksum: Option<String>,
    /// The result.
    pub result: ResultManifest,
}

impl ResultRequest {
    const KIND: &str = "result request";

    /// Reads a result request.
    pub fn parse(text: &[u8], source: &str) -> Result<ResultRequest, ParseError> {
        let mut stream = Stream::new(text, source, Self::KIND);
        let section = stream.expect(Self::KIND)?;
        let session = section.required("session")?.value.to_string();
        let challenge = text_of(&section, "challenge")?;
        let agent_checksum = text_of(&section, "agent-checksum")?;
        let result = ResultManifest::read(stream.expect(ResultManifest::KIND)?)?;
        stream.finish()?;
        Ok(ResultRequest {
            session,
            challenge,
            agent_checksum,
            result,
        })
    }

    /// The text.
    pub fn to_text(&self, style: Style) -> Result<String, SerializeError> {
        let mut to = Serializer::new("result request manifest", style);
        start(&mut to)?;
        pair(&mut to, "session", &self.session)?;
        if let Some(challenge) = &self.challenge {
            pair(&mut to, "challenge", challenge)?;
        }
        if let Some(checksum) = &self.agent_checksum {
            pair(&mut to, "agent-checksum", checksum)?;
        }
        end(&mut to)?;
        self.result.write(&mut to)?;
        Ok(to.into_text())
    }
}

fn text_of(section: &Section<'_>, name: &str) -> Result<Option<String>, ParseError> {
    Ok(section.optional(name)?.map(|p| p.value.to_string()))
}
