//! Disks of the host that are full under a guest: no fault of the package's.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::host::{Ran, TURN, finish};
use crate::support::site::Site;
use crate::support::{isolated, run};

/// A turn of the agent, with these further words.
fn turn(site: &Site, words: &[&str]) -> Ran {
    let mut command = Command::new(Site::agent());
    command.args(site.arguments()).args(words);
    command.stdin(Stdio::null());
    finish(command, TURN)
}

#[test]
fn uploads_that_find_no_room_are_the_hosts_fault() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        // Bootstraps the machine.
        assert_eq!(turn(&site, &[]).code, Some(0));
        let build = site.path("tftp/build");
        fs::create_dir_all(&build).unwrap();
        run(&format!(
            "mount -t tmpfs -o size=64k none {}",
            build.display()
        ));
        let mut ballast = fs::File::create(build.join("ballast")).unwrap();
        while ballast.write_all(&[7; 4096]).is_ok() {}
        site.task("t");
        let ran = turn(&site, &["--build-timeout", "2"]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        let told = "unable to store upload manifest of machine ";
        assert_eq!(ran.err.matches(told).count(), 1, "{}", ran.err);
        let result = site.result("t").unwrap().replace("\\\n", "");
        assert!(result.contains("status: abort"), "{result}");
        assert!(
            result.contains("the host could not store what the guest uploaded (disk full)"),
            "{result}"
        );
    });
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
