//! The part of a host that an agent holds.

use crate::json::Value;
use crate::priority::Priority;

/// The purpose of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The bootstrap of a machine.
    Bootstrap,
    /// The making of a template.
    Template,
    /// A task.
    Task,
    /// A throw-away copy on the terminal (`--shell`).
    Shell,
    /// A failed guest that is started again (`--resume`).
    Resumed,
}

/// The state of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Other guests are being paused or interrupted for this one.
    Waiting,
    /// The guest runs.
    Running,
    /// The guest is paused: it has its memory and uses no processor.
    Paused,
    /// The task has ended. Its guest is suspended for inspection, or is being removed: it
    /// has its memory and uses no processor.
    Ended,
}

/// The part of a host that an agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostClaim {
    /// The agent, `<toolchain>-<instance>`.
    pub owner: String,
    /// The purpose of the guest.
    pub work: Work,
    /// Whether the guest runs.
    pub state: ClaimState,
    /// Its memory, with that of its auxiliary machines, in kB.
    pub ram_kb: u64,
    /// Its processors.
    pub cpus: u32,
    /// The priority of its task; the lowest for other work.
    pub priority: Priority,
    /// The name of its machine.
    pub machine: String,
    /// Its task, `<package>/<version>`.
    pub task: Option<String>,
    /// When the task was accepted, in seconds since 1970.
    pub accepted: Option<u64>,
    /// Whether a person may be logged in: such a task is never interrupted.
    pub is_interactive: bool,
    /// The memory of the host for guests, in kB, for readers.
    pub host_ram_kb: u64,
    /// The processors of the host for guests, for readers.
    pub host_cpus: u32,
}

impl Work {
    const ALL: [Work; 5] = [
        Work::Bootstrap,
        Work::Template,
        Work::Task,
        Work::Shell,
        Work::Resumed,
    ];

    /// The word for programs and people.
    pub fn keyword(self) -> &'static str {
        match self {
            Work::Bootstrap => "bootstrap",
            Work::Template => "template",
            Work::Task => "task",
            Work::Shell => "shell",
            Work::Resumed => "resumed guest",
        }
    }
}

impl ClaimState {
    const ALL: [ClaimState; 4] = [
        ClaimState::Waiting,
        ClaimState::Running,
        ClaimState::Paused,
        ClaimState::Ended,
    ];

    /// The word for programs and people.
    pub fn keyword(self) -> &'static str {
        match self {
            ClaimState::Waiting => "waiting",
            ClaimState::Running => "running",
            ClaimState::Paused => "paused",
            ClaimState::Ended => "ended",
        }
    }

    /// Whether the guest uses processors, or is about to.
    pub(super) fn uses_processors(self) -> bool {
        matches!(self, ClaimState::Waiting | ClaimState::Running)
    }
}

impl HostClaim {
    /// The claim for programs, and in its file.
    pub fn json(&self) -> Value {
        Value::object([
            ("owner", Value::from(&*self.owner)),
            ("work", self.work.keyword().into()),
            ("state", self.state.keyword().into()),
            ("ram_kb", self.ram_kb.into()),
            ("cpus", u64::from(self.cpus).into()),
            ("priority", self.priority.to_string().into()),
            ("machine", Value::from(&*self.machine)),
            ("task", self.task.as_deref().into()),
            ("accepted", self.accepted.into()),
            ("interactive", Value::Bool(self.is_interactive)),
            ("host_ram_kb", self.host_ram_kb.into()),
            ("host_cpus", u64::from(self.host_cpus).into()),
        ])
    }

    /// Reads a claim. `owner` is its directory's name, whatever the text says.
    pub(super) fn parse(text: &str, owner: &str) -> Option<HostClaim> {
        let value = Value::parse(text).ok()?;
        let word = |name| value.get(name).and_then(Value::as_str);
        let number = |name| value.get(name).and_then(Value::as_u64);
        let work = Work::ALL.into_iter();
        let state = ClaimState::ALL.into_iter();
        Some(HostClaim {
            owner: owner.to_owned(),
            work: { work }.find(|work| word("work") == Some(work.keyword()))?,
            state: { state }.find(|state| word("state") == Some(state.keyword()))?,
            ram_kb: number("ram_kb")?,
            cpus: u32::try_from(number("cpus")?).ok()?,
            priority: Priority::parse(word("priority")?).ok()?,
            machine: word("machine")?.to_owned(),
            task: word("task").map(str::to_owned),
            accepted: number("accepted"),
            is_interactive: value.get("interactive")?.as_bool()?,
            host_ram_kb: number("host_ram_kb")?,
            host_cpus: u32::try_from(number("host_cpus")?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_comes_back_from_its_text() {
        let claim = HostClaim {
            owner: "default-2".to_owned(),
            work: Work::Task,
            state: ClaimState::Paused,
            ram_kb: 4 << 20,
            cpus: 4,
            priority: Priority::parse("11010").unwrap(),
            machine: "linux-gcc".to_owned(),
            task: Some("libfoo/1.2.3".to_owned()),
            accepted: Some(1_700_000_000),
            is_interactive: true,
            host_ram_kb: 30 << 20,
            host_cpus: 8,
        };
        let text = claim.json().to_string();
        assert_eq!(HostClaim::parse(&text, "default-2"), Some(claim));
        for text in ["", "[]", "{}", &text.replace("paused", "dozing")] {
            assert_eq!(HostClaim::parse(text, "default-2"), None, "{text}");
        }
    }
}
