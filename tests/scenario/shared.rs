//! A host that the agents of several threads share in one virtual time: one of them
//! runs at a time, the one whose wait ends first.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use bbot_agent::agent::Room;
use bbot_agent::ledger::{Admission, Capacity, ClaimState, HostClaim, HostView, Wanted, admit};

/// The claims of all agents, and what happened to them.
#[derive(Debug, Default)]
pub struct Books {
    pub claims: BTreeMap<usize, HostClaim>,
    /// Each change: when, by which agent, and its claim, unless that ended.
    pub history: Vec<(u64, usize, Option<HostClaim>)>,
}

#[derive(Debug, Default)]
struct Host {
    capacity: Capacity,
    books: Mutex<Books>,
    /// For each agent, when its wait ends.
    wakes: Mutex<Vec<u64>>,
    changed: Condvar,
}

/// The seat of one agent on the host.
#[derive(Debug)]
pub struct SharedHost {
    host: Arc<Host>,
    number: usize,
}

/// A claim that ends with this.
pub struct SharedRoom {
    host: Arc<Host>,
    number: usize,
}

impl SharedHost {
    pub fn alone() -> SharedHost {
        SharedHost::seats(1, Capacity::default()).remove(0)
    }

    /// The seats of so many agents.
    pub fn seats(count: usize, capacity: Capacity) -> Vec<SharedHost> {
        let host = Arc::new(Host {
            capacity,
            wakes: Mutex::new(vec![0; count]),
            ..Host::default()
        });
        (0..count)
            .map(|number| SharedHost {
                host: Arc::clone(&host),
                number,
            })
            .collect()
    }

    /// Waits until the other agents have come to this second.
    pub fn pass_to(&self, second: u64) {
        let mut wakes = self.host.wakes.lock().unwrap();
        wakes[self.number] = second;
        self.host.changed.notify_all();
        let is_next = |wakes: &Vec<u64>| {
            let first = wakes
                .iter()
                .enumerate()
                .min_by_key(|(n, wake)| (**wake, *n));
            first.is_some_and(|(number, _)| number == self.number)
        };
        drop(
            self.host
                .changed
                .wait_while(wakes, |wakes| !is_next(wakes))
                .unwrap(),
        );
    }

    pub fn view(&self) -> HostView {
        let books = self.host.books.lock().unwrap();
        let others = books.claims.iter().filter(|(n, _)| **n != self.number);
        HostView {
            capacity: self.host.capacity,
            claims: others.map(|(_, claim)| claim.clone()).collect(),
        }
    }

    pub fn claim(&self, mut claim: HostClaim) -> Result<SharedRoom, String> {
        let wanted = Wanted {
            work: claim.work,
            ram_kb: claim.ram_kb,
            cpus: claim.cpus,
            priority: claim.priority,
        };
        match admit(&self.host.capacity, &self.view().claims, &wanted) {
            Admission::Granted => {}
            Admission::Waits(shortage) => return Err(shortage.to_string()),
            Admission::Displaces(victims) => panic!("{victims:?}"),
        }
        claim.owner = format!("default-{}", self.number + 1);
        claim.state = ClaimState::Running;
        self.host.note(self.number, Some(claim));
        let host = Arc::clone(&self.host);
        let number = self.number;
        Ok(SharedRoom { host, number })
    }

    /// One that sees the history.
    pub fn witness(&self) -> Witness {
        Witness(Arc::clone(&self.host))
    }
}

/// One that sees the history of a host.
pub struct Witness(Arc<Host>);

impl Witness {
    /// The history so far.
    pub fn history(&self) -> Vec<(u64, usize, Option<HostClaim>)> {
        self.0.books.lock().unwrap().history.clone()
    }
}

impl Host {
    fn note(&self, number: usize, claim: Option<HostClaim>) {
        let now = self.wakes.lock().unwrap()[number];
        let mut books = self.books.lock().unwrap();
        match claim.clone() {
            Some(claim) => books.claims.insert(number, claim),
            None => books.claims.remove(&number),
        };
        books.history.push((now, number, claim));
    }
}

impl Room for SharedRoom {
    fn end_task(&mut self) -> bbot_agent::error::Result<()> {
        Ok(())
    }
}

impl Drop for SharedRoom {
    fn drop(&mut self) {
        self.host.note(self.number, None);
    }
}

impl Drop for SharedHost {
    fn drop(&mut self) {
        self.host.wakes.lock().unwrap()[self.number] = u64::MAX;
        self.host.changed.notify_all();
    }
}
