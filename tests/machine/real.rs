//! Real QEMU, real guests, on a real tap.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bbot_agent::machine::accel::{self, ProbeResult};
use bbot_agent::machine::{Accel, Event, ShutdownReason, Spec, VirtualMachine};
use bbot_agent::network::{Bridge, Tap};
use bbot_agent::settings::AccelChoice;
use bbot_agent::sys::process::Credentials;

use super::{LONG, boot, next, no_tap, soon, spec, wait, wait_for, wait_for_console};
use crate::support::{TempDir, eventually, guest, isolated, require_programs, run, skip};

/// Runs `test` with a guest that plays `settings`, on a tap of its own network.
fn with_guest(
    settings: &str,
    change: impl FnOnce(&mut Spec) + Send,
    test: impl FnOnce(&mut VirtualMachine) + Send,
) {
    isolated(|| {
        if let Err(why) = guest::image() {
            return skip(why);
        }
        let _turn = guest::turn();
        let dir = TempDir::new();
        let mut spec = spec(&dir, Path::new(guest::QEMU));
        guest::install(&spec.directory, settings);
        guest::bridge("br1");
        let tap = Tap::open(&Bridge::probe("br1").unwrap(), "bb1").unwrap();
        change(&mut spec);
        let mut machine = boot(&spec, tap.fd(), soon()).unwrap();
        test(&mut machine);
    });
}

fn end(machine: &mut VirtualMachine) -> Option<ShutdownReason> {
    match wait_for(machine, "end", |e| matches!(e, Event::Exited { .. })) {
        Event::Exited { reason, .. } => reason,
        _ => unreachable!(),
    }
}

/// Processor time of a process so far, in clock ticks (proc(5)).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_guest_is_suspended_resumed_and_powered_down() {
    with_guest(
        "",
        |_| {},
        |machine| {
            // Too early for a guest to hear it, which is the point.
            machine.power_down(Instant::now());
            machine.suspend(Instant::now());
            wait_for(machine, "suspension", |e| *e == Event::Suspended);
            let before = ticks(machine.pid());
            assert_eq!(next(machine, Instant::now() + Duration::from_secs(1)), None);
            assert!(ticks(machine.pid()) <= before + 2, "a suspended guest runs");
            assert!(machine.evidence()[0].ends_with("guest suspended"));

            machine.resume(Instant::now());
            wait_for(machine, "resumption", |e| *e == Event::Resumed);
            wait_for_console(machine, "no worker");
            machine.power_down(Instant::now());
            assert_eq!(end(machine), Some(ShutdownReason::GuestShutdown));
            assert!(
                machine
                    .evidence()
                    .iter()
                    .any(|l| l.contains("power button"))
            );
        },
    );
}

#[test]
fn a_suspended_guest_that_is_to_power_down_is_resumed_for_it() {
    with_guest(
        "",
        |_| {},
        |machine| {
            wait_for_console(machine, "no worker");
            machine.suspend(Instant::now());
            wait_for(machine, "suspension", |e| *e == Event::Suspended);
            machine.power_down(Instant::now());
            assert_eq!(end(machine), Some(ShutdownReason::GuestShutdown));
        },
    );
}

#[test]
fn a_panic_is_told_at_once_and_the_guest_kept_until_forced_down() {
    with_guest(
        "mode=panic\n",
        |_| {},
        |machine| {
            wait_for(machine, "panic", |e| *e == Event::Panicked);
            assert!(machine.exited().is_none());
            let evidence = machine.evidence().join("\n");
            assert!(evidence.contains("Kernel panic"), "{evidence}");
            machine.force_down().unwrap();
        },
    );
}

#[test]
fn a_reboot_ends_the_run() {
    with_guest(
        "mode=reboot\n",
        |_| {},
        |machine| assert_eq!(end(machine), Some(ShutdownReason::GuestReset)),
    );
}

#[test]
fn a_guest_without_ears_is_forced_down() {
    with_guest(
        "mode=deaf\n",
        |_| {},
        |machine| {
            wait_for_console(machine, "no worker");
            machine.power_down(Instant::now());
            let patience = Instant::now() + Duration::from_secs(3);
            while let Some(event) = next(machine, patience) {
                assert!(!matches!(event, Event::Exited { .. }));
            }
            machine.force_down().unwrap();
        },
    );
}

