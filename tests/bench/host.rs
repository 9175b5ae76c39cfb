//! What the host side costs: snapshots against the `btrfs` program and a bare C
//! program with the same ioctls, taps and redirects against `ip` and `nft`.
//!
//! Needs root; runs in namespaces of its own, on a btrfs file system in a loop
//! file, in memory. Prints a table of medians, and appends lines of JSON to
//! `target/bench.jsonl`.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod record;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::hint::black_box;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bbot_agent::network::{Bridge, Mac, Netfilter, Redirect, Strategy, Tap, Target};
use bbot_agent::snapshot::{self, Snapshot};
use nix::mount::{MsFlags, mount};
use support::btrfs::Volume;
use support::{TempDir, program};

/// Times of one operation, in each way that it can be done.
struct Row {
    operation: &'static str,
    ours: Duration,
    /// A bare C program, for what the kernel takes.
    c: Option<Duration>,
    /// The usual program, and which.
    tool: Option<(Duration, &'static str)>,
}

const ROUNDS: usize = 50;
/// Passes over all ways in turn; the best median of each way counts, for what
/// else the machine does comes and goes.
const PASSES: usize = 3;

/// Adds what a pass measured to the rows, or keeps the better.
fn merge(rows: &mut Vec<Row>, new: Vec<Row>) {
    for row in new {
        match rows.iter_mut().find(|old| old.operation == row.operation) {
            None => rows.push(row),
            Some(old) => {
                old.ours = old.ours.min(row.ours);
                old.c = old.c.min(row.c);
                old.tool = old.tool.min(row.tool);
            }
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The median time of `body`, with `after` run in between and not counted.
fn time<T>(mut body: impl FnMut() -> T, mut after: impl FnMut(T)) -> Duration {
    let times = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let value = black_box(body());
            let elapsed = start.elapsed();
            after(value);
            elapsed
        })
        .collect();
    median(times)
}

fn command(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let status = Command::new(program(words[0]).unwrap())
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{line}");
}

fn main() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: bench host: needs root");
        return;
    }
    assert!(program("ip").is_some(), "needs ip, from iproute2");
    support::netns::unshare_all();
    support::netns::bridge("br1");
    let mut rows = Vec::new();
    snapshots(&mut rows);
    rows.truncate(1);
    if let Some(row) = rows.first_mut() {
        row.operation = "snapshot, on the disk";
    }
    // A commit takes the disk as long as the rest together. So the file system
    // is in memory from here on: programs are compared, and not the disk.
    mount(
        None::<&str>,
        env!("CARGO_TARGET_TMPDIR"),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    for _ in 0..PASSES {
        let mut new = Vec::new();
        snapshots(&mut new);
        taps(&mut new);
        redirects(&mut new);
        merge(&mut rows, new);
    }
    report(&rows);
}

/// The three ways in turn, one operation each per round: the time of a commit
/// is that of the disk, and of whatever else it has to write just then.
fn snapshots(rows: &mut Vec<Row>) {
    let Some(volume) = Volume::new(1024) else {
        return;
    };
    let at = volume.path();
    let (source, target) = (at.join("m-1.0"), at.join("m-a"));
    command(&format!("btrfs subvolume create {}", source.display()));
    fs::write(source.join("disk.img"), vec![7; 64 << 20]).unwrap();
    snapshot::sync(at).unwrap();
    let dir = TempDir::new();
    let c = bare_c(&dir);
    let mut ours: [Vec<Duration>; 4] = Default::default();
    let mut bare: [Vec<Duration>; 3] = Default::default();
    let mut tool: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let mut held = None;
        ours[0].push(elapsed(|| {
            held = Some(Snapshot::scratch(&source, &target).unwrap());
        }));
        let held = held.unwrap();
        ours[1].push(elapsed(|| {
            snapshot::set_read_only(held.path(), true).unwrap();
        }));
        ours[2].push(elapsed(|| held.close().unwrap()));
        let held = Snapshot::scratch(&source, &target).unwrap();
        ours[3].push(elapsed(|| held.keep(&target).unwrap()));

        if let Some(c) = &c {
            let said = nanoseconds(Command::new(c).args([at, &source]));
            for (times, time) in bare.iter_mut().zip(said) {
                times.push(time);
            }
        }
        let (from, to) = (source.display(), at.join("tool"));
        let to = to.display();
        for (times, line) in tool.iter_mut().zip([
            format!("btrfs subvolume snapshot {from} {to}"),
            format!("btrfs property set -ts {to} ro true"),
            format!("btrfs subvolume delete {to}"),
        ]) {
            times.push(elapsed(|| command(&line)));
        }
    }
    snapshot::delete(&target).unwrap();
    let [create, set, delete, keep] = ours.map(median);
    for (i, (operation, ours)) in [
        ("snapshot", create),
        ("set read-only", set),
        ("delete", delete),
    ]
    .into_iter()
    .enumerate()
    {
        rows.push(Row {
            operation,
            ours,
            c: c.is_some().then(|| median(bare[i].clone())),
            tool: Some((median(tool[i].clone()), "btrfs")),
        });
    }
    rows.push(Row {
        operation: "sync, keep, delete the old",
        ours: keep,
        c: None,
        tool: None,
    });
}

