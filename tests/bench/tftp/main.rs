//! The TFTP server beside those that people install for the purpose, and beside
//! a bare exchange of the same packets that reads or writes the same file, which
//! is the limit.
//!
//! Client and server are pinned to one CPU and run at the highest priority: on
//! two CPUs a round trip is mostly the wake-up of the other one. All numbers of
//! a row come from one run, in turns, the best of several. Server CPU is that of
//! a control group, for tftpd-hpa starts processes that it does not wait for.
//! Many transfers at once are measured with all CPUs.
//!
//! `cargo bench --bench tftp -- [--quick] [--only SERVER,..] [--sizes N,..]
//! [--windows N,..] [--cpu N]`, after
//! `tests/tools/tftp-peers`, which gets the other servers.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    unreachable_pub
)]

mod bare;
mod client;
mod goals;
mod peers;
#[path = "../record.rs"]
mod record;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bbot_agent::tftp::{Map, ServerSettings, TftpServer};
use client::{Transfer, pattern};
use goals::Goals;
use peers::{Peer, Running};

const SIZES: [u16; 4] = [512, 1428, 8192, 65464];
const WINDOWS: [u16; 4] = [1, 4, 16, 64];
const MIB: f64 = (1 << 20) as f64;
/// What our own server is called.
const OURS: &str = "ours";
/// By how much larger the files of large blocks are, which would be over too soon.
const LARGE: usize = 4;
/// Rows that take less than this have more rounds.
const ROW: Duration = Duration::from_secs(6);
const MOST_ROUNDS: usize = 25;
/// Transfers at once, and octets of each.
const PARALLEL: usize = 64;
const PARALLEL_OCTETS: usize = 4 << 20;

