//! Snapshots on a real btrfs file system.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bbot_agent::error::Class;
use bbot_agent::snapshot::{self, Snapshot};
use bbot_agent::sweep::{self, SweepSettings};
use bbot_agent::sys::flock::{How, Locked};
use nix::libc;

use crate::support::btrfs::{Volume, subvolume};
use crate::support::{eventually, isolated};

/// A machine directory with a revision in it, as an operator makes it.
fn machine(volume: &Volume) -> (PathBuf, PathBuf) {
    let dir = volume.path().join("linux-gcc");
    fs::create_dir(&dir).unwrap();
    let revision = subvolume(&dir.join("linux-gcc-1.0"));
    fs::write(revision.join("manifest"), ": 1\nid: linux-gcc-1.0\n").unwrap();
    symlink("linux-gcc-1.0", dir.join("linux-gcc-1")).unwrap();
    (dir, revision)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn on_btrfs(test: impl FnOnce(&Volume) + Send) {
    isolated(|| {
        if let Some(volume) = Volume::new(256) {
            test(&volume);
        }
    });
}

#[test]
fn the_space_of_a_snapshot_is_what_it_does_not_share() {
    on_btrfs(|volume| {
        let (dir, revision) = machine(volume);
        let disk = vec![7; 4 << 20];
        fs::write(revision.join("disk.img"), disk).unwrap();
        let scratch = Snapshot::scratch(&revision, &dir.join("linux-gcc-a")).unwrap();
        let bytes = || snapshot::exclusive_bytes(scratch.path()).unwrap();
        let manifest = bytes();
        assert!(manifest <= 4096, "{manifest}");
        let disk = scratch.path().join("disk.img");
        let disk = File::options().write(true).open(disk).unwrap();
        // More extents than one call returns.
        for number in 0..300 {
            disk.write_all_at(&[8; 4096], number * 12_288).unwrap();
        }
        assert_eq!(bytes(), manifest + 300 * 4096);
    });
}

#[test]
fn a_snapshot_is_writable_and_goes_when_dropped() {
    on_btrfs(|volume| {
        let (dir, revision) = machine(volume);
        let before = names(&dir);
        let snapshot =
            Snapshot::scratch(&dir.join("linux-gcc-1"), &dir.join("linux-gcc-a")).unwrap();
        let path = snapshot.path().to_owned();
        assert!(snapshot::is_subvolume(&path).unwrap());
        assert!(!snapshot::is_subvolume(&dir.join("linux-gcc-1")).unwrap());
        fs::write(path.join("manifest"), "changed").unwrap();
        let original = fs::read_to_string(revision.join("manifest")).unwrap();
        assert_eq!(original, ": 1\nid: linux-gcc-1.0\n");
        drop(snapshot);
        assert_eq!(names(&dir), before);
    });
}

#[test]
fn a_kept_snapshot_is_read_only_and_survives() {
    on_btrfs(|volume| {
        let (dir, revision) = machine(volume);
        let target = dir.join("linux-gcc-a");
        let snapshot = Snapshot::scratch(&revision, &target).unwrap();
        fs::write(snapshot.path().join("manifest"), "new").unwrap();
        snapshot.keep(&target).unwrap();
        assert_eq!(names(&dir), ["linux-gcc-1", "linux-gcc-1.0", "linux-gcc-a"]);
        assert_eq!(fs::read_to_string(target.join("manifest")).unwrap(), "new");
        let error = fs::write(target.join("x"), "").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        // And a copy of it is writable again.
        let copy = Snapshot::scratch(&target, &target).unwrap();
        fs::write(copy.path().join("x"), "").unwrap();
        copy.close().unwrap();
        snapshot::set_read_only(&target, false).unwrap();
        fs::write(target.join("x"), "").unwrap();
    });
}

#[test]
fn what_is_kept_takes_the_place_of_the_old_without_a_gap() {
    on_btrfs(|volume| {
        let (dir, revision) = machine(volume);
        let target = dir.join("linux-gcc-a");
        Snapshot::scratch(&revision, &target)
            .unwrap()
            .keep(&target)
            .unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut looks = 0_u32;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(target.join("manifest").exists(), "there was neither");
                    looks += 1;
                }
                looks
            });
            for n in 0..10 {
                let snapshot = Snapshot::scratch(&revision, &target).unwrap();
                fs::write(snapshot.path().join("manifest"), n.to_string()).unwrap();
                snapshot.keep(&target).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(watcher.join().unwrap() > 0);
        });
        assert_eq!(fs::read_to_string(target.join("manifest")).unwrap(), "9");
        assert_eq!(names(&dir), ["linux-gcc-1", "linux-gcc-1.0", "linux-gcc-a"]);
    });
}

