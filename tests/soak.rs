//! Many turns of one agent: nothing of it grows.
//!
//! `make test` makes a few, `make torture` (`BBOT_AGENT_TORTURE=all`) a thousand.

use std::fs;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::site::Site;
use crate::support::{Process, await_idle, isolated};

/// What an idle process has in use.
#[derive(Clone, Copy, Debug)]
struct Usage {
    descriptors: usize,
    memory_kb: u64,
}

impl Usage {
    fn of(pid: u32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mut lines = status.lines();
        let resident = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        // The file that says that the agent is idle may not be closed yet.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let stays = |entry: &fs::DirEntry| {
            let file = fs::read_link(entry.path());
            file.is_ok_and(|file| !file.ends_with("status.json"))
        };
        Usage {
            descriptors: descriptors.flatten().filter(stays).count(),
            memory_kb: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }
}

#[test]
fn after_many_turns_nothing_has_grown() {
    let turns = match std::env::var("BBOT_AGENT_TORTURE").as_deref() {
        Ok("all") => 1000,
        _ => 16,
    };
    isolated(|| {
        let Some(site) = Site::new() else { return };
        let results = site.path("controller/results");
        let done = || fs::read_dir(&results).map_or(0, Iterator::count);
        let mut command = Command::new(Site::agent());
        let arguments = site.arguments();
        command.args(arguments.iter().filter(|argument| *argument != "--once"));
        command.args(["--poll-interval", "1"]).stdin(Stdio::null());
        let log = fs::File::create(site.path("agent.log")).unwrap();
        command.stderr(log);
        let mut agent = Process(command.spawn().unwrap());
        let pid = agent.0.id();

        // The first quarter of the turns finds the size of the idle agent.
        let mut usage_after = |turns: Range<usize>| {
            for n in turns.clone() {
                site.task(&format!("t-{n:04}"));
            }
            let deadline = Instant::now() + Duration::from_secs(60 + 2 * turns.len() as u64);
            while done() < turns.end {
                let now = done();
                assert!(Instant::now() < deadline, "{now} turns in time");
                assert!(agent.0.try_wait().unwrap().is_none(), "it has ended");
                std::thread::sleep(Duration::from_millis(20));
            }
            // The last result is there before its turn has ended: a snapshot is
            // deleted after the delivery. An agent that is idle has done all of that.
            await_idle(&site.path("run/default-1"), "no-task");
            Usage::of(pid)
        };
        let first = usage_after(0..turns / 4);
        let last = usage_after(turns / 4..turns);
        let inventory = files_of_turns_aside(&site);
        let left = |word: &str| inventory.iter().filter(|line| line.contains(word)).count();
        assert_eq!(left("-@"), 0, "{inventory:#?}");
        assert_eq!(left("rule "), 0, "{inventory:#?}");
        assert_eq!(left("interface "), 2, "{inventory:#?}");
        assert_eq!(last.descriptors, first.descriptors);
        assert!(
            last.memory_kb <= first.memory_kb + 1024,
            "memory: {first:?}, then {last:?}"
        );
        eprintln!("{turns} turns: {first:?}, then {last:?}");

        let begun = Instant::now();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = agent.0.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

fn files_of_turns_aside(site: &Site) -> Vec<String> {
    let of_turns = ["controller/done/t-", "controller/results/t-"];
    let aside = |line: &String| !of_turns.iter().any(|prefix| line.contains(prefix));
    site.inventory().into_iter().filter(aside).collect()
}
