//! MAC addresses that operators give to machines: one guest of a host has each.

use std::fs;
use std::process::Stdio;

use super::super::support::{Process, eventually, isolated, run};
use super::{Host, said};

#[test]
fn agents_for_two_toolchains_do_not_run_one_address_at_once() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let machine = host.volume.path().join("default/linux");
        let copy = machine.join("linux-default").display().to_string();
        let other = machine.join("linux-other").display().to_string();
        run(&format!("btrfs -q subvolume snapshot {copy} {other}"));

        // A guest of the first agent, which is about to start.
        let started = host.path("started");
        let qemu = host.qemu(&format!("touch {}\nexec sleep 1000", started.display()));
        host.drop_task("first");
        let mut agent = host.agent(&["--once", &qemu, &host.spool()]);
        agent.env("PATH", std::env::var_os("PATH").unwrap());
        let mut first = Process(agent.stderr(Stdio::null()).spawn().unwrap());
        eventually("the guest starts", || started.exists());

        for dir in ["others/tasks", "others/results"] {
            fs::create_dir_all(host.path(dir)).unwrap();
        }
        let task = host.path("others/tasks/second.manifest");
        fs::write(&task, super::TASK).unwrap();
        let others = host.path("others").display().to_string();
        let words = ["--toolchain-name=other", "--fake-build", "--once", &others];
        let output = host.run(&words);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(said(&output), "");
        assert!(task.exists());

        // Another instance has another address.
        let output = host.run(&[&words[..], &["--instance=2"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(host.path("others/results/second.manifest").exists());

        // The address is free with its agent, however that ends.
        fs::write(&task, super::TASK).unwrap();
        fs::remove_file(host.path("others/results/second.manifest")).unwrap();
        first.kill();
        let output = host.run(&words);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(host.path("others/results/second.manifest").exists());
    });
}
