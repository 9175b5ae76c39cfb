//! The cgroup of a machine.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use bbot_agent::cgroup::{Cgroups, OutOfMemory};
use bbot_agent::machine::{Event, VirtualMachine};
use nix::libc::SIGKILL;

use super::fake::qemu;
use super::{boot, next, no_tap, soon, spec};
use crate::support::own_linux::in_own_linux;
use crate::support::{TempDir, eventually};

/// The cgroup that is delegated.
const UNIT: &str = "/sys/fs/cgroup/unit";

/// A QEMU that takes 200 MB when the file `go` is there, so many times.
const HOG: &str = "start; while [ ! -e go ]; do sleep 0.05; done; for i in $(cat go); do \
                   dd if=/dev/zero of=/dev/null bs=200M count=1 & done; sleep 100";

#[test]
fn a_cgroup_bounds_a_machine_and_ends_with_it() {
    in_own_linux(bounds);
}

fn bounds() {
    let unit = Path::new(UNIT);
    let group = unit.join("guest-1");
    let read = |path: &Path| fs::read_to_string(path).unwrap();

    // A killed agent has left a process.
    let left = unit.join("guest-7");
    fs::create_dir(&left).unwrap();
    let script = format!("echo $$ >{}/cgroup.procs; exec sleep 1000", left.display());
    let mut sleep = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    let processes = left.join("cgroup.procs");
    eventually("it is there", || !read(&processes).is_empty());
    let cgroups = Cgroups::divide(unit.to_owned()).unwrap();
    assert_eq!(sleep.wait().unwrap().signal(), Some(SIGKILL));
    assert!(!left.exists());
    assert_eq!(read(Path::new("/proc/self/cgroup")), "0::/unit/agent\n");

    let start = |dir: &TempDir, options: &[&str]| -> VirtualMachine {
        let mut spec = spec(dir, &qemu(dir, HOG));
        let options: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
        spec.options = Some(options);
        spec.cgroups = Some(cgroups.clone());
        boot(&spec, no_tap().as_fd(), soon()).unwrap()
    };
    let end = |dir: &TempDir, machine: &mut VirtualMachine, times: &str, cause| {
        fs::write(dir.path().join("machine/go"), times).unwrap();
        let killed = next(machine, soon());
        assert_eq!(killed, Some(Event::OutOfMemory(cause)));
        let Some(Event::Exited { status, .. }) = next(machine, soon()) else {
            panic!("still there");
        };
        assert_eq!(status.signal(), Some(SIGKILL));
    };

    // The limits of a guest with 128 MiB, of which the operator lowers one.
    let dir = TempDir::new();
    let mut machine = start(&dir, &[]);
    assert_eq!(
        read(&group.join("cgroup.procs")).lines().next(),
        Some(&*machine.pid().to_string())
    );
    for (name, value) in [
        ("memory.max", (160 << 20) + (2_u64 << 30)),
        ("memory.oom.group", 1),
        ("pids.max", 1025),
    ] {
        assert_eq!(read(&group.join(name)), format!("{value}\n"), "{name}");
    }
    fs::write(group.join("memory.max"), "64M").unwrap();
    end(&dir, &mut machine, "1", OutOfMemory::Limit(64 << 20));
    let peak = machine.memory_peak().unwrap();
    assert!(((32 << 20)..=(64 << 20)).contains(&peak), "{peak}");
    machine.close().unwrap();
    assert!(!group.exists());

    // The limit of the unit: a guest with other memory has none of its own.
    fs::write(unit.join("memory.max"), "100M").unwrap();
    let dir = TempDir::new();
    let mut machine = start(&dir, &["-m", "8G"]);
    assert_eq!(read(&group.join("memory.max")), "max\n");
    let around = OutOfMemory::Around(unit.to_owned(), 100 << 20);
    end(&dir, &mut machine, "1", around);
    drop(machine);
    assert!(!group.exists());

    // That of the host, which has 768 MB, while the unit's is far and was reached before.
    fs::write(unit.join("memory.max"), "8G").unwrap();
    let dir = TempDir::new();
    let mut machine = start(&dir, &["-m", "8G"]);
    end(&dir, &mut machine, "1 2 3 4", OutOfMemory::Host);
}
