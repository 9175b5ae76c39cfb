//! What agent and controller send each other.

use std::rc::Rc;

use super::machine::MachineHeader;
use super::result::ResultManifest;
use super::syntax::{ParseError, SerializeError, Serializer, Style};
use super::task::TaskManifest;
use super::values::{Section, Stream, Values, end, pair, start};

/// Asks a controller for a task: who asks, and what machines there are.
///
/// Controllers reject values they do not know, so what is optional here is only
/// to be sent to those that do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskRequest {
    /// The agent's name.
    pub agent: String,
    /// The toolchain's name and version; `None` for controllers before May 2017.
    pub toolchain: Option<(String, String)>,
    /// The mode (`true` or `both`) and how to log in, if builds may stop for
    /// somebody to log in.
    pub interactive: Option<(String, String)>,
    /// The SHA-256 of the agent's public key, if it has one.
    pub fingerprint: Option<String>,
    /// Memory for auxiliary machines in kB.
    pub auxiliary_ram: Option<u64>,
    /// The machines: the same from one request to the next, so shared.
    pub machines: Vec<Rc<MachineHeader>>,
    /// Values not known to us.
    pub others: Values,
}

impl TaskRequest {
    const KIND: &str = "task request";

    /// Reads a task request.
    pub fn parse(text: &[u8], source: &str) -> Result<TaskRequest, ParseError> {
        let mut stream = Stream::new(text, source, Self::KIND);
        let section = stream.expect(Self::KIND)?;
        let text = |name| text_of(&section, name);
        let both = |name: &str, other: Option<String>, value: &str| match other {
            Some(other) => Ok(Some((value.to_owned(), other))),
            None => Err(section.missing(name)),
        };
        let mut request = TaskRequest {
            agent: section.required("agent")?.value.to_string(),
            fingerprint: text("fingerprint")?,
            auxiliary_ram: section.read("auxiliary-ram", str::parse)?,
            ..TaskRequest::default()
        };
        if let Some(name) = text("toolchain-name")? {
            let version = text("toolchain-version")?;
            request.toolchain = both("toolchain-version", version, &name)?;
        }
        if let Some(mode) = text("interactive-mode")?.filter(|m| m != "false") {
            let login = text("interactive-login")?;
            request.interactive = both("interactive-login", login, &mode)?;
        }
        request.others = unknown(section, &KNOWN_TASK_REQUEST);
        while let Some(section) = stream.next()? {
            let header = section.of_kind("machine header");
            request.machines.push(Rc::new(MachineHeader::read(header)?));
        }
        Ok(request)
    }

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
            pair(&mut to, "interactive-mode", mode)?;
            pair(&mut to, "interactive-login", login)?;
        }
        if let Some(fingerprint) = &self.fingerprint {
            pair(&mut to, "fingerprint", fingerprint)?;
        }
        if let Some(ram) = self.auxiliary_ram {
            pair(&mut to, "auxiliary-ram", &ram.to_string())?;
        }
        write_others(&mut to, &self.others)?;
        end(&mut to)?;
        for machine in &self.machines {
            machine.values().write(&mut to)?;
        }
        Ok(to.into_text())
    }
}

const KNOWN_TASK_REQUEST: [&str; 7] = [
    "agent",
    "toolchain-name",
    "toolchain-version",
    "interactive-mode",
    "interactive-login",
    "fingerprint",
    "auxiliary-ram",
];

/// A controller's answer: a task, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskResponse {
    /// Identifies the task to the controller; empty if there is none.
    pub session: String,
    /// What to sign, if the controller authenticates agents.
    pub challenge: Option<String>,
    /// Where to post the result. There if there is a task.
    pub result_url: Option<String>,
    /// Where to post artifacts: their type and the URL.
    pub upload_urls: Vec<(String, String)>,
    /// The agent checksum that came with the last result of this build.
    pub agent_checksum: Option<String>,
    /// The task.
    pub task: Option<TaskManifest>,
    /// Values not known to us.
    pub others: Values,
}

impl TaskResponse {
    const KIND: &str = "task response";

    /// Reads a task response.
    pub fn parse(text: &[u8], source: &str) -> Result<TaskResponse, ParseError> {
        let mut stream = Stream::new(text, source, Self::KIND);
        let section = stream.expect(Self::KIND)?;
        let session = section.unique("session")?;
        let session = session.ok_or_else(|| section.missing("session"))?;
        let session = session.value.to_string();
        if session.is_empty() {
            // No task; whatever else is said is of no interest.
            return Ok(TaskResponse::default());
        }
        let mut response = TaskResponse {
            session,
            challenge: text_of(&section, "challenge")?,
            result_url: Some(section.required("result-url")?.value.to_string()),
            agent_checksum: text_of(&section, "agent-checksum")?,
            ..TaskResponse::default()
        };
        let known = ["session", "challenge", "result-url", "agent-checksum"];
        for (name, value) in unknown(section, &known).iter() {
            match name.strip_suffix("-upload-url").filter(|t| !t.is_empty()) {
                Some(kind) => response
                    .upload_urls
                    .push((kind.to_owned(), value.to_owned())),
                None => response.others.push(name, value),
            }
        }
        response.task = Some(TaskManifest::read(stream.expect(TaskManifest::KIND)?)?);
        stream.finish()?;
        Ok(response)
    }

    /// The text.
    pub fn to_text(&self, style: Style) -> Result<String, SerializeError> {
        let mut to = Serializer::new("task response manifest", style);
        start(&mut to)?;
        pair(&mut to, "session", &self.session)?;
        if let Some(challenge) = &self.challenge {
            pair(&mut to, "challenge", challenge)?;
        }
        if let Some(url) = &self.result_url {
            pair(&mut to, "result-url", url)?;
        }
        for (kind, url) in &self.upload_urls {
            pair(&mut to, &format!("{kind}-upload-url"), url)?;
        }
        if let Some(checksum) = &self.agent_checksum {
            pair(&mut to, "agent-checksum", checksum)?;
        }
        write_others(&mut to, &self.others)?;
        end(&mut to)?;
        if let Some(task) = &self.task {
            task.values().write(&mut to)?;
        }
        Ok(to.into_text())
    }
}

/// A result on its way to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRequest {
    /// The session of the response, as it was.
    pub session: String,
    /// The signature of the challenge in base64, if there was one.
    pub challenge: Option<String>,
    /// Our checksum, for the next time.
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

fn unknown(section: Section<'_>, known: &[&str]) -> Values {
    let pairs = section.into_pairs().into_iter();
    let unknown = pairs.filter(|p| !known.contains(&p.name));
    unknown.map(|p| (p.name, p.value)).collect()
}

fn write_others(to: &mut Serializer<'_>, others: &Values) -> Result<(), SerializeError> {
    for (name, value) in others.iter() {
        pair(to, name, value)?;
    }
    Ok(())
}
