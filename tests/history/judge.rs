//! The model of a host that several agents share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use bbot_agent::json::Value;
use bbot_agent::ledger::{Capacity, ClaimState, HostClaim, Work};

use super::watcher::Moment;
use super::{Ground, HIGH_TASKS, LOW_TASKS, MACHINES, word};
use crate::support::brep::{Brep, Build};
use crate::support::host::names;

/// The time between the view of an agent on the host and the answer of its controller.
const VIEW_AGE: Duration = Duration::from_millis(500);

pub(super) fn judge(ground: &Ground<'_>, breps: &[(u32, &Brep)], moments: &[Moment]) {
    let logs: String = (1..=3)
        .map(|instance| fs::read_to_string(ground.log(instance)).unwrap())
        .collect();
    let builds: Vec<Build> = breps
        .iter()
        .flat_map(|(_, brep)| brep.state().builds.clone())
        .collect();
    let mut wrong = Vec::new();
    wrong.extend(results(breps));
    wrong.extend(journals(ground, &builds));
    for moment in moments {
        wrong.extend(exceeded(&ground.capacity, moment));
        wrong.extend(beside(moment, &builds, moments));
    }
    wrong.extend(order(breps));
    wrong.extend(remains(ground));
    assert!(wrong.is_empty(), "{wrong:#?}\n{logs}");
    // The history has what it is for.
    let interrupted = builds.iter().filter(|build| build.is_interrupted()).count();
    assert!(interrupted >= 2, "{interrupted} interrupts\n{logs}");
    assert!(logs.contains("goes on after "), "no pause\n{logs}");
    let most = moments.iter().map(|moment| moment.guests.len()).max();
    assert_eq!(most, Some(2), "{logs}");
    let agents: BTreeSet<_> = builds.iter().map(|build| &build.agent).collect();
    assert_eq!(agents.len(), 3, "{logs}");
    eprintln!(
        "{} builds, {interrupted} interrupted, {} pauses, {} changes of the host",
        builds.len(),
        logs.matches("goes on after ").count(),
        moments.len()
    );
}

/// Each task that was handed out has one answer, and in the end one result.
fn results(breps: &[(u32, &Brep)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut successes = BTreeMap::new();
    for (priority, brep) in breps {
        let state = brep.state();
        let strange = state
            .ignored
            .iter()
            .map(|why| format!("{priority}: ignored: {why}"));
        wrong.extend(strange);
        let refused = state
            .refused
            .iter()
            .map(|why| format!("{priority}: refused: {why:?}"));
        wrong.extend(refused);
        for build in &state.builds {
            match build.result.as_deref() {
                None => wrong.push(format!("no answer: {}", build.session)),
                Some(_) if build.is_interrupted() => {}
                Some(result) if result.contains("\nstatus: success\n") => {
                    *successes.entry(build.task.clone()).or_insert(0) += 1;
                }
                Some(result) => wrong.push(format!("{}: {result}", build.session)),
            }
        }
    }
    let count = successes.len();
    if count != LOW_TASKS + HIGH_TASKS || successes.values().any(|count| *count != 1) {
        wrong.push(format!("not one result for each task: {successes:?}"));
    }
    wrong
}

/// Each task is in the journal of the agent that got it, from its acceptance to the
/// delivery, and in no other.
fn journals(ground: &Ground<'_>, builds: &[Build]) -> Vec<String> {
    let mut wrong = Vec::new();
    for instance in 1..=3 {
        let agent = format!("default-{instance}");
        let journal = ground.dir.join("state").join(&agent).join("journal");
        let text = fs::read_to_string(journal).unwrap();
        let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let event = Value::parse(line).unwrap();
            let session = word(&event, "session").to_owned();
            events
                .entry(session)
                .or_default()
                .push(word(&event, "event").to_owned());
        }
        let own = builds.iter().filter(|build| build.agent == agent);
        let sessions: BTreeSet<_> = own.map(|build| build.session.clone()).collect();
        if sessions != events.keys().cloned().collect() {
            wrong.push(format!(
                "{agent} had {sessions:?}, and its journal has {events:?}"
            ));
        }
        for (session, events) in events {
            if events != ["accepted", "started", "stored", "sent"] {
                wrong.push(format!("{agent}: {session}: {events:?}"));
            }
        }
    }
    wrong
}

