//! From a task to QEMU, and from the result to the controller, with a guest
//! that takes no time.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::controller::{Controller, Seen};
use super::guest;
use super::rows::{Row, median};
use super::scene::{Scene, children, line};
use super::support::Process;

const TASKS: usize = 20;

pub fn rows() {
    let Some(scene) = Scene::new(1) else { return };
    let machine = "linux-gcc_0";
    let bin = scene.path("bin");
    fs::create_dir(&bin).unwrap();
    symlink(std::env::current_exe().unwrap(), bin.join("qemu")).unwrap();

    let mut theirs = original(&scene, machine);
    let qemu = bin.join("qemu");
    let turns = perform(&scene, machine, &["--qemu", qemu.to_str().unwrap()]);
    let times = guest::times(&bin);
    assert_eq!(times.len(), TASKS, "{}", scene.log());
    theirs.extend(original(&scene, machine));

    let since = |from: &[u64], to: Vec<u64>| -> Vec<Duration> {
        from.iter()
            .zip(to)
            .map(|(from, to)| Duration::from_nanos(to.saturating_sub(*from)))
            .collect()
    };
    let executed = since(&turns.seen.tasks, times.iter().map(|t| t.0).collect());
    let last: Vec<u64> = times.iter().map(|t| t.1).collect();
    let posted = since(&last, turns.seen.results.clone());
    Row::ms("task received to qemu executed", median(executed))
        .beside_ms("btrfs, iptables, ip", median(theirs))
        .under(10.0)
        .done();
    Row::ms("last byte of the result to result posted", median(posted))
        .under(5.0)
        .done();
    turns.rows("whole turn with a guest that takes no time");

    let header = scene.path("machine");
    fs::write(
        &header,
        format!(": 1\nid: {machine}-1\nname: {machine}\nsummary: x\n"),
    )
    .unwrap();
    let turns = perform(&scene, machine, &["--fake-build"]);
    turns.rows("whole turn with --fake-build");
}

struct Turns {
    seen: Seen,
    cpu: Duration,
}

impl Turns {
    fn rows(&self, what: &str) {
        let (first, last) = (self.seen.tasks[0], self.seen.results[TASKS - 1]);
        let wall = Duration::from_nanos(last - first).as_secs_f64() / TASKS as f64;
        Row::new(&format!("{what}: turns per second"), "", 1.0 / wall).done();
        let cpu = self.cpu / u32::try_from(TASKS).unwrap();
        Row::ms(&format!("{what}: processor time"), cpu).done();
    }
}

/// Task after task until there is none, then the agent is told to go.
fn perform(scene: &Scene, machine: &str, words: &[&str]) -> Turns {
    let controller = Controller::start(machine, TASKS);
    let mut command = scene.agent(words);
    command.args(["--redirect", "nft"]).arg(&controller.url);
    let before = children();
    let mut agent = Process(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(200);
    while controller.seen().results.len() < TASKS {
        assert!(Instant::now() < deadline, "not done: {}", scene.log());
        assert!(agent.0.try_wait().unwrap().is_none(), "{}", scene.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.0.id()).unwrap());
    // What the last turn has to clean up.
    std::thread::sleep(Duration::from_millis(200));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    agent.0.wait().unwrap();
    Turns {
        seen: controller.seen(),
        cpu: children().saturating_sub(before),
    }
}

/// What the original runs between a task and its `kvm`, each by a program;
/// without the `sudo` that it puts before most of them.
fn original(scene: &Scene, machine: &str) -> Vec<Duration> {
    let dir = scene.volume().join(machine);
    let from = dir.join(format!("{machine}-default"));
    let to = dir.join(format!("{machine}-default-original"));
    let rule = "PREROUTING -p udp -m udp -m physdev --physdev-in tap1 -d 196.254.111.222 \
                --dport 69 -j DNAT --to-destination 192.168.123.1:40000";
    let sum = |lines: &[String]| lines.iter().map(|l| line(l).0).sum::<Duration>();
    (0..TASKS)
        .map(|_| {
            let took = sum(&[
                format!(
                    "btrfs subvolume snapshot {} {}",
                    from.display(),
                    to.display()
                ),
                format!("iptables -w -t nat -A {rule}"),
                "ip tuntap delete tap1 mode tap".to_owned(),
                "ip tuntap add tap1 mode tap user root".to_owned(),
                "ip link set tap1 up".to_owned(),
                "ip link set tap1 master br1".to_owned(),
            ]);
            sum(&[
                format!("iptables -w -t nat -D {rule}"),
                "ip tuntap delete tap1 mode tap".to_owned(),
                format!("btrfs subvolume delete {}", to.display()),
            ]);
            took
        })
        .collect()
}
