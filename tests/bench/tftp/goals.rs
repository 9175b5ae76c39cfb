//! What is to be reached, and whether it was: the worst of the rows that each
//! goal is about, also as lines of `target/bench.jsonl` for the table of
//! `make bench`.

use bbot_agent::json::Value;

use crate::client::Transfer;
use crate::{Cell, OURS};

/// The bare exchange, with one packet a system call and with a window of them.
const BARE: [&str; 2] = ["bare sendto", "bare gso"];

/// A goal, and the row that is worst for it.
#[derive(Debug)]
struct Goal {
    what: &'static str,
    /// What ours is divided by.
    with: &'static str,
    /// What the ratio is to be: at least so much, or at most.
    least: Option<f64>,
    most: Option<f64>,
    /// Ours, the other's, and of which row.
    worst: Option<(f64, f64, String)>,
}

impl Goal {
    fn new(what: &'static str, with: &'static str, least: Option<f64>, most: Option<f64>) -> Goal {
        Goal {
            what,
            with,
            least,
            most,
            worst: None,
        }
    }

    fn see(&mut self, ours: Option<f64>, theirs: Option<f64>, row: &str) {
        let Some((ours, theirs)) = ours.zip(theirs) else {
            return;
        };
        let worse = |ratio: f64, than: f64| {
            if self.least.is_some() {
                ratio < than
            } else {
                ratio > than
            }
        };
        let is_worse = self
            .worst
            .as_ref()
            .is_none_or(|(a, b, _)| worse(ours / theirs, a / b));
        if is_worse {
            self.worst = Some((ours, theirs, row.to_owned()));
        }
    }
}

/// All goals of the table.
#[derive(Debug)]
pub struct Goals {
    lockstep_bare: Goal,
    lockstep_peer: Goal,
    windows_peer: Goal,
    windows_gso: Goal,
    uploads_bare: Goal,
    uploads_to_disk: Goal,
    lockstep_cpu: Goal,
    windows_cpu: Goal,
    large_cpu: Goal,
    small: Goal,
    parallel: Goal,
}

impl Default for Goals {
    fn default() -> Goals {
        let at_least = |what, with, least| Goal::new(what, with, Some(least), None);
        let at_most = |what, with, most| Goal::new(what, with, None, Some(most));
        Goals {
            lockstep_bare: at_least("lock-step, MiB/s", "bare exchange", 0.9),
            lockstep_peer: at_least("lock-step, MiB/s", "best peer", 1.0),
            windows_peer: at_least("GET in windows of 16, 64, MiB/s", "best peer", 3.0),
            windows_gso: at_least("GET in windows of 16, 64, MiB/s", "bare GSO exchange", 0.6),
            uploads_bare: at_least(
                "PUT of large blocks in windows, MiB/s",
                "bare exchange",
                0.9,
            ),
            uploads_to_disk: at_least(
                "PUT of large blocks in windows to the disk, MiB/s",
                "bare exchange",
                0.9,
            ),
            lockstep_cpu: at_most("lock-step, server CPU ms/MiB", "best peer", 1.0),
            windows_cpu: at_most("GET in windows, server CPU ms/MiB", "best peer", 0.7),
            large_cpu: at_most(
                "GET in windows of 65464, server CPU ms/MiB",
                "best peer",
                0.7,
            ),
            small: at_most("GET of 1 KiB, us", "bare exchange", 1.2),
            parallel: at_least("64 GETs at once in lock-step, MiB/s", "best peer", 1.0),
        }
    }
}