struct Settings {
    octets: usize,
    rounds: usize,
    only: Option<Vec<String>>,
    windows: Vec<u16>,
    sizes: Vec<u16>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--bare") {
        return bare::serve(&args[1], &args[2], Path::new(&args[3]));
    }
    if args.first().is_some_and(|arg| arg == "--ours") {
        return ours(&args[1], Path::new(&args[2]));
    }
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let cpu = value("--cpu").unwrap_or_else(|| "1".to_owned());
    if std::env::var_os("BENCH_PINNED").is_none() {
        // Everything that follows inherits the CPU and the priority.
        let status = Command::new("taskset")
            .args(["-c", &cpu, "nice", "-n", "-20"])
            .arg(std::env::current_exe().unwrap())
            .args(&args)
            .env("BENCH_PINNED", "1")
            .status()
            .expect("taskset(1) and nice(1)");
        assert!(status.success(), "the bench failed");
        return;
    }
    let quick = args.iter().any(|arg| arg == "--quick");
    let settings = Settings {
        octets: if quick { 8 << 20 } else { 32 << 20 },
        rounds: if quick { 2 } else { 5 },
        only: value("--only").map(|list| list.split(',').map(str::to_owned).collect()),
        windows: value("--windows").map_or(WINDOWS.to_vec(), |list| numbers(&list)),
        sizes: value("--sizes").map_or(SIZES.to_vec(), |list| numbers(&list)),
    };
    let directory = PathBuf::from(format!("/dev/shm/bbot-tftp-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let mut goals = Goals::default();
    let json = measure(&settings, &directory, &mut goals);
    uploads_to_disk(&settings, &mut goals);
    parallel(&settings, &directory, &mut goals);
    goals.print();
    fs::remove_dir_all(&directory).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench-tftp.json");
    fs::write(&target, json).unwrap();
    println!("\nwritten to {}", target.canonicalize().unwrap().display());
}

fn numbers(list: &str) -> Vec<u16> {
    list.split(',')
        .map(|number| number.parse().unwrap())
        .collect()
}

/// The server of the crate.
fn ours(address: &str, directory: &Path) {
    let address = address.parse().unwrap();
    let mut server = TftpServer::bind(address, ServerSettings::default()).unwrap();
    server.set_map(Map::new().get(directory).put(directory));
    loop {
        server.serve(None, &[]).unwrap();
    }
}

/// What one server did in one row.
#[derive(Clone, Copy)]
struct Cell {
    /// MiB/s.
    rate: f64,
    /// Server CPU, ms per MiB.
    cpu: Option<f64>,
}

/// The servers that are wanted and that can be had.
fn start(settings: &Settings, directory: &Path) -> Vec<Running> {
    Peer::all(directory)
        .into_iter()
        .filter(|peer| {
            let only = settings.only.as_ref();
            only.is_none_or(|only| only.iter().any(|name| name == peer.name))
        })
        .filter_map(Peer::start)
        .collect()
}

fn measure(settings: &Settings, directory: &Path, goals: &mut Goals) -> String {
    for octets in [settings.octets, settings.octets * LARGE] {
        fs::write(directory.join(client::file_name(octets)), pattern(octets)).unwrap();
    }
    fs::write(directory.join("small"), pattern(1024)).unwrap();
    let running = start(settings, directory);
    let names: Vec<&str> = running.iter().map(|server| server.name).collect();
    let mut json = String::from("{\"rows\":[");

    println!(
        "{} MiB, of large blocks {} MiB; MiB/s (server CPU ms/MiB), best of {} to {MOST_ROUNDS}",
        settings.octets >> 20,
        (settings.octets * LARGE) >> 20,
        settings.rounds
    );
    println!("\n| op | blksize | window | {} |", names.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(names.len()));
    for upload in [false, true] {
        for &blksize in &settings.sizes {
            for &window in &settings.windows {
                let transfer = Transfer {
                    upload,
                    blksize,
                    window,
                    octets: settings.octets * if blksize > 1428 { LARGE } else { 1 },
                };
                let cells = row(settings, &running, &transfer, directory, false);
                goals.row(&transfer, &names, &cells);
                let op = if upload { "PUT" } else { "GET" };
                let texts: Vec<String> = cells.iter().map(|cell| render(cell.as_ref())).collect();
                println!("| {op} | {blksize} | {window} | {} |", texts.join(" | "));
                for (name, cell) in names.iter().zip(&cells) {
                    let Some(cell) = cell else { continue };
                    let _ = write!(
                        json,
                        "{}{{\"op\":\"{op}\",\"blksize\":{blksize},\"window\":{window},\"server\":\"{name}\",\"mib_s\":{:.1},\"cpu_ms_mib\":{:.3}}}",
                        if json.ends_with('[') { "" } else { "," },
                        cell.rate,
                        cell.cpu.unwrap_or(-1.0),
                    );
                }
            }
        }
    }
    json.push_str("],\"latency\":[");

    println!("\n1 KiB, microseconds: median / 99% (server CPU)\n");
    println!("| op | options | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(names.len()));
    for (upload, options) in [(false, false), (false, true), (true, true)] {
        let op = if upload { "PUT" } else { "GET" };
        let asked = if options { "blksize tsize" } else { "none" };
        let mut medians = Vec::new();
        let texts: Vec<String> = running
            .iter()
            .map(|server| {
                let Some((half, most, cpu)) = latency(server, upload, options) else {
                    return "-".to_owned();
                };
                medians.push((server.name, half as f64));
                let _ = write!(
                    json,
                    "{}{{\"op\":\"{op}\",\"options\":{options},\"server\":\"{}\",\"median_us\":{half},\"p99_us\":{most}}}",
                    if json.ends_with('[') { "" } else { "," },
                    server.name,
                );
                format!("{half} / {most} ({cpu})")
            })
            .collect();
        println!("| {op} | {asked} | {} |", texts.join(" | "));
        if !upload {
            let of = |name| medians.iter().find(|(other, _)| *other == name);
            let of = |name| of(name).map(|(_, half)| *half);
            goals.small(of(OURS), of("bare sendto"), &format!("options {asked}"));
        }
    }
    json.push_str("]}\n");
    json
}

/// PUTs of the largest blocks in windows to the disk of the build, where a rename over
/// a file costs: the file new, and over an old one.
fn uploads_to_disk(settings: &Settings, goals: &mut Goals) {
    let name = format!("tftp-bench-{}", std::process::id());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("small"), pattern(1024)).unwrap();
    let running: Vec<Running> = Peer::all(&directory)
        .into_iter()
        .filter(|peer| [OURS, "bare sendto"].contains(&peer.name))
        .filter_map(Peer::start)
        .collect();
    let names: Vec<&str> = running.iter().map(|server| server.name).collect();
    println!(
        "\nPUTs of {} MiB to the disk, blksize 65464, MiB/s (server CPU ms/MiB)\n",
        settings.octets >> 20
    );
    println!("| file | window | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(names.len()));
    for (file, over) in [("new", false), ("over an old one", true)] {
        for &window in settings.windows.iter().filter(|window| **window > 1) {
            let transfer = Transfer {
                upload: true,
                blksize: 65464,
                window,
                octets: settings.octets,
            };
            let cells = row(settings, &running, &transfer, &directory, over);
            goals.upload_to_disk(&transfer, file, &names, &cells);
            let texts: Vec<String> = cells.iter().map(|cell| render(cell.as_ref())).collect();
            println!("| {file} | {window} | {} |", texts.join(" | "));
        }
    }
    drop(running);
    fs::remove_dir_all(&directory).unwrap();
}

/// Many GETs at once in lock-step, each with a thread of the client, on all CPUs.
/// The bare exchange serves one at a time, so it is left out.
fn parallel(settings: &Settings, directory: &Path, goals: &mut Goals) {
    let mut all = nix::sched::CpuSet::new();
    for cpu in 0..nix::sched::CpuSet::count() {
        let _ = all.set(cpu);
    }
    // The servers started from here on, too.
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &all).unwrap();
    let name = client::file_name(PARALLEL_OCTETS);
    fs::write(directory.join(name), pattern(PARALLEL_OCTETS)).unwrap();
    println!(
        "\n{PARALLEL} GETs of {} MiB at once, blksize 1428, window 1, all CPUs\n",
        PARALLEL_OCTETS >> 20
    );
    println!("| server | MiB/s | CPU ms/MiB | complete |");
    println!("|---|---|---|---|");
    let (mut ours, mut others): (Option<f64>, Option<f64>) = (None, None);
    for server in start(settings, directory) {
        if server.name.starts_with("bare") {
            continue;
        }
        let transfer = Transfer {
            upload: false,
            blksize: 1428,
            window: 1,
            octets: PARALLEL_OCTETS,
        };
        let address = server.address;
        let mut best: Option<(f64, f64, usize)> = None;
        for _ in 0..settings.rounds.min(3) {
            let before = server.cpu().unwrap_or_default();
            let started = Instant::now();
            let clients: Vec<_> = (0..PARALLEL)
                .map(|_| {
                    let run = move || client::run(address, &transfer, Duration::from_secs(30));
                    std::thread::spawn(run)
                })
                .collect();
            let ended = clients.into_iter().map(std::thread::JoinHandle::join);
            let complete = ended.filter(|end| matches!(end, Ok(Some(_)))).count();
            let mib = complete as f64 * PARALLEL_OCTETS as f64 / MIB;
            let rate = mib / started.elapsed().as_secs_f64();
            let cpu = server.cpu().unwrap_or_default().saturating_sub(before);
            let cpu = cpu.as_secs_f64() * 1000.0 / mib.max(1.0);
            if best.is_none_or(|best| rate > best.0) {
                best = Some((rate, cpu, complete));
            }
        }
        if let Some((rate, cpu, complete)) = best {
            println!("| {} | {rate:.1} | {cpu:.2} | {complete} |", server.name);
            // Fast without some of them is no comparison.
            if complete == PARALLEL {
                let fastest = if server.name == OURS {
                    &mut ours
                } else {
                    &mut others
                };
                *fastest = Some(fastest.map_or(rate, |other| other.max(rate)));
            }
        }
    }
    goals.parallel(ours, others);
}

fn render(cell: Option<&Cell>) -> String {
    match cell {
        None => "-".to_owned(),
        Some(Cell { rate, cpu: None }) => format!("{rate:.1}"),
        Some(Cell {
            rate,
            cpu: Some(cpu),
        }) => format!("{rate:.1} ({cpu:.2})"),
    }
}

/// The servers in turns, so that a busy moment of the machine is everybody's. Uploads
/// are removed unless the next one is to be `over` them.
fn row(
    settings: &Settings,
    running: &[Running],
    transfer: &Transfer,
    directory: &Path,
    over: bool,
) -> Vec<Option<Cell>> {
    let mut best: Vec<Option<Cell>> = vec![None; running.len()];
    let mut failed = vec![false; running.len()];
    let started = Instant::now();
    let mut round = 0;
    // Fast rows have more rounds: the shorter a transfer, the more of it chance is.
    while round < settings.rounds || (round < MOST_ROUNDS && started.elapsed() < ROW) {
        round += 1;
        for (index, server) in running.iter().enumerate() {
            if failed[index] || !server.can(transfer) {
                continue;
            }
            let before = server.cpu();
            let Some(elapsed) = client::run(server.address, transfer, Duration::from_secs(6))
            else {
                failed[index] = true;
                best[index] = None;
                continue;
            };
            let mib = transfer.octets as f64 / MIB;
            if transfer.upload {
                // A server that closes the file after its last ACK does so now:
                // giving the memory back is no part of the next one's time.
                std::thread::sleep(Duration::from_millis(5));
            }
            let cpu = before
                .zip(server.cpu())
                .map(|(before, after)| after.saturating_sub(before).as_secs_f64() * 1000.0 / mib);
            if transfer.upload && !over {
                let _ = fs::remove_file(directory.join(client::UPLOAD));
            }
            let rate = mib / elapsed.as_secs_f64();
            if best[index].is_none_or(|best| rate > best.rate) {
                best[index] = Some(Cell { rate, cpu });
            }
        }
    }
    best
}

fn latency(server: &Running, upload: bool, options: bool) -> Option<(u128, u128, u128)> {
    const TIMES: u32 = 1000;
    let transfer = Transfer {
        upload,
        blksize: if options { 1428 } else { 512 },
        window: 1,
        octets: 1024,
    };
    if !server.can(&transfer) {
        return None;
    }
    let mut times = Vec::new();
    let before = server.cpu();
    for _ in 0..TIMES {
        times.push(client::run_small(server.address, &transfer, options)?);
    }
    let cpu = before.zip(server.cpu()).map_or(0, |(before, after)| {
        (after.saturating_sub(before) / TIMES).as_micros()
    });
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_micros();
    Some((at(50), at(99), cpu))
}
