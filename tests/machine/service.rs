//! The agent in a cgroup that was delegated to it, as by a unit with `Delegate=`: what it
//! says of the memory of its guests.

use std::ffi::CStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use bbot_agent::status;
use nix::libc;

use crate::support::host::{Ran, TURN, finish};
use crate::support::own_linux::{IMAGE, WORKER, in_own_linux, in_own_linux_with_qemu};
use crate::support::site::Site;
use crate::support::within;

/// The cgroup of the agent.
const SERVICE: &str = "/sys/fs/cgroup/agent.service";

/// Marks a cgroup as delegated, as systemd does.
#[allow(unsafe_code)]
fn delegate(cgroup: &Path) {
    let mut path = cgroup.as_os_str().as_bytes().to_vec();
    path.push(0);
    let path = CStr::from_bytes_with_nul(&path).unwrap();
    let (name, value) = (c"user.delegate", c"1");
    // SAFETY: strings that end with a null byte, of which the last one has a byte before it.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), 1, 0) };
    nix::errno::Errno::result(set).unwrap();
}

/// A turn of the agent in that cgroup, which is made anew with this limit of memory and
/// goes with the turn.
fn turn(site: &Site, limit: &str, words: &[&str]) -> Ran {
    let service = Path::new(SERVICE);
    fs::create_dir(service).unwrap();
    delegate(service);
    fs::write(service.join("memory.max"), limit).unwrap();
    let mut command = Command::new("sh");
    let enter = format!("echo $$ >{SERVICE}/cgroup.procs; exec \"$0\" \"$@\"");
    command.args(["-c", &enter]).arg(Site::agent());
    command.args(site.arguments()).args(words);
    command.arg("--metrics").arg(site.path("metrics"));
    let ran = finish(command, TURN * 5);
    // Those of guests are gone.
    fs::remove_dir(service.join("agent")).unwrap();
    fs::remove_dir(service).unwrap();
    ran
}

/// The memory of the last task, in the metrics and in the line of the result.
#[track_caller]
fn peak(site: &Site, ran: &Ran) -> u64 {
    let metrics = fs::read_to_string(site.path("metrics")).unwrap();
    let line = "bbot_agent_last_task_memory_peak_bytes{toolchain=\"default\",instance=\"1\"} ";
    let peak = metrics.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    let peak = peak.parse().unwrap();
    let memory = format!(", memory {})\n", status::bytes(peak));
    assert!(ran.err.contains(&memory), "{}", ran.err);
    peak
}

#[test]
fn an_agent_under_a_unit_tells_the_memory_of_its_guests() {
    in_own_linux(|| {
        let Some(site) = Site::new() else { return };
        // QEMU takes so many MB before it greets, and so many when the guest runs.
        let qemu = site.path("qemu");
        let take = |count: &str| {
            let taken = site.path(count).display().to_string();
            format!("dd if=/dev/zero of=/dev/null bs=$(cat {taken})M count=1 2>/dev/null")
        };
        let (first, then) = (take("first"), take("then"));
        let text = fs::read_to_string(&qemu).unwrap();
        let text = text.replace("\nexec ", &format!("\n{first}\n(sleep 1; {then}) &\nexec "));
        fs::write(&qemu, text).unwrap();
        let takes = |first: u32, then: u32| {
            fs::write(site.path("first"), first.to_string()).unwrap();
            fs::write(site.path("then"), then.to_string()).unwrap();
        };

        takes(40, 1);
        site.task("one");
        let ran = turn(&site, "max", &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let peak = peak(&site, &ran);
        assert!(((40 << 20)..(80 << 20)).contains(&peak), "{peak}");

        // At the limit of the unit: a guest that has its task, and one that does not run yet.
        let cause = "the kernel killed qemu, because agent.service had reached its memory limit \
                     (MemoryMax=): 100.0 MiB";
        takes(1, 200);
        site.task_for("controller", "two", "target-config: pause=30000\n");
        let ran = turn(&site, "100M", &["--build-timeout", "60"]);
        assert!(ran.err.contains(cause), "{}", ran.err);
        assert!(site.result("two").unwrap().contains("status: abort"));
        takes(200, 1);
        site.task("three");
        let ran = turn(&site, "100M", &["--build-timeout", "60"]);
        assert!(ran.err.contains(cause), "{}", ran.err);
        assert_eq!(site.result("three"), None);
        // The agent gave that one back, and goes on.
        takes(1, 1);
        let ran = turn(&site, "100M", &["--build-timeout", "60"]);
        let result = site.result("three").expect(&ran.err);
        assert!(result.contains("status: success"), "{result}");
    });
}

#[test]
#[ignore = "a real guest in an emulated host takes minutes: make torture"]
fn a_real_qemu_at_its_limit_is_killed_and_the_limit_named() {
    in_own_linux_with_qemu(|| {
        let Some(site) = Site::new() else { return };
        fs::copy(IMAGE, site.machine().join("linux-1.0/disk.img")).unwrap();
        fs::copy(WORKER, site.path("tftp/toolchain/default/worker")).unwrap();
        let words = "--qemu qemu-system-x86_64 --bootstrap-startup 400 --bootstrap-timeout 400 \
                     --bootstrap-shutdown 400 --build-startup 400 --build-timeout 400";
        let words: Vec<&str> = words.split(' ').collect();
        site.task("one");
        let ran = turn(&site, "max", &words);
        let result = site.result("one").expect(&ran.err);
        assert!(result.contains("status: success"), "{result}");
        let peak = peak(&site, &ran);
        assert!(((64 << 20)..(512 << 20)).contains(&peak), "{peak}");

        // The operator lowers the limit of the guest while it runs.
        let group = Path::new(SERVICE).join("guest-1");
        site.task("two");
        let ran = std::thread::scope(|scope| {
            let ran = scope.spawn(|| turn(&site, "max", &words));
            within(TURN, "the guest has memory", || {
                let current = fs::read_to_string(group.join("memory.current"));
                current.is_ok_and(|text| text.trim().parse::<u64>().unwrap() > 96 << 20)
            });
            fs::write(group.join("memory.max"), "48M").unwrap();
            ran.join().unwrap()
        });
        let cause = "the kernel killed qemu, which had reached the memory limit of its cgroup: 48.0 \
                     MiB";
        assert!(ran.err.contains(cause), "{}", ran.err);
        assert_eq!(site.result("two"), None);
    });
}