#[test]
fn an_operators_directory_is_not_replaced() {
    on_btrfs(|volume| {
        let (dir, revision) = machine(volume);
        let target = dir.join("linux-gcc-a");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("precious"), "").unwrap();
        let before = names(&dir);
        let snapshot = Snapshot::scratch(&revision, &target).unwrap();
        let error = snapshot.keep(&target).unwrap_err();
        assert!(error.to_string().contains("not a subvolume"), "{error}");
        assert_eq!(names(&dir), before);
        assert!(target.join("precious").exists());
        let error = snapshot::delete(&target).unwrap_err();
        assert!(
            error.to_string().contains("not a btrfs subvolume"),
            "{error}"
        );
        assert!(target.join("precious").exists());
    });
}

#[test]
fn a_name_that_is_taken_is_an_error_and_not_a_place_inside() {
    on_btrfs(|volume| {
        let (dir, revision) = machine(volume);
        let target = subvolume(&dir.join("linux-gcc-a"));
        let error = Snapshot::create(&revision, &target).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EEXIST));
        assert_eq!(names(&target), [""; 0]);
    });
}

#[test]
fn a_read_only_subvolume_and_one_with_open_files_are_deleted() {
    on_btrfs(|volume| {
        let (dir, revision) = machine(volume);
        let target = dir.join("linux-gcc-a");
        Snapshot::scratch(&revision, &target)
            .unwrap()
            .keep(&target)
            .unwrap();
        let open = File::open(target.join("manifest")).unwrap();
        snapshot::delete(&target).unwrap();
        snapshot::delete(&target).unwrap();
        assert!(!target.exists());
        drop(open);
        snapshot::sync(volume.path()).unwrap();
        eventually("the cleaner has been there", || {
            snapshot::cleaner_backlog(volume.path())
                .unwrap()
                .unwrap_or(0)
                == 0
        });
    });
}

#[test]
fn a_missing_source_keeps_its_errno_for_the_retry() {
    on_btrfs(|volume| {
        let (dir, _) = machine(volume);
        let error =
            Snapshot::scratch(&dir.join("linux-gcc-1.1"), &dir.join("linux-gcc-a")).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(error.to_string().contains("linux-gcc-1.1"), "{error}");
    });
}

#[test]
fn a_plain_directory_is_no_source() {
    on_btrfs(|volume| {
        let (dir, _) = machine(volume);
        let plain = volume.path().join("plain");
        fs::create_dir(&plain).unwrap();
        let error = Snapshot::create(&plain, &dir.join("x")).unwrap_err();
        assert!(
            error.to_string().contains("not a btrfs subvolume"),
            "{error}"
        );
        assert!(
            error
                .hints()
                .any(|hint| hint.contains("btrfs subvolume create"))
        );
    });
}

#[test]
fn elsewhere_than_on_btrfs_is_explained() {
    isolated(|| {
        let dir = crate::support::TempDir::new();
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, none).unwrap();
        let source = dir.path().join("a");
        fs::create_dir(&source).unwrap();
        let error = Snapshot::create(&source, &dir.path().join("b")).unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert!(
            error.to_string().contains("not on a btrfs file system"),
            "{error}"
        );
        nix::mount::umount(dir.path()).unwrap();
    });
}

#[test]
fn a_full_file_system_is_explained_and_leaves_nothing() {
    isolated(|| {
        let Some(volume) = Volume::new(110) else {
            return;
        };
        let (dir, revision) = machine(&volume);
        let before = names(&dir);
        let target = dir.join("linux-gcc-a");
        let snapshot = Snapshot::scratch(&revision, &target).unwrap();
        // Data that does not fit is refused when written, or when synced.
        let filled = fs::write(snapshot.path().join("disk"), vec![7; 200 << 20]);
        let kept = snapshot.keep(&target);
        let full = |errno: Option<i32>| errno == Some(libc::ENOSPC);
        assert!(
            filled.is_err_and(|e| full(e.raw_os_error())) || kept.is_err_and(|e| full(e.errno()))
        );
        if target.exists() {
            snapshot::delete(&target).unwrap();
        }
        assert_eq!(names(&dir), before);
    });
}

