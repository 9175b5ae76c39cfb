//! What the agent itself costs: idle turns, the way from a task to QEMU and
//! from the result to the controller, start, memory, size; beside the programs
//! that the original runs for the same steps.
//!
//! Measures the release binary that `BBOT_AGENT` names, in namespaces of its
//! own, on btrfs in a loop file; needs root. With `--table` prints what all
//! benches wrote to `target/bench.jsonl` as one table, and writes it as
//! `target/bench.json`. See `tests/tools/bench`.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss
)]

#[path = "../record.rs"]
mod record;
#[path = "../../support/mod.rs"]
mod support;

mod controller;
mod demo;
mod guest;
mod idle;
mod rows;
mod scene;
mod start;
mod table;
mod task;
mod warm;

fn main() {
    // QEMU's part is played by this program, under its name.
    let name = std::env::args().next().unwrap_or_default();
    if name.ends_with("/qemu") {
        guest::play();
        return;
    }
    if std::env::args().any(|arg| arg == "--table") {
        table::print();
        return;
    }
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: bench turn: needs root");
        return;
    }
    support::netns::unshare_all();
    support::netns::bridge("br1");
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    for (name, part) in [
        ("start", start::rows as fn()),
        ("idle", idle::rows),
        ("task", task::rows),
        ("demo", demo::rows),
        ("warm", warm::rows),
    ] {
        if only.as_deref().is_none_or(|only| only == name) {
            part();
        }
    }
}
