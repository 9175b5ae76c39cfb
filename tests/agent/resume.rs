//! `--resume`: failed guests that are started again.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::keep_state::{COUNT, KEEP, fail, failures, host, states};
use super::turns::signal;
use crate::support::host::{Host, TURN, ended, finish};
use crate::support::{Process, guest, isolated, require_programs, run, within};

/// A guest that is resumed.
pub(super) struct Resumed<'h> {
    host: &'h Host,
    process: Process,
}

impl Resumed<'_> {
    pub(super) fn start<'h>(host: &'h Host, failure: &Path, words: &[&str]) -> Resumed<'h> {
        let console = host.path("run/default-99/console.log");
        let _ = fs::remove_file(console);
        let resume = ["--resume", failure.to_str().unwrap()];
        let process = host.start(host.agent(&[&resume, words].concat()), "log");
        Resumed { host, process }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.host.path("log")).unwrap()
    }

    pub(super) fn console(&self) -> String {
        let path = self.host.path("run/default-99/console.log");
        fs::read_to_string(path).unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn await_console(&self, text: &str) {
        within(TURN, text, || {
            assert!(!self.log().contains("error: "), "{}", self.log());
            self.console().contains(text)
        });
    }

    #[track_caller]
    pub(super) fn end(mut self, by: Signal) {
        signal(&self.process, by);
        assert_eq!(ended(&mut self.process, TURN), Some(0), "{}", self.log());
    }
}

/// The last number that the guest has counted to.
pub(super) fn count(console: &str) -> u32 {
    let (_, last) = console.rsplit_once("guest: count ").unwrap();
    last.split_whitespace().next().unwrap().parse().unwrap()
}

fn scratch(host: &Host) -> Vec<String> {
    let names = host.subvolumes("m").into_iter();
    let is_scratch = |name: &String| name.contains("-@") && !name.contains("-@failed.");
    names.filter(is_scratch).collect()
}

#[track_caller]
fn refused(host: &Host, failure: &Path, words: &[&str], why: &str) {
    let resume = ["--resume", failure.to_str().unwrap()];
    let ran = finish(host.agent(&[&resume, words].concat()), TURN);
    let said = format!("error: unable to resume {}: {why}", failure.display());
    assert!(ran.err.contains(&said), "{why:?} is not in {}", ran.err);
    assert_ne!(ran.code, Some(0));
    assert!(scratch(host).is_empty());
}

/// Has a guest fail. Returns its evidence.
fn failed(host: &Host, config: &str, words: &[&str]) -> PathBuf {
    let said = fail(host, "one", config, words);
    failures(host).pop().expect(&said)
}

#[test]
fn a_failed_guest_goes_on_where_it_stood_each_time() {
    isolated(|| {
        let Some(host) = host() else { return };
        if !require_programs(&["swtpm"]) {
            return;
        }
        // Its TPM goes on, too.
        fs::create_dir(host.machine("m/m-default/tpm")).unwrap();
        let failure = failed(&host, COUNT, KEEP);
        let stood = count(&fs::read_to_string(failure.join("console.txt")).unwrap());
        let before = host.subvolumes("m");
        let _turn = guest::turn();
        for by in [Signal::SIGTERM, Signal::SIGINT] {
            let resumed = Resumed::start(&host, &failure, &[]);
            resumed.await_console(&format!("guest: count {}", stood + 2));
            // It was not booted again.
            let console = resumed.console();
            let (first, _) = console.split_once('\n').unwrap();
            let next = format!("guest: count {}", stood + 1);
            assert_eq!(first.trim(), next, "{console}");
            let log = resumed.log();
            let told = "info: the guest of machine m goes on where it stood (build timeout, ";
            assert!(log.contains(told), "{log}");
            let (_, vnc) = log.split_once("its display (VNC): ").unwrap();
            let vnc = vnc.lines().next().unwrap();
            let mut greeting = [0; 4];
            let mut display = UnixStream::connect(vnc).unwrap();
            display.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"RFB ");
            let (_, tap) = log.split_once("its network leads nowhere: tap ").unwrap();
            let tap = tap.split(' ').next().unwrap();
            let link = run(&format!("ip -o link show {tap}"));
            assert!(
                !link.contains(" master ") && link.contains("state DOWN"),
                "{link}"
            );
            let (_, words) = log.split_once("its console: bbot-agent ").unwrap();
            let words: Vec<&str> = words.lines().next().unwrap().split(' ').collect();
            assert!(
                words.contains(&host.path("run").to_str().unwrap()),
                "{words:?}"
            );
            let mut follower = host.agent(&words);
            let followed = fs::File::create(host.path("followed")).unwrap();
            let mut follower = Process(follower.stdout(followed).spawn().unwrap());
            within(TURN, "its console is followed", || {
                let followed = fs::read_to_string(host.path("followed")).unwrap();
                followed.contains(&next)
            });
            follower.kill();
            let status = finish(host.agent(&["--status"]), TURN).out;
            assert!(status.contains("default-99: resumed"), "{status}");
            assert!(status.contains("for a resumed guest"), "{status}");
            resumed.end(by);
            assert_eq!(host.subvolumes("m"), before);
            within(TURN, "the tap is gone", || !run("ip -o link").contains(tap));
            assert!(!Path::new(vnc).exists());
        }

        let mut resumed = Resumed::start(&host, &failure, &[]);
        resumed.await_console("guest: count ");
        resumed.process.kill();
        assert_eq!(scratch(&host).len(), 1);
        let collected = finish(host.agent(&["--gc"]), TURN).out;
        assert!(collected.contains("removed "), "{collected}");
        assert_eq!(host.subvolumes("m"), before);
    });
}