impl Goals {
    /// What the servers of these names did in one row.
    pub fn row(&mut self, transfer: &Transfer, names: &[&str], cells: &[Option<Cell>]) {
        let of = |name: &str| {
            let at = names.iter().position(|other| *other == name)?;
            cells[at]
        };
        let peers = || {
            let all = names.iter().zip(cells);
            all.filter(|(name, _)| **name != OURS && !BARE.contains(name))
                .filter_map(|(_, cell)| *cell)
        };
        let rate = |cell: Option<Cell>| cell.map(|cell| cell.rate);
        let cpu = |cell: Option<Cell>| cell.and_then(|cell| cell.cpu);
        let (ours, bare) = (of(OURS), of(BARE[0]));
        let peer_rate = peers().map(|cell| cell.rate).reduce(f64::max);
        let peer_cpu = peers().filter_map(|cell| cell.cpu).reduce(f64::min);
        let op = if transfer.upload { "PUT" } else { "GET" };
        let row = format!("{op} {} x {}", transfer.blksize, transfer.window);
        if transfer.window == 1 {
            self.lockstep_bare.see(rate(ours), rate(bare), &row);
            self.lockstep_peer.see(rate(ours), peer_rate, &row);
            self.lockstep_cpu.see(cpu(ours), peer_cpu, &row);
            return;
        }
        if transfer.upload {
            if transfer.blksize > 1428 {
                self.uploads_bare.see(rate(ours), rate(bare), &row);
            }
            return;
        }
        // A send of the largest blocks is one of each: nothing is left to save.
        if transfer.blksize == 65464 {
            self.large_cpu.see(cpu(ours), peer_cpu, &row);
        } else {
            self.windows_cpu.see(cpu(ours), peer_cpu, &row);
        }
        if transfer.window >= 16 && transfer.blksize <= 1428 {
            self.windows_peer.see(rate(ours), peer_rate, &row);
            self.windows_gso.see(rate(ours), rate(of(BARE[1])), &row);
        }
    }

    /// The same for an upload to a disk, whose file is new or over an old one.
    pub fn upload_to_disk(
        &mut self,
        transfer: &Transfer,
        file: &str,
        names: &[&str],
        cells: &[Option<Cell>],
    ) {
        let rate = |name: &str| {
            let at = names.iter().position(|other| *other == name)?;
            cells[at].map(|cell| cell.rate)
        };
        let row = format!("PUT {} x {} {file}", transfer.blksize, transfer.window);
        self.uploads_to_disk.see(rate(OURS), rate(BARE[0]), &row);
    }

    /// Median microseconds of a small GET.
    pub fn small(&mut self, ours: Option<f64>, bare: Option<f64>, row: &str) {
        self.small.see(ours, bare, row);
    }

    /// MiB/s of all transfers at once.
    pub fn parallel(&mut self, ours: Option<f64>, best: Option<f64>) {
        self.parallel.see(ours, best, "");
    }

    /// Prints them, and adds them to the file.
    pub fn print(&self) {
        let all = [
            &self.lockstep_bare,
            &self.lockstep_peer,
            &self.windows_peer,
            &self.windows_gso,
            &self.uploads_bare,
            &self.uploads_to_disk,
            &self.lockstep_cpu,
            &self.windows_cpu,
            &self.large_cpu,
            &self.small,
            &self.parallel,
        ];
        println!("\n| goal, in its worst row | ours | beside | ratio | to reach |");
        println!("|---|---|---|---|---|");
        let mut lines = String::new();
        for goal in all {
            let Some((ours, theirs, row)) = &goal.worst else {
                continue;
            };
            let ratio = ours / theirs;
            let met = goal.least.is_none_or(|least| ratio >= least)
                && goal.most.is_none_or(|most| ratio <= most);
            let reach = match (goal.least, goal.most) {
                (Some(least), _) => format!("at least {least} of it"),
                (_, Some(most)) => format!("at most {most} of it"),
                _ => String::new(),
            };
            let what = format!("tftp {} {row}", goal.what);
            println!(
                "| {} | {ours:.2} | {theirs:.2} {} | {ratio:.2} | {reach}{} |",
                what.trim_end(),
                goal.with,
                if met { ", met" } else { ", NOT MET" },
            );
            let number = |n: f64| Value::Number(format!("{n:.6}"));
            let (what, unit) = goal.what.rsplit_once(", ").unwrap_or((goal.what, ""));
            let line = Value::object([
                ("bench", Value::from("tftp")),
                (
                    "what",
                    Value::from(format!("tftp: {what}, {row}, beside {}", goal.with).as_str()),
                ),
                ("unit", Value::from(unit)),
                ("ours", number(*ours)),
                ("theirs", number(*theirs)),
                ("with", Value::from(goal.with)),
                ("goal", Value::from(reach.as_str())),
                ("met", Value::Bool(met)),
            ]);
            lines.push_str(&format!("{line}\n"));
        }
        crate::record::append(&lines);
    }
}