#[test]
fn space_is_that_of_the_volume() {
    on_btrfs(|volume| {
        let space = snapshot::space(volume.path()).unwrap();
        assert_eq!(space.total, 256 << 20);
        assert!(space.available > 0 && space.available < space.total);
    });
}

#[test]
fn a_lock_on_the_subvolume_says_that_its_owner_lives() {
    on_btrfs(|volume| {
        use nix::fcntl::{Flock, FlockArg};
        let (dir, revision) = machine(volume);
        let snapshot = Snapshot::scratch(&revision, &dir.join("linux-gcc-a")).unwrap();
        let try_lock = || {
            let root = File::open(snapshot.path()).unwrap();
            Flock::lock(root, FlockArg::LockExclusiveNonblock).is_ok()
        };
        assert!(!try_lock());
        assert!(snapshot::is_scratch(
            snapshot.path().file_name().unwrap(),
            "linux-gcc-a".as_ref()
        ));
    });
}

#[test]
fn a_snapshot_waits_while_the_directory_is_swept_but_not_for_ever() {
    on_btrfs(|volume| {
        let (dir, revision) = machine(volume);
        let target = dir.join("linux-gcc-a");
        let sweep = || {
            let directory = File::open(&dir).unwrap();
            Locked::take(directory, How::TryExclusive).unwrap()
        };

        let mut held = Some(sweep());
        let mut pauses = 0;
        let snapshot = Snapshot::scratch_in_turn(&revision, &target, &mut |_| {
            pauses += 1;
            if pauses == 3 {
                held.take();
            }
            true
        });
        assert_eq!(pauses, 3);
        snapshot.unwrap().unwrap().close().unwrap();

        // Whoever waits may be told not to.
        let held = sweep();
        let given_up = Snapshot::scratch_in_turn(&revision, &target, &mut |_| false);
        assert!(given_up.unwrap().is_none());

        let mut waited = Duration::ZERO;
        let error = Snapshot::scratch_in_turn(&revision, &target, &mut |pause| {
            waited += pause;
            true
        })
        .unwrap_err();
        assert!(waited >= Duration::from_secs(30), "{waited:?}");
        assert!(waited < Duration::from_secs(40), "{waited:?}");
        let ours = std::process::id();
        assert_eq!(
            error.to_string(),
            format!(
                "unable to snapshot {}: process {ours} has {} locked for more than 30 seconds",
                revision.display(),
                dir.display()
            )
        );
        drop(held);
    });
}

#[test]
fn the_state_of_a_failed_guest_goes_with_its_evidence() {
    on_btrfs(|volume| {
        let dir = volume.path().join("v/a-b");
        fs::create_dir_all(&dir).unwrap();
        let revision = subvolume(&dir.join("a-b-1.0"));
        fs::write(revision.join("manifest"), "").unwrap();
        let config = |toolchain: &str| SweepSettings {
            machines: volume.path().to_owned(),
            tftp: volume.path().join("tftp"),
            run_dir: volume.path().join("run"),
            failed: volume.path().join("failed"),
            toolchain: toolchain.to_owned(),
            owner: format!("{toolchain}-1"),
            instance: 1,
            warm: Vec::new(),
        };
        let scratch = Snapshot::scratch(&revision, &dir.join("a-b-a")).unwrap();
        let evidence = volume.path().join("failed/20260101T000000Z-a-b");
        let state = Snapshot::of_failed(scratch.path(), &evidence, &["manifest"]).unwrap();
        let path = state.path().to_owned();
        scratch.close().unwrap();
        assert!(!path.join("manifest").exists());
        let found = || sweep::find(&config("a"), None);
        // Its evidence is about to be stored.
        assert_eq!(found(), []);
        fs::create_dir_all(&evidence).unwrap();
        state.leave();
        assert_eq!(found(), []);
        fs::remove_dir(&evidence).unwrap();
        let litter = found();
        let reason = "state of a failed guest whose evidence is gone";
        assert_eq!(
            litter[0].to_string(),
            format!("{}: {reason}", path.display())
        );
        assert_eq!(litter.len(), 1);
        assert_eq!(sweep::find(&config("b"), None), []);
        // It was stored since.
        fs::create_dir(&evidence).unwrap();
        litter[0].remove().unwrap();
        assert!(path.exists());
        fs::remove_dir(&evidence).unwrap();
        litter[0].remove().unwrap();
        assert!(!path.exists());
    });
}