#[test]
fn a_full_disk_pauses_the_guest_until_there_is_room() {
    with_guest(
        "mode=fill\n",
        |spec| {
            // A file system with less room than the guest is going to write.
            let small = spec.run_dir.join("small");
            fs::create_dir(&small).unwrap();
            let at = small.display();
            run(&format!("mount -t tmpfs -o size=32m none {at}"));
            run(&format!(
                "cp --sparse=always {}/disk.img {at}/",
                spec.directory.display()
            ));
            spec.directory = small;
        },
        |machine| {
            let failed = wait_for(machine, "failure of the disk", |e| {
                matches!(e, Event::DiskFailed { .. })
            });
            assert!(matches!(failed, Event::DiskFailed { full: true, .. }));
            wait_for(machine, "suspension", |e| *e == Event::Suspended);
            let at = machine.evidence();
            // Room is made; the guest never learns of it.
            let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
            let small = mounts
                .lines()
                .filter_map(|line| line.split(' ').nth(1))
                .find(|path| path.ends_with("/small"))
                .unwrap();
            run(&format!("mount -o remount,size=200m {small}"));
            machine.resume(Instant::now());
            assert_eq!(end(machine), Some(ShutdownReason::GuestShutdown), "{at:?}");
            run(&format!("umount {small}"));
        },
    );
}

#[test]
fn an_error_of_a_disk_in_the_machines_own_options_is_not_shown_to_the_guest() {
    with_guest(
        "mode=fill\n",
        |spec| {
            let options = "-netdev|tap,id=net0,ifname=?|\
                 -device|virtio-net-pci,netdev=net0,mac=?|\
                 -drive|if=none,id=disk0,driver=raw,file.driver=blkdebug,\
                 file.image.driver=file,file.image.filename=disk.img,\
                 file.inject-error.0.event=write_aio|\
                 -device|virtio-blk-pci,drive=disk0,bootindex=1";
            spec.options = Some(options.split('|').map(str::to_owned).collect());
        },
        |machine| {
            let failed = wait_for(machine, "failure of the disk", |e| {
                matches!(e, Event::DiskFailed { .. })
            });
            assert!(matches!(failed, Event::DiskFailed { full: false, .. }));
            wait_for(machine, "suspension", |e| *e == Event::Suspended);
        },
    );
}

/// Has QEMU run as the user `nobody`.
fn as_nobody(spec: &mut Spec) {
    spec.user = Some(Credentials {
        uid: 65534,
        gid: 65534,
        groups: Vec::new(),
    });
    // As on a host whose tree others may enter; cargo's is not ours to
    // open up.
    run("mount -t tmpfs -o mode=755 none /mnt");
    let place = Path::new("/mnt");
    for name in ["machine", "run"] {
        let from = spec.run_dir.with_file_name(name);
        run(&format!("cp -a {} {}", from.display(), place.display()));
    }
    spec.directory = place.join("machine");
    spec.run_dir = place.join("run");
}

#[test]
fn a_tpm_has_the_user_of_qemu_and_ends_with_it() {
    if !require_programs(&["swtpm"]) {
        return;
    }
    with_guest(
        "mode=silent\n",
        |spec| {
            let state = spec.directory.join("tpm");
            fs::create_dir(&state).unwrap();
            // Something that the operator has prepared.
            fs::write(state.join("notes"), "").unwrap();
            spec.tpm = Some("tpm-crb");
            as_nobody(spec);
        },
        |machine| {
            let state = Path::new("/mnt/machine/tpm");
            for name in ["", "notes", "tpm2-00.permall"] {
                let uid = fs::metadata(state.join(name)).unwrap().uid();
                assert_eq!(uid, 65534, "{name}");
            }
            let evidence = machine.evidence().join("\n");
            let (_, pid) = evidence.split_once("swtpm pid ").unwrap();
            let pid = pid.split('\n').next().unwrap();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            assert!(
                status.contains("Uid:\t65534\t65534\t65534\t65534"),
                "{status}"
            );
            // However QEMU ends.
            run(&format!("kill -9 {}", machine.pid()));
            assert_eq!(end(machine), None);
            let ended = || !Path::new(&format!("/proc/{pid}/cwd")).exists();
            eventually("swtpm has ended", ended);
        },
    );
}