#[test]
fn a_guest_of_a_template_goes_on_too() {
    isolated(|| {
        let Some(host) = host() else { return };
        run("ip link set br1 address 02:00:00:00:00:01");
        let words = &[KEEP, &["--warm"]].concat();
        let ran = host.run(words);
        assert!(ran.err.contains("info: made template of "), "{}", ran.err);
        let failure = failed(&host, COUNT, words);
        let log = fs::read_to_string(failure.join("agent.txt")).unwrap();
        assert!(log.contains(" -incoming "), "{log}");
        // Its memory does not depend on the template.
        let ran = host.run(&["--once"]);
        assert!(ran.err.contains("template that is not used"), "{}", ran.err);
        let stood = count(&fs::read_to_string(failure.join("console.txt")).unwrap());
        let _turn = guest::turn();
        let resumed = Resumed::start(&host, &failure, &[]);
        resumed.await_console(&format!("guest: count {}", stood + 1));
        assert!(
            !resumed.console().contains("guest: mode"),
            "{}",
            resumed.console()
        );
        resumed.end(Signal::SIGTERM);
    });
}

#[test]
fn a_guest_without_memory_boots_and_may_power_off() {
    isolated(|| {
        let Some(host) = host() else { return };
        let failure = failed(&host, "target-config: mode=poweroff\n", KEEP);
        // Its disk was that of a throw-away snapshot.
        let state = fs::read_link(failure.join("state")).unwrap();
        let display = state.display();
        run(&format!("btrfs property set -ts {display} ro false"));
        guest::steer(&state.join("disk.img"), "mode=poweroff\n");
        let _turn = guest::turn();
        let mut resumed = Resumed::start(&host, &failure, &[]);
        assert_eq!(
            ended(&mut resumed.process, TURN),
            Some(0),
            "{}",
            resumed.log()
        );
        let log = resumed.log();
        assert!(
            log.contains("the guest of machine m boots: its memory was not kept"),
            "{log}"
        );
        assert!(
            log.contains("info: the guest has ended: guest powered off"),
            "{log}"
        );
        assert!(resumed.console().contains("guest: mode poweroff"));
        assert!(scratch(&host).is_empty());
    });
}

#[test]
fn a_guest_that_cannot_be_resumed_is_named_with_the_reason() {
    isolated(|| {
        let Some(host) = host() else { return };
        let failure = failed(&host, COUNT, KEEP);
        let state = host.machine("m").join(&states(&host)[0]);

        let qemu = host.path("qemu");
        let script = "#!/bin/sh\necho 'QEMU emulator version 99.1.0 (Debian)'\n";
        fs::write(&qemu, script).unwrap();
        run(&format!("chmod 755 {}", qemu.display()));
        let text = fs::read_to_string(failure.join("resume.json")).unwrap();
        let (_, version) = text.split_once("\"version\":\"").unwrap();
        let version = version.split('"').next().unwrap();
        let why = format!("its memory is for another host: QEMU was {version}, and is 99.1.0");
        refused(&host, &failure, &["--qemu", qemu.to_str().unwrap()], &why);
        let change = |from: &str, to: &str| {
            let changed = text.replace(from, to);
            assert_ne!(text, changed);
            fs::write(failure.join("resume.json"), changed).unwrap();
        };
        change("dump-guest-core=off", "dump-guest-core=on");
        let why = "its memory is for another host: QEMU's option -machine was \
                   q35,dump-guest-core=on, and is q35,dump-guest-core=off";
        refused(&host, &failure, &[], why);
        change("\"accel\":\"tcg\"", "\"accel\":\"x\"");
        refused(
            &host,
            &failure,
            &[],
            "resume.json in it is damaged, or of another agent",
        );
        fs::write(failure.join("resume.json"), &text).unwrap();

        // QEMU has the last word about the memory.
        run(&format!(
            "btrfs property set -ts {} ro false",
            state.display()
        ));
        let memory = state.join("failed.state");
        let file = fs::File::options().write(true).open(&memory).unwrap();
        file.set_len(1 << 20).unwrap();
        refused(&host, &failure, &[], "unable to start machine ");

        run(&format!("btrfs -q subvolume delete {}", state.display()));
        let why = format!("the state of the guest is gone: {}\n", state.display());
        refused(&host, &failure, &[], &why);
        fs::remove_file(failure.join("state")).unwrap();
        let why = "the link to the state of the guest is gone: state in it";
        refused(&host, &failure, &[], why);
        fs::remove_file(failure.join("resume.json")).unwrap();
        refused(&host, &failure, &[], "the state of the guest was not kept");
        refused(
            &host,
            &host.path("tftp"),
            &[],
            "it has no evidence of a failed guest",
        );
        refused(
            &host,
            Path::new("/nowhere"),
            &[],
            "it has no evidence of a failed guest",
        );
    });
}
