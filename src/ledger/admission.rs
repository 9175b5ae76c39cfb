//! Whether a guest may start: a pure decision.

use std::cmp::Reverse;

use super::capacity::{Capacity, Load, Shortage, Wanted};
use super::{ClaimState, HostClaim, Work};
use crate::priority::Interrupts;

/// The decision on a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may start.
    Granted,
    /// It may start when these have made room, in this order.
    Displaces(Vec<Victim>),
    /// It may not start.
    Waits(Shortage),
}

/// A task that makes room for one of higher priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its agent.
    pub owner: String,
    /// How it makes room.
    pub method: Method,
}

/// How a task makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It keeps its memory, which both have; or it is interrupted.
    Pause,
    /// Its memory is needed.
    Interrupt,
}

/// A set of victims that is being chosen.
struct Choice<'c> {
    claims: &'c [HostClaim],
    /// For each claim, how it makes room.
    methods: Vec<Option<Method>>,
}

impl Choice<'_> {
    /// The load when the victims have made room.
    fn load(&self) -> Load {
        let mut left = Vec::new();
        for (claim, method) in self.claims.iter().zip(&self.methods) {
            if *method == Some(Method::Interrupt) {
                continue;
            }
            let mut claim = claim.clone();
            if method.is_some() {
                claim.state = ClaimState::Paused;
            }
            left.push(claim);
        }
        Load::of(left.iter())
    }

    fn victims(self) -> Vec<Victim> {
        let mut victims: Vec<_> = self
            .claims
            .iter()
            .zip(self.methods)
            .filter_map(|(claim, method)| Some((claim, method?)))
            .collect();
        victims.sort_by_key(|(claim, _)| cost(claim));
        let victim = |(claim, method): (&HostClaim, Method)| Victim {
            owner: claim.owner.clone(),
            method,
        };
        victims.into_iter().map(victim).collect()
    }
}

/// The order of victims: the lowest priority first, among equals the youngest task.
fn cost(claim: &HostClaim) -> (u16, Reverse<Option<u64>>) {
    (claim.priority.rank(), Reverse(claim.accepted))
}

/// Decides whether a guest may start beside `claims`, those of the other agents.
///
/// A task interrupts all tasks of a lower level D, even if there is room. If there is
/// none, it interrupts one of a lower level C: the lowest one that makes enough room. A
/// victim is paused where the memory allows it. An interactive task is no victim, and the
/// guest of a task that has ended is none.
pub fn admit(capacity: &Capacity, claims: &[HostClaim], wanted: &Wanted) -> Admission {
    let interrupts = |claim: &HostClaim| {
        let both_are_tasks = wanted.work == Work::Task && claim.work == Work::Task;
        let makes_room = matches!(claim.state, ClaimState::Running | ClaimState::Paused);
        match both_are_tasks && makes_room && !claim.is_interactive {
            true => wanted.priority.interrupts(claim.priority),
            false => Interrupts::Nothing,
        }
    };
    let mut choice = Choice {
        claims,
        methods: claims
            .iter()
            .map(|claim| (interrupts(claim) == Interrupts::All).then_some(Method::Pause))
            .collect(),
    };
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|&number| cost(&claims[number]));
    for &number in &order {
        let lacks = choice.load().lacks(capacity, wanted);
        if matches!(lacks, Some(Shortage::Memory(..))) && choice.methods[number].is_some() {
            choice.methods[number] = Some(Method::Interrupt);
        }
    }
    let Some(shortage) = choice.load().lacks(capacity, wanted) else {
        let victims = choice.victims();
        return match victims.is_empty() {
            true => Admission::Granted,
            false => Admission::Displaces(victims),
        };
    };
    for &number in &order {
        if interrupts(&claims[number]) != Interrupts::One {
            continue;
        }
        for method in [Method::Pause, Method::Interrupt] {
            choice.methods[number] = Some(method);
            if choice.load().lacks(capacity, wanted).is_none() {
                return Admission::Displaces(choice.victims());
            }
        }
        choice.methods[number] = None;
    }
    Admission::Waits(shortage)
}

/// A host as one of its agents sees it.
#[derive(Clone, Debug, Default)]
pub struct HostView {
    /// The part of it that is for guests.
    pub capacity: Capacity,
    /// The claims of the other agents.
    pub claims: Vec<HostClaim>,
}

