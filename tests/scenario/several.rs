//! Several agents on one host, judged against a model: memory and processors are never
//! exceeded, priorities are respected, and each task has one result.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use bbot_agent::ledger::{Capacity, HostClaim};
use bbot_agent::manifest::ResultStatus;
use bbot_agent::priority::Priority;
use bbot_agent::status::Idle;

use super::record::Record;
use super::shared::SharedHost;
use super::{HOUR, MINUTE, Offers, Script, play_from, success};
use crate::support::TempDir;

/// When the tasks of a controller are there.
type Queue = Arc<Mutex<Vec<u64>>>;

/// A controller that hands out the tasks of its queue, `delay` seconds after a request.
fn of_queue(queue: &Queue, delay: u64) -> Box<dyn FnMut(u64) -> Offers> {
    let queue = Arc::clone(queue);
    Box::new(move |now| {
        let mut queue = queue.lock().unwrap();
        match queue.iter().position(|arrival| *arrival <= now) {
            Some(first) => {
                queue.remove(first);
                Offers::TaskIn(delay, "linux")
            }
            None => Offers::Nothing,
        }
    })
}

type History = Vec<(u64, usize, Option<HostClaim>)>;

/// Plays `agents` agents for a day on a host with memory and processors for two of
/// their guests. Each controller has a priority and the times at which tasks come.
fn play(agents: usize, controllers: &[(u32, Vec<u64>)], delay: u64) -> (Vec<Record>, History) {
    let capacity = Capacity {
        ram_kb: 8 << 20,
        cpus: 2,
        instances: None,
    };
    let queues: Vec<Queue> = controllers
        .iter()
        .map(|(_, arrivals)| Arc::new(Mutex::new(arrivals.clone())))
        .collect();
    let seats = SharedHost::seats(agents, capacity);
    let history = Mutex::new(Vec::new());
    let records = thread::scope(|scope| {
        let threads: Vec<_> = seats
            .into_iter()
            .map(|host| {
                let (queues, history) = (&queues, &history);
                scope.spawn(move || {
                    host.pass_to(0);
                    let priorities = controllers.iter().map(|(priority, _)| *priority);
                    let returned = queues.clone();
                    let script = Script {
                        controllers: queues.iter().map(|queue| of_queue(queue, delay)).collect(),
                        priorities: priorities.collect(),
                        given_back: Box::new(move |controller| {
                            returned[controller].lock().unwrap().push(0);
                        }),
                        guests: Box::new(|_, _| success(10 * MINUTE)),
                        host,
                        ..Script::new()
                    };
                    play_shared(script, history)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    (records, history.into_inner().unwrap())
}

fn play_shared(script: Script, history: &Mutex<History>) -> Record {
    let witness = script.host.witness();
    let record = play_from(&TempDir::in_memory(), script, &[], 0, 24 * HOUR);
    *history.lock().unwrap() = witness.history();
    record
}

/// The claims after each change of the history.
fn states(history: &History) -> Vec<(u64, Vec<HostClaim>)> {
    let mut claims = BTreeMap::new();
    let mut states = Vec::new();
    for (at, agent, claim) in history {
        match claim {
            Some(claim) => claims.insert(*agent, claim.clone()),
            None => claims.remove(agent),
        };
        states.push((*at, claims.values().cloned().collect()));
    }
    states
}

fn assert_never_exceeded(history: &History) {
    for (at, claims) in states(history) {
        let ram_kb: u64 = claims.iter().map(|claim| claim.ram_kb).sum();
        let cpus: u32 = claims.iter().map(|claim| claim.cpus).sum();
        assert!(ram_kb <= 8 << 20 && cpus <= 2, "{at}: {claims:?}");
    }
}

fn results(records: &[Record], status: ResultStatus) -> usize {
    records.iter().map(|record| record.taken(status)).sum()
}

#[test]
fn three_agents_share_a_host_for_two_guests() {
    // Ten tasks at once, and five later.
    let arrivals = [vec![0; 10], vec![5 * HOUR; 5]].concat();
    let (records, history) = play(3, &[(0, arrivals)], 0);
    assert_never_exceeded(&history);
    assert_eq!(results(&records, ResultStatus::Success), 15);
    assert_eq!(results(&records, ResultStatus::Interrupt), 0);
    // Two guests run while there are tasks: fifteen of ten minutes take 80 minutes.
    let most = states(&history)
        .iter()
        .map(|(_, claims)| claims.len())
        .max();
    assert_eq!(most, Some(2));
    let of_full_host = records
        .iter()
        .flat_map(|record| &record.idle)
        .filter(|(_, _, reason, _)| *reason == Idle::HostFull);
    for (.., detail) in of_full_host {
        assert_eq!(detail, "memory: 4.0 GiB wanted, 8.0 GiB of 8.0 GiB in use");
    }
    let full: u64 = records.iter().map(|r| r.time_idle(Idle::HostFull)).sum();
    assert!((70 * MINUTE..100 * MINUTE).contains(&full), "{full}");
}

#[test]
fn a_task_that_finds_the_room_taken_is_given_back_and_done_later() {
    // All agents ask at once, and have their tasks 5 seconds later.
    let (records, history) = play(3, &[(0, vec![0; 6])], 5);
    assert_never_exceeded(&history);
    assert_eq!(results(&records, ResultStatus::Success), 6);
    assert!(results(&records, ResultStatus::Interrupt) > 0);
    // It is no fault of the host.
    let idle = records.iter().map(|r| r.time_idle(Idle::BreakerOpen));
    assert_eq!(idle.sum::<u64>(), 0);
}

#[test]
fn the_highest_task_is_first_and_keeps_lower_levels_b_away() {
    let arrivals = [
        (0, vec![0; 8]),
        (1, vec![HOUR / 2; 4]),
        (10, vec![MINUTE, HOUR]),
    ];
    let (records, history) = play(2, &arrivals, 0);
    assert_never_exceeded(&history);
    assert_eq!(results(&records, ResultStatus::Success), 14);
    let running = states(&history);
    let of = |priority: &str| Priority::parse(priority).unwrap();
    for pair in running.windows(2) {
        let (before, (at, after)) = (&pair[0].1, &pair[1]);
        let Some(new) = after.iter().find(|claim| !before.contains(claim)) else {
            continue;
        };
        // A task of a lower level B never begins beside one of a higher level.
        let beside = before
            .iter()
            .find(|claim| claim.priority.b > new.priority.b);
        assert!(beside.is_none(), "{at}: {new:?} beside {beside:?}");
    }
    // The start of each task of a level is not after that of a lower one that came
    // later: the tasks of level A begin before the last of the lowest.
    let starts = |priority: &str| -> Vec<u64> {
        let claims = history.iter().filter_map(|(at, _, claim)| {
            claim
                .as_ref()
                .filter(|c| c.priority == of(priority))
                .map(|_| *at)
        });
        claims.collect()
    };
    let lowest_between = starts("0")
        .into_iter()
        .filter(|at| (HOUR / 2 + MINUTE..*starts("1").last().unwrap()).contains(at));
    assert_eq!(
        lowest_between.count(),
        0,
        "{:?} {:?}",
        starts("0"),
        starts("1")
    );
    // The controller of level B itself is asked meanwhile.
    let mut idle = records.iter().flat_map(|record| &record.idle);
    assert!(idle.any(|(_, _, reason, detail)| {
        *reason == Idle::NoTask && detail.ends_with("performs a task of priority 0010")
    }));
}
