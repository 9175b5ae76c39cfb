//! The host fails while a guest works.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::host::{TURN, finish};
use crate::support::site::Site;
use crate::support::{Process, eventually, guest, isolated, run, within};

/// Starts an agent whose guest takes its task and does nothing then.
fn stalled(site: &Site, task: &str, timeout: &str) -> Process {
    site.task(task);
    let log = fs::File::create(site.path("log")).unwrap();
    let mut command = Command::new(Site::agent());
    command
        .args(site.arguments())
        .args(["--build-timeout", timeout]);
    let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
    let process = Process(child);
    eventually("the guest has its task", || site.has_busy_guest());
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
            let mut process = stalled(&site, task, "1");
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

#[test]
fn a_bridge_that_is_replaced_under_a_guest_is_noticed_within_seconds() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        fs::write(site.machine().join("linux-1.0/pause"), "600000").unwrap();
        let mut process = stalled(&site, "one", "600");
        run("ip link del br1");
        guest::bridge("br1");
        within(Duration::from_secs(30), "the end of the turn", || {
            process.0.try_wait().unwrap().is_some()
        });
        let log = fs::read_to_string(site.path("log")).unwrap();
        assert!(log.contains("the bridge br1 was deleted"), "{log}");
        assert_eq!(site.result("one"), None, "{log}");
        assert!(site.path("controller/tasks/one.manifest").exists(), "{log}");
    });
}

#[test]
fn agents_with_one_tftp_directory_leave_each_others_uploads_alone() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        fs::write(site.machine().join("linux-1.0/pause"), "600000").unwrap();
        // With an address of its own the machine would be left to the first agent.
        let manifest = site.machine().join("linux-1.0/manifest");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("mac: 52:54:00:00:01:02\n", "")).unwrap();
        let mut first = stalled(&site, "one", "600");
        let uploads = site.path("tftp/build/default-1/put");
        assert!(uploads.exists());
        site.task("two");
        let mut command = Command::new(Site::agent());
        command.args(site.arguments());
        for name in ["run", "state"] {
            let option = if name == "run" {
                "--run-dir"
            } else {
                "--state"
            };
            command
                .arg(option)
                .arg(site.path(&format!("second-{name}")));
        }
        let ran = finish(command, TURN);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        let text = format!(
            "another agent of this toolchain and instance uses it (pid {})",
            first.0.id()
        );
        assert!(ran.err.contains(&text), "{}", ran.err);
        assert!(ran.err.contains("another --instance"), "{}", ran.err);
        assert!(uploads.exists());
        assert!(site.path("controller/tasks/two.manifest").exists());

        // Without its agent the directory is litter.
        first.kill();
        let mut command = Command::new(Site::agent());
        command.args(site.arguments()).arg("--build-timeout=1");
        let ran = finish(command, TURN);
        let text = "default-1: tftp directory of a dead agent";
        assert!(ran.err.contains(text), "{}", ran.err);
        assert!(!uploads.exists());
    });
}
