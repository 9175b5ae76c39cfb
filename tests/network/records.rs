//! Records of rules of `iptables`, and programs of that name that fail.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bbot_agent::network::{
    Bridge, Netfilter, Redirect, RedirectKind, Tap, Target, remove_recorded,
};

use super::{mac, with_bridge};
use crate::support::{TempDir, require_programs, run};

/// A record of two rules that `script` stands in for iptables with.
fn record(dir: &Path, script: &str) -> PathBuf {
    let program = dir.join("iptables");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let record = dir.join("bb-1.iptables");
    let rules = "filter INPUT -j DROP\nnat PREROUTING -j DROP\n";
    fs::write(&record, format!("{}\n{rules}", program.display())).unwrap();
    record
}

#[test]
fn rules_that_may_still_be_there_stay_recorded() {
    let dir = TempDir::new();
    let script = "echo 'Another app is currently holding the xtables lock.' >&2; exit 4";
    let busy = record(dir.path(), script);
    let error = remove_recorded(&busy).unwrap_err();
    assert!(error.to_string().contains("xtables lock"), "{error}");
    assert!(busy.exists());
    // The program is gone: nobody knows.
    fs::remove_file(dir.path().join("iptables")).unwrap();
    remove_recorded(&busy).unwrap_err();
    assert!(busy.exists());
    // It says that they are not there.
    let gone = record(dir.path(), "exit 1");
    assert!(remove_recorded(&gone).unwrap());
    assert!(!gone.exists());
}

#[test]
fn a_program_that_hangs_is_not_waited_for() {
    let dir = TempDir::new();
    // Its child keeps the standard error open.
    let hangs = record(dir.path(), "sleep 60; exit 1");
    let start = Instant::now();
    let error = remove_recorded(&hangs).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(30), "{error}");
    assert!(error.to_string().contains("seconds"), "{error}");
    assert!(hangs.exists());
}

#[test]
fn a_record_that_is_there_is_not_written_over() {
    with_bridge(|bridge| {
        if !require_programs(&["iptables"]) {
            return;
        }
        run("ip link set br1 type bridge nf_call_iptables 1");
        let bridge = &Bridge::probe(bridge.name.as_str()).unwrap();
        let strategy = Redirect::probe(RedirectKind::Iptables, bridge).unwrap();
        let dir = TempDir::new();
        let record = record(dir.path(), "exit 4");
        let before = fs::read_to_string(&record).unwrap();
        let tap = Tap::open(bridge, "bb-1").unwrap();
        let target = Target {
            bridge,
            tap: &tap,
            mac: Some(mac(1)),
            server: "192.168.123.1:4000".parse().unwrap(),
            owner: "test-1",
            records: dir.path(),
            netfilter: &Netfilter::default(),
        };
        let error = Redirect::install(&strategy, &target).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::EEXIST), "{error}");
        assert_eq!(fs::read_to_string(&record).unwrap(), before);
    });
}
