//! The agent's share of a whole turn with a real guest.
//!
//! The same QEMU, with the same command line, is the guest alone: what of the
//! turn's time it does not run, and what of the turn's processor time is not
//! its, is ours.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::rows::Row;
use super::scene::{agent, children, now};
use super::support::host::{Host, TURN};
use super::support::{Process, guest, run};

const ROUNDS: usize = 3;

pub fn rows() {
    if let Err(why) = guest::image() {
        eprintln!("skipped: bench turn demo: {why}");
        return;
    }
    run("ip link delete br1");
    let Some(host) = Host::new() else { return };
    host.add_bootstrapped("linux-gcc", "");
    let turns: Vec<Turn> = (0..ROUNDS)
        .map(|n| turn(&host, &format!("demo-{n}")))
        .collect();
    let median = |share: fn(&Turn) -> f64| {
        let mut shares: Vec<f64> = turns.iter().map(share).collect();
        shares.sort_by(f64::total_cmp);
        shares[ROUNDS / 2]
    };
    let wall = median(|turn| turn.wall);
    let share = median(|turn| (turn.wall - turn.guest) / turn.wall * 100.0);
    Row::ms(
        "demo turn, qemu not running",
        Duration::from_secs_f64(wall * share / 100.0),
    )
    .done();
    Row::new("demo turn: ours of the wall time", "%", share)
        .beside("the whole turn, s", wall)
        .under(1.0)
        .done();
    let share = median(|turn| turn.ours / turn.total * 100.0);
    Row::new("demo turn: ours of the processor time", "%", share)
        .beside("the whole turn, s", median(|turn| turn.total))
        .under(1.0)
        .done();
}

/// Seconds.
struct Turn {
    wall: f64,
    /// Of these, those that QEMU ran.
    guest: f64,
    /// Processor time of the agent.
    ours: f64,
    /// Processor time of all.
    total: f64,
}

fn turn(host: &Host, task: &str) -> Turn {
    host.task(task, "linux-gcc", "");
    let before = children();
    let mut command = Command::new(agent());
    command
        .args(host.agent(&["--once"]).get_args())
        .arg(host.path("controller"));
    let start = now();
    let mut agent = Process(command.spawn().unwrap());
    let deadline = Instant::now() + TURN;
    let (mut ours, mut ran, mut begun, mut ended) = (0, false, 0, 0);
    let status = loop {
        ours = processor(agent.0.id()).unwrap_or(ours).max(ours);
        let lives = qemu(agent.0.id()).is_some_and(|pid| processor(pid).is_some());
        match (ran, lives) {
            (false, true) => (ran, begun) = (true, now()),
            (true, true) => ended = now(),
            _ => {}
        }
        if let Some(status) = agent.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the turn does not end");
        std::thread::sleep(Duration::from_millis(1));
    };
    let end = now();
    assert!(status.success() && ran, "{status}");
    assert!(host.result(task).is_some(), "no result");
    let seconds = |n: u64| Duration::from_nanos(n).as_secs_f64();
    Turn {
        wall: seconds(end - start),
        guest: seconds(ended.saturating_sub(begun)),
        ours: seconds(ours),
        total: children().saturating_sub(before).as_secs_f64(),
    }
}

/// The one process that an agent starts.
fn qemu(agent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Nanoseconds of processor time that a process has spent; `None` when it has
/// ended.
fn processor(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    if rest.starts_with(['Z', 'X']) {
        return None;
    }
    // Of the first thread: all of ours, enough of QEMU's to see it live.
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}
