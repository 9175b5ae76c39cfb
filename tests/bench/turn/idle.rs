//! A turn in which nothing has changed.

use std::time::Duration;

use super::rows::{Row, least, median};
use super::scene::{Scene, cost, line, status};
use super::support::Process;

const ROUNDS: usize = 11;

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
        let cpu = median(times.iter().map(|t| t.1).collect());
        // Seconds a turn, so not as often: all but a few at one machine.
        let rounds = if count == 1 { ROUNDS } else { 1 };
        let theirs = median((0..rounds).map(|_| original(&scene, count)).collect());
        let what = format!("idle turn over {count} machines, from start to exit");
        let row = Row::ms(&what, wall).beside_ms("btrfs, twice a machine", theirs);
        match count {
            1000 => row.under(20.0),
            _ => row,
        }
        .done();
        Row::ms(
            &format!("idle turn over {count} machines, processor time"),
            cpu,
        )
        .done();
        walls.push(least(&times.iter().map(|t| t.0).collect::<Vec<_>>()));
        if count == 1 {
            resident(&scene);
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

/// Between turns.
fn resident(scene: &Scene) {
    const WATCHED: Duration = Duration::from_secs(5);
    let mut command = scene.agent(&[]);
    command.arg(scene.path("controller"));
    let agent = Process(command.spawn().unwrap());
    let pid = agent.0.id();
    std::thread::sleep(Duration::from_millis(1500));
    let kib = status(pid, "VmRSS");
    Row::new("idle: resident memory", "MB", kib as f64 / 1024.0)
        .under(4.0)
        .done();
    let threads = status(pid, "Threads");
    Row::new("idle: threads", "", threads as f64)
        .goal("1", threads == 1)
        .done();
    let wakes = || status(pid, "voluntary_ctxt_switches");
    let before = wakes();
    std::thread::sleep(WATCHED);
    let woken = wakes() - before;
    Row::new("idle: wake-ups in 5 s between turns", "", woken as f64)
        .goal("0", woken == 0)
        .done();
}
