//! A Linux of its own for a test, whose cgroups (v2) have all controllers: the host of the
//! tests may have them in version 1.
//!
//! It is the kernel of the test guest under an emulated QEMU, with the root in memory: the
//! programs of [`Site`], the agent, and the program of the tests.

use std::process::Command;

use super::site::Site;
use super::{TempDir, guest, require, require_programs};

/// Set in there.
const INSIDE: &str = "BBOT_AGENT_TEST_OWN_LINUX";

/// The image of the test guest and its worker, for a test with a real QEMU.
pub const IMAGE: &str = "/disk.img";
pub const WORKER: &str = "/worker";

/// Runs the test that calls it in there, or skips it.
pub fn in_own_linux(test: impl FnOnce()) {
    run(test, None);
}

/// The same with QEMU, its firmware, and what the test guest needs.
pub fn in_own_linux_with_qemu(test: impl FnOnce()) {
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest/worker");
    run(test, Some(worker));
}

fn run(test: impl FnOnce(), worker: Option<&str>) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let programs = [
        "bash",
        "busybox",
        "cpio",
        "dpkg-deb",
        "ip",
        "mkfs.btrfs",
        "nft",
        "strip",
        "timeout",
        "xz",
    ];
    if !require(cfg!(target_arch = "x86_64"), "x86-64") || !require_programs(&programs) {
        return;
    }
    let image = match guest::image() {
        Ok(image) => image,
        Err(why) => return super::skip(why),
    };
    let tests = std::env::current_exe().unwrap();
    let examples = tests.ancestors().nth(2).unwrap().join("examples");
    let instant = examples.join("instant-guest");
    if !require(instant.exists(), "instant-guest (cargo build --examples)") {
        return;
    }
    let dir = TempDir::new();
    let _turn = guest::turn();
    let name = std::thread::current().name().unwrap().to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/own-linux.sh");
    let output = Command::new(script)
        // Where the kernel's package is.
        .arg(image.ancestors().nth(2).unwrap())
        .args([guest::QEMU, INSIDE, &name])
        .args([dir.path(), &tests, &instant, &Site::agent()])
        .args(
            worker
                .map(|worker| [image, worker.as_ref()])
                .iter()
                .flatten(),
        )
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("test result: ok. 1 passed"), "{said}{errors}");
}
