//! From a task to QEMU, and from the result to the controller, with a guest
//! that takes no time.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use bbot_agent::sys::btrfs;

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
    let mut disks = disk(&scene, machine);
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
    disks.extend(disk(&scene, machine));
    let [sync, snapshot] = [0, 1].map(|n| median(disks.iter().map(|d| d[n]).collect()));
    Row::ms("write a small file and sync it (the disk)", sync).done();
    Row::ms(
        "snapshot of the machine, the ioctl alone (the disk)",
        snapshot,
    )
    .done();
    let (executed, theirs) = (median(executed), median(theirs));
    Row::ms("task received to qemu executed", executed)
        .beside_ms("btrfs, iptables, ip", theirs)
        .goal("5 times faster", theirs >= executed * 5)
        .done();
    Row::ms(
        "the same, less a snapshot and a sync",
        executed.saturating_sub(snapshot + sync),
    )
    .under(10.0)
    .done();
    let posted = median(posted);
    Row::ms("last byte of the result to result posted", posted).done();
    Row::ms(
        "the same, less the two syncs that store it",
        posted.saturating_sub(sync * 2),
    )
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

/// What the disk takes for what cannot be done without it: a small file written
/// and synced, and a snapshot, which the kernel returns from when it is on disk.
fn disk(scene: &Scene, machine: &str) -> Vec<[Duration; 2]> {
    let file = scene.path("state/synced");
    let dir = scene.volume().join(machine);
    let from = File::open(dir.join(format!("{machine}-default"))).unwrap();
    let dir = File::open(dir).unwrap();
    let name = c"bench";
    (0..TASKS)
        .map(|_| {
            let start = Instant::now();
            let mut written = File::create(&file).unwrap();
            written.write_all(&[b'x'; guest::LOG]).unwrap();
            written.sync_all().unwrap();
            let synced = start.elapsed();
            fs::remove_file(&file).unwrap();
            let start = Instant::now();
            btrfs::snapshot_create(dir.as_fd(), from.as_fd(), name).unwrap();
            let made = start.elapsed();
            btrfs::subvolume_delete(dir.as_fd(), name).unwrap();
            [synced, made]
        })
        .collect()
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
