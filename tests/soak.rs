//! Many turns of one agent: nothing of it grows.
//!
//! `make test` makes a few, `make torture` (`BBOT_AGENT_TORTURE=all`) a thousand.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::site::Site;
use crate::support::{Process, await_idle, isolated};

/// What one process has in use.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Most descriptors at once.
    descriptors: usize,
    /// Most memory at once, in kB.
    memory_kb: u64,
}

impl Usage {
    fn take(&mut self, pid: u32) {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.descriptors = self.descriptors.max(open);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
        self.memory_kb = self.memory_kb.max(resident.unwrap_or(0));
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
        for n in 0..turns {
            site.task(&format!("t-{n:04}"));
        }
        let mut agent = Process(command.spawn().unwrap());
        let pid = agent.0.id();

        // The first quarter finds its size, the last one has to keep to it.
        let (mut first, mut last) = (Usage::default(), Usage::default());
        let deadline = Instant::now() + Duration::from_secs(60 + turns * 2);
        let turns = usize::try_from(turns).unwrap();
        while done() < turns {
            let now = done();
            if now < turns / 4 {
                first.take(pid);
            } else if now >= turns * 3 / 4 {
                last.take(pid);
            }
            assert!(Instant::now() < deadline, "{now} of {turns} turns in time");
            assert!(agent.0.try_wait().unwrap().is_none(), "it has ended");
            std::thread::sleep(Duration::from_millis(3));
        }
        // The last result is there before its turn has ended: a snapshot is
        // deleted after the delivery. Idle it is when all of that was done.
        await_idle(&site.path("run/default-1"), "no-task");
        let inventory = files_of_turns_aside(&site);
        let left = |word: &str| inventory.iter().filter(|line| line.contains(word)).count();
        assert_eq!(left("-@"), 0, "{inventory:#?}");
        assert_eq!(left("rule "), 0, "{inventory:#?}");
        assert_eq!(left("interface "), 2, "{inventory:#?}");
        assert!(
            last.descriptors <= first.descriptors + 1,
            "descriptors: {first:?}, then {last:?}"
        );
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