/// The host is never exceeded: neither its memory nor its processors. A guest has a claim,
/// and a directory of its own.
fn exceeded(capacity: &Capacity, moment: &Moment) -> Vec<String> {
    let mut wrong = Vec::new();
    // The room of a claim that waits is still that of others.
    let claims = moment
        .claims
        .iter()
        .filter(|claim| claim.state != ClaimState::Waiting);
    let ram_kb: u64 = claims.clone().map(|claim| claim.ram_kb).sum();
    let running = claims.filter(|claim| claim.state == ClaimState::Running);
    let cpus: u32 = running.map(|claim| claim.cpus).sum();
    if ram_kb > capacity.ram_kb || cpus > capacity.cpus {
        wrong.push(format!("exceeded: {moment:?}"));
    }
    if moment.guests.windows(2).any(|pair| pair[0] == pair[1]) {
        wrong.push(format!("a directory is used twice: {moment:?}"));
    }
    if moment.guests.len() > moment.claims.len() {
        wrong.push(format!("a guest without a claim: {moment:?}"));
    }
    wrong
}

/// No task runs beside one of a higher level D, unless it was handed out before.
fn beside(moment: &Moment, builds: &[Build], moments: &[Moment]) -> Option<String> {
    let runs = |claim: &&HostClaim| claim.state == ClaimState::Running && claim.work == Work::Task;
    let mut running = moment.claims.iter().filter(runs);
    let high = running.clone().find(|claim| claim.priority.d > 0)?;
    let low = running.find(|claim| claim.priority.d == 0)?;
    let since: Instant = moments
        .iter()
        .find(|moment| {
            moment
                .claims
                .iter()
                .any(|claim| claim.accepted == high.accepted && claim.task == high.task)
        })?
        .at;
    let name = low.task.as_deref()?.split('/').next()?;
    let mut handed_out = builds.iter().filter(|build| build.agent == low.owner);
    let late = handed_out.any(|build| {
        build.task.contains(&format!("name: {name}\n"))
            && build.at > since + VIEW_AGE
            && build.at < moment.at
    });
    late.then(|| format!("{name} was taken beside {:?}: {moment:?}", high.task))
}

/// An agent asks the controller of lower priority when the other one has told it that it
/// has no task.
fn order(breps: &[(u32, &Brep)]) -> Vec<String> {
    let mut polls: Vec<_> = breps
        .iter()
        .flat_map(|(priority, brep)| {
            let polls = brep.state().polls.clone();
            polls
                .into_iter()
                .map(|(at, agent, has_task)| (at, agent, *priority, has_task))
        })
        .collect();
    polls.sort();
    let mut last = BTreeMap::new();
    let mut wrong = Vec::new();
    for (_, agent, priority, has_task) in polls {
        let before = last.insert(agent.clone(), (priority, has_task));
        if priority == 1 && before != Some((1000, false)) {
            wrong.push(format!(
                "{agent} asks for a task of priority 1 after {before:?}"
            ));
        }
    }
    wrong
}

/// Nothing of the agents is left, and the upgraded machine has its new revision.
fn remains(ground: &Ground<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, machine) in MACHINES.into_iter().enumerate() {
        let dir = ground.machines.join(machine);
        let mut left = names(&dir);
        let revisions: Vec<_> = (0..=number).map(|n| format!("{machine}-1.{n}")).collect();
        left.retain(|name| {
            !revisions.contains(name)
                && *name != format!("{machine}-1")
                && *name != format!("{machine}-default")
        });
        wrong.extend(left.into_iter().map(|name| format!("left: {name}")));
        let manifest = fs::read_to_string(dir.join(format!("{machine}-default/manifest")));
        if !manifest
            .unwrap()
            .contains(&format!("id: {machine}-1.{number}\n"))
        {
            wrong.push(format!(
                "{machine} is not bootstrapped from revision {number}"
            ));
        }
    }
    for instance in 1..=3 {
        let run_dir = ground.dir.join(format!("run/default-{instance}"));
        let left = names(&run_dir)
            .into_iter()
            .filter(|name| ["claim", "control", "vm"].contains(&&**name));
        wrong.extend(left.map(|name| format!("left: {instance}: {name}")));
        let queue = names(&ground.dir.join(format!("state/default-{instance}/queue")));
        wrong.extend(
            queue
                .into_iter()
                .map(|name| format!("queue of {instance}: {name}")),
        );
    }
    wrong
}