impl HostView {
    /// The reason not to ask a controller now, if there is one: its task would find no
    /// room, or a task of a higher level B or D is performed. `wanted` is a guest of its
    /// tasks.
    ///
    /// If the host is full, only controllers are left whose tasks could interrupt one.
    pub fn keeps_from_asking(&self, wanted: &Wanted) -> Option<Shortage> {
        let higher = self.claims.iter().find(|claim| {
            claim.work == Work::Task
                && claim.state.uses_processors()
                && !wanted.priority.is_asked_beside(claim.priority)
        });
        if let Some(claim) = higher {
            return Some(Shortage::Priority(claim.owner.clone(), claim.priority));
        }
        match admit(&self.capacity, &self.claims, wanted) {
            Admission::Waits(shortage) => Some(shortage),
            Admission::Granted | Admission::Displaces(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::priority::Priority;

    const GIB: u64 = 1 << 20;

    const HOST: Capacity = Capacity {
        ram_kb: 16 * GIB,
        cpus: 8,
        instances: None,
    };

    /// A claim from `<owner> <priority> <GiB> <processors> [paused|ended|interactive|boot]`.
    fn claim(text: &str) -> HostClaim {
        let words: Vec<_> = text.split(' ').collect();
        let is = |word| words.last() == Some(&word);
        HostClaim {
            owner: words[0].to_owned(),
            work: match is("boot") {
                true => Work::Bootstrap,
                false => Work::Task,
            },
            state: match words.last() {
                Some(&"paused") => ClaimState::Paused,
                Some(&"ended") => ClaimState::Ended,
                _ => ClaimState::Running,
            },
            ram_kb: words[2].parse::<u64>().unwrap() * GIB,
            cpus: words[3].parse().unwrap(),
            priority: Priority::parse(words[1]).unwrap(),
            machine: "m".to_owned(),
            task: None,
            // Later letters are younger.
            accepted: Some(words[0].as_bytes()[0].into()),
            is_interactive: is("interactive"),
            host_ram_kb: 0,
            host_cpus: 0,
        }
    }

    fn decide(capacity: &Capacity, claims: &[&str], wanted: &str) -> String {
        let claims: Vec<_> = claims.iter().map(|text| claim(text)).collect();
        let words: Vec<_> = wanted.split(' ').collect();
        let wanted = Wanted {
            work: match words.last() {
                Some(&"boot") => Work::Bootstrap,
                _ => Work::Task,
            },
            ram_kb: words[1].parse::<u64>().unwrap() * GIB,
            cpus: words[2].parse().unwrap(),
            priority: Priority::parse(words[0]).unwrap(),
        };
        match admit(capacity, &claims, &wanted) {
            Admission::Granted => "granted".to_owned(),
            Admission::Waits(shortage) => shortage.to_string(),
            Admission::Displaces(victims) => {
                let shown: Vec<_> = victims
                    .iter()
                    .map(|victim| match victim.method {
                        Method::Pause => format!("pause {}", victim.owner),
                        Method::Interrupt => format!("interrupt {}", victim.owner),
                    })
                    .collect();
                shown.join(", ")
            }
        }
    }

    #[test]
    fn a_guest_starts_where_it_fits() {
        for (claims, wanted, expected) in [
            (&[][..], "0 4 2", "granted"),
            // Alone on its host, a guest may have more than the host has.
            (&[], "0 32 99", "granted"),
            (&["a 0 12 2"], "0 4 2", "granted"),
            (
                &["a 0 12 2"],
                "0 5 2",
                "memory: 5.0 GiB wanted, 12.0 GiB of 16.0 GiB in use",
            ),
            (
                &["a 0 4 4", "b 0 4 3"],
                "0 4 2",
                "processors: 2 wanted, 7 of 8 in use",
            ),
            // A paused guest has memory and no processors.
            (&["a 0 4 8 paused"], "0 4 8", "granted"),
            (
                &["a 0 14 8 paused"],
                "0 4 8",
                "memory: 4.0 GiB wanted, 14.0 GiB of 16.0 GiB in use",
            ),
        ] {
            assert_eq!(decide(&HOST, claims, wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn guests_that_run_are_counted() {
        let capacity = Capacity {
            instances: Some(1),
            ..HOST
        };
        let full = "guests: 1 run, which is --instance-max";
        assert_eq!(decide(&capacity, &["a 0 1 1"], "0 1 1"), full);
        assert_eq!(decide(&capacity, &["a 0 1 1 boot"], "0 1 1"), full);
        assert_eq!(decide(&capacity, &["a 0 1 1 paused"], "0 1 1"), "granted");
        assert_eq!(decide(&capacity, &["a 0 1 1"], "100 1 1"), "pause a");
    }

    #[test]
    fn level_c_displaces_one_task_where_there_is_no_room() {
        for (claims, wanted, expected) in [
            (&["a 0 4 2"][..], "100 4 2", "granted"),
            (&["a 0 4 4", "b 0 4 4"], "100 4 4", "pause b"),
            // The lowest goes first, among equals the youngest.
            (&["a 0 4 4", "b 1 4 4"], "100 4 4", "pause a"),
            (&["a 0 8 4", "b 0 8 4"], "100 4 4", "interrupt b"),
            (
                &["a 0 8 4", "b 0 8 4 interactive"],
                "100 4 4",
                "interrupt a",
            ),
            // One task has to make enough room.
            (
                &["a 0 8 4", "b 0 8 4"],
                "100 12 4",
                "memory: 12.0 GiB wanted, 16.0 GiB of 16.0 GiB in use",
            ),
            (&["a 0 4 2", "b 0 12 2"], "100 12 2", "interrupt b"),
            (
                &["a 100 8 4", "b 0 8 4 boot"],
                "100 4 4",
                "memory: 4.0 GiB wanted, 16.0 GiB of 16.0 GiB in use",
            ),
            // A guest that is held after its task has memory only, and keeps it.
            (&["a 0 4 8 ended"], "100 4 4", "granted"),
            (
                &["a 0 14 8 ended"],
                "100 4 4",
                "memory: 4.0 GiB wanted, 14.0 GiB of 16.0 GiB in use",
            ),
            // The memory of a paused task can be had as well.
            (&["a 0 10 4 paused", "b 100 6 4"], "100 4 4", "interrupt a"),
        ] {
            assert_eq!(decide(&HOST, claims, wanted), expected, "{claims:?}");
        }
    }

    #[test]
    fn level_d_displaces_all_lower_tasks() {
        for (claims, wanted, expected) in [
            (&["a 0 4 2", "b 99 4 2"][..], "1000 4 2", "pause a, pause b"),
            (&["a 0 4 2", "b 1000 4 2"], "1000 4 2", "pause a"),
            // Only as many are interrupted as the memory needs.
            (
                &["a 0 6 2", "b 1 6 2", "c 2 4 2"],
                "1000 8 2",
                "interrupt a, interrupt b, pause c",
            ),
            (&["a 0 4 2 interactive", "b 0 4 2"], "1000 4 2", "pause b"),
            (&["a 0 4 2 boot"], "1000 4 2", "granted"),
            // Those of a lower D, and one of a lower C.
            (&["a 0 4 2", "b 1000 4 8"], "1100 4 2", "pause a, pause b"),
        ] {
            assert_eq!(decide(&HOST, claims, wanted), expected, "{claims:?}");
        }
    }

    #[test]
    fn a_bootstrap_displaces_nobody() {
        assert_eq!(
            decide(&HOST, &["a 0 14 2"], "9999 4 2 boot"),
            "memory: 4.0 GiB wanted, 14.0 GiB of 16.0 GiB in use"
        );
    }

    #[test]
    fn a_controller_is_asked_if_its_task_could_start() {
        let asked = |claims: &[&str], priority: &str| {
            let claims: Vec<_> = claims.iter().map(|text| claim(text)).collect();
            let wanted = Wanted {
                work: Work::Task,
                ram_kb: 4 * GIB,
                cpus: 2,
                priority: Priority::parse(priority).unwrap(),
            };
            let capacity = HOST;
            let host = HostView { capacity, claims };
            host.keeps_from_asking(&wanted).is_none()
        };
        assert!(asked(&[], "0"));
        assert!(asked(&["a 0 4 2"], "0"));
        // B and D keep lower ones away.
        assert!(!asked(&["a 10 4 2"], "9"));
        assert!(!asked(&["a 1000 4 2"], "990"));
        assert!(asked(&["a 10 4 2 paused"], "9"));
        assert!(asked(&["a 10 4 2 ended"], "9"));
        // On a full host only higher ones are asked.
        for (priority, expected) in [("0", false), ("99", false), ("100", true), ("1000", true)] {
            assert_eq!(asked(&["a 0 14 2"], priority), expected, "{priority}");
        }
        assert!(!asked(&["a 0 14 2 interactive"], "9000"));
    }

    #[test]
    fn admitted_guests_never_exceed_the_host() {
        // Every pair of claims and every priority, by enumeration.
        let levels = ["0", "1", "10", "100", "1000", "1100"];
        for a in levels {
            for b in levels {
                for wanted in levels {
                    for ram in [4, 8, 12] {
                        let claims = [claim(&format!("a {a} 8 4")), claim(&format!("b {b} 6 4"))];
                        let wanted = Wanted {
                            work: Work::Task,
                            ram_kb: ram * GIB,
                            cpus: 4,
                            priority: Priority::parse(wanted).unwrap(),
                        };
                        let (mut ram_kb, mut cpus) = (wanted.ram_kb, wanted.cpus);
                        let victims = match admit(&HOST, &claims, &wanted) {
                            Admission::Granted => Vec::new(),
                            Admission::Displaces(victims) => victims,
                            Admission::Waits(_) => continue,
                        };
                        for claim in &claims {
                            let victim = victims.iter().find(|v| v.owner == claim.owner);
                            match victim.map(|victim| victim.method) {
                                None => {
                                    ram_kb += claim.ram_kb;
                                    cpus += claim.cpus;
                                }
                                Some(method) => {
                                    let interrupts = wanted.priority.interrupts(claim.priority);
                                    assert_ne!(interrupts, Interrupts::Nothing);
                                    if method == Method::Pause {
                                        ram_kb += claim.ram_kb;
                                    }
                                }
                            }
                        }
                        assert!(ram_kb <= HOST.ram_kb && cpus <= HOST.cpus);
                    }
                }
            }
        }
    }
}
