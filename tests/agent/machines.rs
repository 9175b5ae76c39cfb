//! Machines: which are used, which are left alone, which are made anew.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::host::Host;
use crate::support::{TempDir, isolated, run};

#[test]
fn one_broken_machine_stops_neither_the_others_nor_the_agent() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("good", "");
        // A directory where the link should be, a revision without a manifest,
        // one with a manifest that is none, a link to nothing.
        fs::create_dir_all(host.machine("dir/dir-1")).unwrap();
        let revision = host.revision("empty", 0);
        fs::remove_file(revision.join("manifest")).unwrap();
        let revision = host.revision("garbage", 0);
        fs::write(revision.join("manifest"), "\u{1b}garbage\n").unwrap();
        fs::create_dir_all(host.machine("gone")).unwrap();
        symlink("gone-1.7", host.machine("gone/gone-1")).unwrap();

        let ran = host.run(&["--dump-machines"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(
            ran.out,
            ": 1\nid: good-1.0\nname: good\nsummary: Linux with GCC\n"
        );
        for said in [
            "unable to read subvolume link ",
            "empty-1.0/manifest: No such file",
            "invalid machine manifest: ",
            "gone-1.7/manifest: No such file",
        ] {
            assert_eq!(ran.err.matches(said).count(), 1, "{said}: {}", ran.err);
        }
        assert!(!ran.err.contains('\u{1b}'));
    });
}

#[test]
fn the_copy_of_a_retired_machine_is_deleted() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("old", "");
        run(&format!(
            "btrfs property set -ts {} ro true",
            host.machine("old/old-default").display()
        ));
        fs::remove_file(host.machine("old/old-1")).unwrap();
        let ran = host.run(&["--once"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(host.subvolumes("old"), ["old-1.0"]);
        assert!(ran.err.contains("the machine was retired"), "{}", ran.err);
    });
}

#[test]
fn a_copy_that_is_newer_than_expected_is_left_alone() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("m", "");
        let ran = host.run(&[
            "--dump-machines",
            "--bootstrap-version",
            "bbot=0.16.0",
            "--verbose",
            "3",
        ]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{}", ran.err);
        assert!(
            ran.err.contains("its bbot is newer than expected"),
            "{}",
            ran.err
        );
        assert_eq!(host.subvolumes("m"), ["m-1", "m-1.0", "m-default"]);
    });
}

#[test]
fn a_new_revision_takes_the_place_of_the_old_copy_and_keeps_its_address() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("m", "");
        let revision = host.revision("m", 1);
        crate::support::guest::install(&revision, "");
        let ran = host.run(&["--dump-machines", "--verbose", "3"]);
        assert_eq!(
            ran.out, ": 1\nid: m-1.1\nname: m\nsummary: Linux with GCC\n",
            "{}",
            ran.err
        );
        assert!(
            ran.err.contains("is to be bootstrapped: new machine"),
            "{}",
            ran.err
        );
        let manifest = fs::read_to_string(host.machine("m/m-default/manifest")).unwrap();
        assert!(
            manifest.contains("\nmac: 52:54:00:00:01:02\n"),
            "{manifest}"
        );
        assert_eq!(host.subvolumes("m"), ["m-1", "m-1.0", "m-1.1", "m-default"]);
    });
}

#[test]
fn a_host_without_a_bridge_is_told_what_to_type_before_anything_starts() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add("m", "");
        let ran = host.run(&["--once", "--bridge", "br7"]);
        assert!(ran.err.contains("br7"), "{}", ran.err);
        assert!(ran.err.contains("info: "), "{}", ran.err);
        assert_eq!(host.subvolumes("m"), ["m-1", "m-1.0"]);
    });
}

#[test]
fn a_host_that_was_never_set_up_is_told_of_check() {
    isolated(|| {
        let dir = TempDir::new();
        let output = Command::new(env!("CARGO_BIN_EXE_bbot-agent"))
            .args(["--once", "--bridge", "br7", "--run-dir"])
            .arg(dir.path().join("run"))
            .arg("--state")
            .arg(dir.path().join("state"))
            .arg(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("no bridge br7"), "{said}");
        assert!(said.contains("bbot-agent --check"), "{said}");
    });
}

#[test]
fn a_turn_whose_only_machine_fails_to_start_is_a_failure() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let revision = host.revision("m", 0);
        let manifest = fs::read_to_string(revision.join("manifest")).unwrap();
        fs::write(revision.join("manifest"), manifest + "options: -nonsense\n").unwrap();
        let ran = host.run(&["--once"]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains("-nonsense"), "{}", ran.err);
    });
}

#[test]
fn a_machine_that_does_not_fit_or_has_another_name_is_left_out_with_the_reason() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("good", "");
        for (name, value, said) in [
            (
                "large",
                "ram-minimum: 999999999\n",
                "999999999 kB of memory",
            ),
            ("aux", "role: auxiliary\n", "its role is auxiliary"),
        ] {
            let revision = host.revision(name, 0);
            let manifest = fs::read_to_string(revision.join("manifest")).unwrap();
            fs::write(revision.join("manifest"), manifest + value).unwrap();
            let ran = host.run(&["--dump-machines", "--verbose", "3"]);
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            assert!(ran.err.contains(said), "{}", ran.err);
            assert_eq!(ran.out.matches("name: ").count(), 1, "{}", ran.out);
        }
        let revision = host.revision("named", 0);
        let manifest = fs::read_to_string(revision.join("manifest")).unwrap();
        let other = manifest.replace("name: named", "name: other");
        fs::write(revision.join("manifest"), other).unwrap();
        let ran = host.run(&["--dump-machines"]);
        assert!(
            ran.err.contains("it is that of a machine other"),
            "{}",
            ran.err
        );
    });
}

#[test]
fn a_volume_that_is_not_btrfs_keeps_no_other_machine_from_being_offered() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("good", "");
        let root = host.machine("good");
        let other = root.ancestors().nth(2).unwrap().join("other");
        fs::create_dir_all(&other).unwrap();
        run(&format!("mount -t tmpfs tmpfs {}", other.display()));
        let revision = other.join("bad/bad-1.0");
        fs::create_dir_all(&revision).unwrap();
        let manifest = ": 1\nid: bad-1.0\nname: bad\nsummary: Bad\ntype: kvm\n";
        fs::write(revision.join("manifest"), manifest).unwrap();
        fs::write(revision.join("disk.img"), "disk").unwrap();
        symlink("bad-1.0", other.join("bad/bad-1")).unwrap();
        let ran = host.run(&["--dump-machines"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains("name: good\n"), "{}", ran.out);
        let said = ran.err.matches("not on a btrfs file system").count();
        assert_eq!(said, 1, "{}", ran.err);
    });
}
