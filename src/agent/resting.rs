//! Machines that are not offered for a while, because their guests failed before they had
//! a task. Each turn of an agent with `--once` is a process of its own, so that they are
//! kept in a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::delivery::BootFile;
use crate::json::Value;
use crate::manifest::MachineManifest;

/// How long a machine is not offered after a guest that made no request: the first and
/// the longest pause.
const FIRST_REST: Duration = Duration::from_secs(5 * 60);
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// The machines that are not offered for a while, by name.
#[derive(Debug, Default)]
pub(super) struct RestingMachines {
    machines: BTreeMap<String, RestingMachine>,
    /// The file that keeps them, if any.
    kept: Option<BootFile>,
}

/// A machine whose guests make no request.
#[derive(Clone, Debug)]
struct RestingMachine {
    /// The revision that failed.
    id: String,
    /// It is offered again then, in time since the start of the host.
    until: Duration,
    backoff: Backoff,
}

impl RestingMachine {
    fn new(id: &str) -> RestingMachine {
        RestingMachine {
            id: id.to_owned(),
            until: Duration::ZERO,
            backoff: Backoff::new(FIRST_REST, LONGEST_REST),
        }
    }

    fn to_json(&self, name: &str) -> Value {
        Value::object([
            ("machine", Value::from(name)),
            ("id", self.id.as_str().into()),
            ("until", self.until.as_secs().into()),
            ("failures", u64::from(self.backoff.failures()).into()),
        ])
    }

    fn from_json(value: &Value) -> Option<(String, RestingMachine)> {
        let text = |name| value.get(name).and_then(Value::as_str);
        let number = |name| value.get(name).and_then(Value::as_u64);
        let mut machine = RestingMachine::new(text("id")?);
        machine.until = Duration::from_secs(number("until")?);
        machine.backoff = machine
            .backoff
            .after(u32::try_from(number("failures")?).ok()?);
        Some((text("machine")?.to_owned(), machine))
    }
}

impl RestingMachines {
    /// Keeps the machines in the file at `path`, and reads those of former agents from it.
    pub(super) fn keep(&mut self, path: PathBuf) {
        let (file, kept) = BootFile::open(path);
        let machines = kept
            .as_ref()
            .and_then(|kept| kept.get("machines")?.as_array());
        let machines = machines.unwrap_or_default().iter();
        self.machines = machines.filter_map(RestingMachine::from_json).collect();
        self.kept = Some(file);
    }

    /// Whether a machine is not to be offered now. A new revision of it is offered.
    pub(super) fn has(&self, machine: &MachineManifest, now: Duration) -> bool {
        let resting = self.machines.get(machine.name());
        resting.is_some_and(|resting| resting.id == machine.id() && now < resting.until)
    }

    /// Notes a failure. Returns for how long the machine is not to be offered.
    pub(super) fn add(&mut self, machine: &MachineManifest, now: Duration) -> Duration {
        let (name, id) = (machine.name().to_owned(), machine.id());
        let new = || RestingMachine::new(id);
        let resting = self.machines.entry(name).or_insert_with(new);
        if resting.id != id {
            *resting = new();
        }
        let pause = resting.backoff.failed();
        resting.until = now + pause;
        self.save();
        pause
    }

    /// Forgets the failures of a machine.
    pub(super) fn remove(&mut self, name: &str) {
        self.machines.remove(name);
        self.save();
    }

    /// Forgets all failures.
    pub(super) fn clear(&mut self) {
        self.machines.clear();
        self.save();
    }

    /// Writes the file, if its contents have changed.
    fn save(&mut self) {
        let Some(file) = &mut self.kept else { return };
        let machines = self.machines.iter();
        let machines: Vec<_> = machines
            .map(|(name, machine)| machine.to_json(name))
            .collect();
        file.write(match machines.is_empty() {
            true => Vec::new(),
            false => vec![("machines", Value::Array(machines))],
        });
    }
}