#[test]
fn a_tpm_that_does_not_start_is_explained_in_its_words() {
    if guest::image().is_err() {
        return skip("no qemu");
    }
    if !require_programs(&["swtpm"]) {
        return;
    }
    let dir = TempDir::new();
    let mut spec = spec(&dir, Path::new(guest::QEMU));
    spec.tpm = Some("tpm-crb");
    let state = spec.directory.join("tpm");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("tpm2-00.permall"), "garbage").unwrap();
    spec.options = Some(Vec::new());
    let error = boot(&spec, no_tap().as_fd(), soon()).unwrap_err();
    let said = error.hints().any(|hint| hint.starts_with("qemu: swtpm: "));
    assert!(said, "{error:?}");
}

#[test]
fn options_of_a_machine_and_another_user_for_qemu() {
    with_guest(
        "mode=poweroff\n",
        |spec| {
            let options = "-device|virtio-net-pci,netdev=net0,mac=?|\
                 -netdev|tap,id=net0,ifname=?,script=no|\
                 -drive|if=none,id=disk0,file=disk.img,format=raw|\
                 -device|virtio-blk-pci,drive=disk0,bootindex=1";
            spec.options = Some(options.split('|').map(str::to_owned).collect());
            as_nobody(spec);
        },
        |machine| {
            let pid = machine.pid();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            for line in [
                "Uid:\t65534\t65534\t65534\t65534",
                "Groups:\t \n",
                "NoNewPrivs:\t1",
                "CapEff:\t0000000000000000",
                "Seccomp:\t2",
            ] {
                assert!(status.contains(line), "no {line} in {status}");
            }
            // QEMU's user can write the picture of the screen.
            machine.inspect(Instant::now());
            while !machine.is_inspected() {
                let deadline = machine.deadline().unwrap();
                wait(&machine.fds(), deadline).unwrap();
                while machine.handle(Instant::now()).is_some() {}
            }
            let (files, missing) = machine.findings();
            assert_eq!(missing, [""; 0]);
            let file = |name| files.iter().find(|(n, _)| *n == name).map(|(_, text)| text);
            assert!(file("screen.png").unwrap().starts_with(b"\x89PNG"));
            assert!(file("block.json").unwrap().starts_with(b"[{"));
            machine.resume(Instant::now());
            assert_eq!(end(machine), Some(ShutdownReason::GuestShutdown));
        },
    );
}

#[test]
fn an_option_that_qemu_refuses_is_explained_in_its_words() {
    if guest::image().is_err() {
        return skip("no qemu");
    }
    let dir = TempDir::new();
    let mut spec = spec(&dir, Path::new(guest::QEMU));
    spec.options = Some(vec!["-drive".into(), "file=nowhere.img,format=raw".into()]);
    let begun = Instant::now();
    let error = boot(&spec, no_tap().as_fd(), soon()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("Could not open 'nowhere.img': No such file or directory"),
        "{text}"
    );
    assert!(begun.elapsed() < LONG / 10);
}

#[test]
fn a_guests_first_instructions_run_under_emulation() {
    if guest::image().is_err() {
        return skip("no qemu");
    }
    let verdict =
        accel::probe(Accel::Tcg, Path::new(guest::QEMU), None, soon(), &mut wait).unwrap();
    assert_eq!(verdict, ProbeResult::Usable);
}

#[test]
fn kvm_is_used_only_where_a_guest_runs() {
    if guest::image().is_err() {
        return skip("no qemu");
    }
    let qemu = Path::new(guest::QEMU);
    let started = Instant::now();
    let verdict = accel::probe(Accel::Kvm, qemu, None, soon(), &mut wait).unwrap();
    let (chosen, why) = accel::resolve(AccelChoice::Auto, qemu, None, soon(), &mut wait).unwrap();
    if verdict == ProbeResult::Usable {
        assert_eq!((chosen, why), (Accel::Kvm, None));
        return;
    }
    assert_eq!(chosen, Accel::Tcg);
    assert!(why.is_some());
    // A message of QEMU ends the probe, not its deadline.
    assert!(started.elapsed() < LONG / 4, "{why:?}");
    let error = accel::resolve(AccelChoice::Kvm, qemu, None, soon(), &mut wait).unwrap_err();
    assert!(error.hints().any(|hint| hint.contains("--accel tcg")));
}
