//! The host fails while a guest works.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::site::Site;
use crate::support::{Process, eventually, guest, isolated, run};

/// Starts an agent whose guest takes its task and does nothing then.
fn stalled(site: &Site, task: &str) -> Process {
    site.task(task);
    let log = fs::File::create(site.path("log")).unwrap();
    let mut command = Command::new(Site::agent());
    command
        .args(site.arguments())
        .args(["--build-timeout", "1"]);
    let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
    let works = || {
        let snapshots = fs::read_dir(site.machine()).unwrap();
        let mut paths = snapshots.map(|entry| entry.unwrap().path().join("pausing"));
        paths.any(|path| path.exists())
    };
    let process = Process(child);
    eventually("the guest has its task", works);
    process
}

/// The name of a task, what happens while its guest works, a part of the message, and
/// the remedy.
type Fault<'a> = (&'a str, &'a dyn Fn(), &'a str, &'a dyn Fn());

#[test]
fn a_host_that_fails_under_a_guest_aborts_nothing() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        fs::write(site.machine().join("linux-1.0/pause"), "60000").unwrap();

        let tftp = site.path("tftp");
        let moved: PathBuf = site.path("moved");
        let faults: [Fault<'_>; 3] = [
            (
                "down",
                &|| drop(run("ip link set br1 down")),
                "bridge br1 is down",
                &|| drop(run("ip link set br1 up")),
            ),
            (
                "deleted",
                &|| drop(run("ip link del br1")),
                "no bridge br1",
                &|| guest::bridge("br1"),
            ),
            (
                "removed",
                &|| fs::rename(&tftp, &moved).unwrap(),
                "no TFTP directory",
                &|| fs::rename(&moved, &tftp).unwrap(),
            ),
        ];
        for (task, fail, said, mend) in faults {
            let mut process = stalled(&site, task);
            fail();
            let code = process.0.wait().unwrap().code();
            mend();
            let log = fs::read_to_string(site.path("log")).unwrap();
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains(said), "{log}");
            assert_eq!(site.result(task), None, "{log}");
            let manifest = format!("controller/tasks/{task}.manifest");
            assert!(site.path(&manifest).exists(), "{log}");
            fs::remove_file(site.path(&manifest)).unwrap();
        }
    });
}
