//! A turn in which nothing has changed.

use std::time::Duration;

use super::rows::{Row, least, median};
use super::scene::{Scene, cost, line, running, status};
use super::support::Process;

const ROUNDS: usize = 11;
const TURNS: usize = 7;

const SWITCHES: &str = "voluntary_ctxt_switches";

pub fn rows() {
    let mut walls = Vec::new();
    for count in [1_usize, 100, 1000] {
        let Some(scene) = Scene::new(count) else {
            return;
        };
        let run = || {
            let mut command = scene.agent(&["--once"]);
            command.arg(scene.path("controller"));
            cost(&mut command)
        };
        run(); // Makes the files of the first start.
        let times: Vec<_> = (0..ROUNDS).map(|_| run()).collect();
        let wall = median(times.iter().map(|t| t.0).collect());
        let agent = Resident::start(&scene);
        let turn = agent.turn();
        // Seconds a turn, so not as often: all but a few at one machine.
        let rounds = if count == 1 { ROUNDS } else { 1 };
        let theirs = median((0..rounds).map(|_| original(&scene, count)).collect());
        let what = format!("idle turn over {count} machines");
        let beside = |row: Row| row.beside_ms("btrfs, twice a machine", theirs);
        let row = beside(Row::ms(&what, turn));
        match count {
            1000 => row.under(60.0),
            _ => row,
        }
        .done();
        beside(Row::ms(&format!("{what}, from start to exit"), wall)).done();
        walls.push(least(&times.iter().map(|t| t.0).collect::<Vec<_>>()));
        if count == 1 {
            agent.rows();
            drop(agent);
            wakes(&scene);
        }
    }
    // The start and the exit, and a turn over one machine, are in both.
    Row::ms(
        "idle turn over 999 machines more",
        walls[2].saturating_sub(walls[0]),
    )
    .done();
    let each = |a: Duration, b: Duration, n: f64| b.saturating_sub(a).as_secs_f64() * 1e6 / n;
    let (few, many) = (
        each(walls[0], walls[1], 99.0),
        each(walls[1], walls[2], 900.0),
    );
    Row::new("idle turn, one more machine of 1000", "us", many)
        .beside("the same of 100", few)
        .goal("linear", many < few * 1.5)
        .done();
}

/// What the original does to see that nothing has changed: a snapshot of every
/// machine, deleted again.
fn original(scene: &Scene, count: usize) -> Duration {
    (0..count)
        .map(|n| {
            let dir = scene.volume().join(format!("linux-gcc_{n}"));
            let from = dir.join(format!("linux-gcc_{n}-1"));
            let to = dir.join("original");
            line(&format!(
                "btrfs subvolume snapshot {} {}",
                from.display(),
                to.display()
            ))
            .0 + line(&format!("btrfs subvolume delete {}", to.display())).0
        })
        .sum()
}

/// An agent that waits a second between turns.
struct Resident(Process);

impl Resident {
    fn start(scene: &Scene) -> Resident {
        let mut command = scene.agent(&["--poll-interval", "1"]);
        command.arg(scene.path("controller"));
        let agent = Resident(Process(command.spawn().unwrap()));
        std::thread::sleep(Duration::from_millis(1500));
        agent
    }

    /// A turn but the first: its processor time, since it waits for nothing.
    fn turn(&self) -> Duration {
        let pid = self.0.0.id();
        let now = || (status(pid, SWITCHES), running(pid));
        let mut turns = Vec::new();
        let mut before = now();
        while turns.len() < TURNS {
            std::thread::sleep(Duration::from_millis(300));
            let after = now();
            // It has slept since: the turn is over.
            if after.0 > before.0 {
                turns.push(after.1.saturating_sub(before.1));
                before = after;
            }
        }
        median(turns)
    }

    /// Between turns.
    fn rows(&self) {
        let pid = self.0.0.id();
        let kib = status(pid, "VmRSS");
        Row::new("idle: resident memory", "MB", kib as f64 / 1024.0)
            .under(4.0)
            .done();
        let threads = status(pid, "Threads");
        Row::new("idle: threads", "", threads as f64)
            .goal("1", threads == 1)
            .done();
    }
}

/// Waits between turns are of a minute, more or less.
fn wakes(scene: &Scene) {
    const WATCHED: Duration = Duration::from_secs(5);
    let mut command = scene.agent(&[]);
    command.arg(scene.path("controller"));
    let agent = Process(command.spawn().unwrap());
    std::thread::sleep(Duration::from_millis(1500));
    let count = || status(agent.0.id(), SWITCHES);
    let before = count();
    std::thread::sleep(WATCHED);
    let woken = count() - before;
    Row::new("idle: wake-ups in 5 s between turns", "", woken as f64)
        .goal("0", woken == 0)
        .done();
}