/// The program that does the least, if there is a compiler.
fn bare_c(dir: &TempDir) -> Option<PathBuf> {
    program("gcc")?;
    let binary = dir.path().join("ioctl");
    fs::write(binary.with_extension("c"), include_str!("ioctl.c")).unwrap();
    command(&format!("gcc -O2 -o {0} {0}.c", binary.display()));
    Some(binary)
}

/// What it says.
fn nanoseconds(command: &mut Command) -> Vec<Duration> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| line.parse().unwrap());
    lines.map(Duration::from_nanos).collect()
}

fn elapsed(body: impl FnOnce()) -> Duration {
    let start = Instant::now();
    body();
    start.elapsed()
}

fn taps(rows: &mut Vec<Row>) {
    let bridge = Bridge::probe("br1").unwrap();
    let mut n = 0;
    let ours = time(
        || {
            n += 1;
            Tap::open(&bridge, &format!("bb-{n}")).unwrap()
        },
        Tap::close,
    );
    let whole = time(|| Tap::open(&bridge, "bb-x").unwrap().close(), |()| ());
    let mut n = 0;
    let tool = time(
        || {
            n += 1;
            command(&format!("ip tuntap add tt{n} mode tap vnet_hdr"));
            command(&format!("ip link set tt{n} master br1"));
            command(&format!("bridge link set dev tt{n} isolated on"));
            command(&format!("ip link set tt{n} up"));
            n
        },
        |n| command(&format!("ip link delete tt{n}")),
    );
    let dir = TempDir::new();
    let c = bare_c(&dir).map(|c| {
        let times = (0..ROUNDS).map(|_| nanoseconds(Command::new(&c).arg("br1"))[0]);
        median(times.collect())
    });
    rows.push(Row {
        operation: "tap created, attached, isolated, up",
        ours,
        c,
        tool: Some((tool, "ip, bridge")),
    });
    let mut n = 0;
    let mut gone = Vec::new();
    for _ in 0..10 {
        n += 1;
        command(&format!("ip tuntap add tt{n} mode tap"));
        let start = Instant::now();
        command(&format!("ip link delete tt{n}"));
        gone.push(start.elapsed());
    }
    rows.push(Row {
        operation: "the same, and gone",
        ours: whole,
        c: None,
        tool: Some((tool + median(gone), "ip, bridge")),
    });
    rows.push(Row {
        operation: "bridge examined",
        ours: time(|| Bridge::probe("br1").unwrap(), drop),
        c: None,
        tool: Some((time(|| command("ip -d addr show br1"), drop), "ip")),
    });
}

fn redirects(rows: &mut Vec<Row>) {
    let Ok(bridge) = Bridge::probe("br1") else {
        return;
    };
    let tap = Tap::open(&bridge, "bb-1").unwrap();
    let records = TempDir::new();
    let target = Target {
        bridge: &bridge,
        tap: &tap,
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        server: SocketAddrV4::new(bridge.address, 40000),
        owner: "bench-1",
        netfilter: &Netfilter::default(),
        group: &[],
    };
    let ours = time(
        || {
            let redirect = Redirect::install(Strategy::Nft, &target).unwrap();
            redirect.close().unwrap();
        },
        |()| (),
    );
    let tool = program("nft").map(|_| {
        let rules = records.path().join("rules.nft");
        fs::write(&rules, include_str!("rules.nft")).unwrap();
        let line = format!("nft -f {}", rules.display());
        let time = time(
            || {
                command(&line);
                command("nft delete table bridge bench");
                command("nft delete table ip bench");
            },
            |()| (),
        );
        (time, "nft")
    });
    rows.push(Row {
        operation: "redirect by nft, and gone",
        ours,
        c: None,
        tool,
    });
}

#[allow(clippy::cast_precision_loss)]
fn report(rows: &[Row]) {
    let ms = |time: Duration| format!("{:.3}", time.as_secs_f64() * 1e3);
    println!("host operations, best of {PASSES} medians of {ROUNDS}, milliseconds");
    println!(
        "{:<38} {:>8} {:>8} {:>8} {:>9} {:>8}  tool",
        "operation", "ours", "bare C", "ratio", "tool", "ratio"
    );
    let mut json = String::new();
    for row in rows {
        let ratio = |other: Duration| other.as_secs_f64() / row.ours.as_secs_f64();
        let (c, c_ratio) = row.c.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |c| (ms(c), format!("{:.2}", ratio(c))),
        );
        let (tool, tool_ratio, name) = row.tool.map_or_else(
            || ("-".to_owned(), "-".to_owned(), ""),
            |(tool, name)| (ms(tool), format!("{:.1}", ratio(tool)), name),
        );
        println!(
            "{:<38} {:>8} {c:>8} {c_ratio:>8} {tool:>9} {tool_ratio:>8}  {name}",
            row.operation,
            ms(row.ours)
        );
        let number = |time: Option<Duration>| {
            time.map_or_else(|| "null".to_owned(), |time| time.as_nanos().to_string())
        };
        json.push_str(&format!(
            "{{\"bench\":\"host\",\"operation\":\"{}\",\"ours_ns\":{},\"c_ns\":{},\"tool_ns\":{},\"tool\":\"{name}\"}}\n",
            row.operation,
            row.ours.as_nanos(),
            number(row.c),
            number(row.tool.map(|(time, _)| time)),
        ));
    }
    record::append(&json);
}
