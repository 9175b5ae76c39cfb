//! Disks of the host that are full under a guest: no fault of the package's.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::host::{Ran, TURN, finish};
use crate::support::site::Site;
use crate::support::isolated;

/// A turn of the agent, with these further words.
fn turn(site: &Site, words: &[&str]) -> Ran {
    let mut command = Command::new(Site::agent());
    command.args(site.arguments()).args(words);
    command.stdin(Stdio::null());
    finish(command, TURN)
}

#[test]
fn a_guest_that_waits_for_room_for_longer_than_its_limit_is_given_the_time() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        // Four times two seconds, and the limit is five.
        fs::write(site.machine().join("linux-1.0/lacks"), "4").unwrap();
        site.task("t");
        let ran = turn(&site, &["--verbose", "3"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.err.contains("waits for space"), "{}", ran.err);
        let result = site.result("t").unwrap();
        assert!(result.contains("status: success"), "{result}{}", ran.err);
    });
}
