//! A task that starts cold and one that starts warm, with the small guest, emulated.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::rows::Row;
use super::scene::agent;
use super::support::host::Host;
use super::support::{guest, run};

const ROUNDS: usize = 5;

pub fn rows() {
    if let Err(why) = guest::image() {
        eprintln!("skipped: bench turn warm: {why}");
        return;
    }
    for (name, ram) in [("512 MB", "524288"), ("2 GB", "2097152")] {
        run("ip link delete br1");
        // A template is made where all of the memory has room.
        let Some(host) = Host::of_size(4096) else {
            return;
        };
        // Its own address would change with its ports.
        run("ip link set br1 address 02:00:00:00:00:01");
        host.add_bootstrapped("m", "");
        let cold = median(&host, "cold", &["--ram", ram]);
        // The template.
        turn(&host, None, &["--ram", ram, "--warm"]);
        let warm = median(&host, "warm", &["--ram", ram, "--warm"]);
        let row = |what: &str, of: fn(&Start) -> Duration| {
            Row::ms(&format!("warm start, {name}: {what}"), of(&warm))
                .beside_ms("a cold start", of(&cold))
        };
        row("processors run", |start| start.runs)
            .under(150.0)
            .done();
        row("the guest has its task", |start| start.has_task)
            .under(500.0)
            .done();
        row("the result is posted", |start| start.posted)
            .under(700.0)
            .done();
        let template = host.machine("m/m-default-@warm.1");
        let size = |file: &str| fs::metadata(template.join(file)).unwrap().blocks() * 512;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let what = format!("warm start, {name}: template on disk");
        let bytes = size("warm.ram") + size("warm.state");
        Row::new(&what, "MiB", mib(bytes)).done();
        let what = format!("warm start, {name}: resident memory of QEMU");
        Row::new(&what, "MiB", mib(warm.memory))
            .beside("a cold start", mib(cold.memory))
            .done();
    }
}

/// Times since the task was received, and the most memory that QEMU had, in bytes.
#[derive(Clone, Copy)]
struct Start {
    runs: Duration,
    has_task: Duration,
    posted: Duration,
    memory: u64,
}

/// Each figure's median.
fn median(host: &Host, name: &str, words: &[&str]) -> Start {
    let starts: Vec<Start> = (0..ROUNDS)
        .map(|n| turn(host, Some(&format!("{name}-{n}")), words).unwrap())
        .collect();
    let of = |of: fn(&Start) -> Duration| {
        let mut all: Vec<Duration> = starts.iter().map(of).collect();
        all.sort();
        all[ROUNDS / 2]
    };
    Start {
        runs: of(|start| start.runs),
        has_task: of(|start| start.has_task),
        posted: of(|start| start.posted),
        memory: starts.iter().map(|start| start.memory).max().unwrap(),
    }
}

/// A turn, by what the agent says and when it says it. Without a task: the template is
/// made.
fn turn(host: &Host, task: Option<&str>, words: &[&str]) -> Option<Start> {
    if let Some(task) = task {
        host.task(task, "m", "");
    }
    let mut command = Command::new(agent());
    command
        .args(host.agent(&["--once", "--verbose", "4"]).get_args())
        .args(words)
        .arg(host.path("controller"))
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut received, mut start) = (None, [None; 3]);
    let mut memory = 0;
    for line in lines.map_while(Result::ok) {
        let now = Instant::now();
        memory = memory.max(resident(child.id()));
        let mut mark = |index: usize, text: &str| {
            if line.contains(text) {
                start[index].get_or_insert(now);
            }
        };
        mark(0, "the guest runs: true");
        mark(1, "Sent {");
        mark(2, "): success in ");
        if line.contains("claim: mv ") {
            received.get_or_insert(now);
        }
    }
    assert!(child.wait().unwrap().success());
    task?;
    let since = |at: Option<Instant>| at.unwrap().duration_since(received.unwrap());
    Some(Start {
        runs: since(start[0]),
        has_task: since(start[1]),
        posted: since(start[2]),
        memory,
    })
}

/// The resident memory of the one process that an agent starts, in bytes.
fn resident(agent: u32) -> u64 {
    let find = || {
        let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).ok()?;
        let pid = children.split_whitespace().next()?.to_owned();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    find().unwrap_or_default() * 1024
}
