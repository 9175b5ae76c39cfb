//! What a QEMU may do wrong, played by a script.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bbot_agent::error::Class;
use bbot_agent::machine::{Event, ShutdownReason, VirtualMachine};
use bbot_agent::platform::Architecture;
use bbot_agent::sys::process::Process;

use super::{boot, next, no_tap, soon, spec, wait_for};
use crate::support::btrfs::Volume;
use crate::support::{TempDir, eventually, isolated, require_programs, run};

/// What every play begins with: `$mon` and `$con` are the numbers of the
/// descriptors; `hear` waits for a command and `answer`s it.
const PROLOGUE: &str = r#"#!/bin/bash
for word; do
  case $word in
    socket,id=monitor,fd=*) mon=${word##*=} ;;
    socket,id=console,fd=*) con=${word##*=} ;;
  esac
done
say () { echo "$1" >&$mon; }
greet () { say '{"QMP":{"version":{"qemu":{"micro":0,"minor":0,"major":9}},"capabilities":[]}}'; }
hear () { read -r line <&$mon || exit 0; id=${line##*:}; id=${id%\}}; }
answer () { say "{\"return\":{},\"id\":$id}"; }
start () { greet; hear; answer; hear; answer; }
"#;

/// A file in `dir` that plays QEMU.
pub(super) fn qemu(dir: &TempDir, play: &str) -> PathBuf {
    let path = dir.path().join("qemu");
    fs::write(&path, format!("{PROLOGUE}{play}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn start(dir: &TempDir, play: &str) -> bbot_agent::error::Result<VirtualMachine> {
    let spec = spec(dir, &qemu(dir, play));
    boot(&spec, no_tap().as_fd(), soon())
}

fn gone(pid: u32) -> bool {
    bbot_agent::sys::process::pidfd_open(pid).is_err()
}

#[test]
fn a_qemu_that_dies_at_once_is_an_error_with_its_words() {
    let dir = TempDir::new();
    let begun = Instant::now();
    let error = start(
        &dir,
        "echo 'qemu: warning: odd' >&2; echo 'qemu: -drive: no such file' >&2; exit 1",
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to start machine linux-gcc: qemu ended at once, exit status: 1: \
         qemu: -drive: no such file"
    );
    let hints: Vec<_> = error.hints().collect();
    assert_eq!(hints, ["qemu: qemu: warning: odd"]);
    // bash itself takes a while when the machine is busy.
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_program_that_is_missing_comes_with_its_package() {
    let dir = TempDir::new();
    let spec = spec(&dir, "/nonexistent/qemu".as_ref());
    let error = boot(&spec, no_tap().as_fd(), soon()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to start machine linux-gcc: unable to execute /nonexistent/qemu: \
         No such file or directory"
    );
    assert!(
        error
            .hints()
            .any(|hint| hint.contains(Architecture::HOST.qemu_package()))
    );
}

#[test]
fn a_directory_that_is_missing_is_not_taken_for_the_program() {
    let dir = TempDir::new();
    let spec = spec(&dir, &qemu(&dir, "start"));
    fs::remove_dir(&spec.directory).unwrap();
    let error = boot(&spec, no_tap().as_fd(), soon()).unwrap_err();
    assert!(error.to_string().contains("unable to enter"), "{error}");
}

#[test]
fn a_run_directory_may_have_a_long_name() {
    let dir = TempDir::new();
    let mut spec = spec(&dir, &qemu(&dir, "start"));
    spec.run_dir = dir.path().join("r".repeat(200));
    fs::create_dir(&spec.run_dir).unwrap();
    let machine = boot(&spec, no_tap().as_fd(), soon());
    let sockets = fs::read_dir(&spec.run_dir).unwrap();
    let names: Vec<_> = sockets.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        names.iter().any(|name| name == "qmp"),
        "{names:?}: {machine:?}"
    );
}

#[test]
fn a_qemu_that_never_greets_is_given_up_and_killed() {
    let dir = TempDir::new();
    let spec = spec(
        &dir,
        &qemu(
            &dir,
            "read -r pid _ </proc/self/stat; echo $pid >pid; exec sleep 1000",
        ),
    );
    let deadline = Instant::now() + Duration::from_secs(1);
    let error = boot(&spec, no_tap().as_fd(), deadline).unwrap_err();
    assert!(
        error.to_string().ends_with("was not ready in time"),
        "{error}"
    );
    assert_eq!(error.class(), Class::Os);
    if let Ok(pid) = fs::read_to_string(spec.directory.join("pid")) {
        assert!(gone(pid.trim().parse().unwrap()));
    }
}

#[test]
fn a_monitor_that_talks_nonsense_ends_the_start() {
    for (nonsense, why) in [
        ("say 'HTTP/1.1 200 OK'; sleep 1000", "not JSON"),
        (
            "head -c 2000000 /dev/zero | tr '\\0' x >&$mon; sleep 1000",
            "line too long",
        ),
        (
            "greet; hear; say '{\"id\":1,\"error\":{\"desc\":\"no\"}}'; sleep 1000",
            "qemu refuses qmp_capabilities: no",
        ),
    ] {
        let dir = TempDir::new();
        let error = start(&dir, nonsense).unwrap_err();
        assert!(error.to_string().ends_with(why), "{error}");
    }
}

#[test]
fn nonsense_later_loses_the_monitor_and_not_the_process() {
    let dir = TempDir::new();
    let mut machine = start(&dir, "start; say bye; sleep 1000").unwrap();
    let event = next(&mut machine, soon());
    assert_eq!(event, Some(Event::MonitorLost("not JSON")));
    // Without a monitor there is nothing to wait for: killed at once.
    let begun = Instant::now();
    let status = machine.force_down().unwrap();
    assert_eq!(status.signal(), Some(9));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(gone(machine.pid()));
}

#[test]
fn a_qemu_that_ignores_quit_is_killed() {
    let dir = TempDir::new();
    let mut machine = start(&dir, "trap '' TERM; start; while hear; do :; done").unwrap();
    let status = machine.force_down().unwrap();
    assert_eq!(status.signal(), Some(9));
    assert!(gone(machine.pid()));
    // And once more is no error.
    machine.force_down().unwrap();
}

#[test]
fn the_reason_of_the_end_comes_with_it() {
    let dir = TempDir::new();
    let play = "start; echo last words >&$con; echo and qemu\\'s >&2
        say '{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}'";
    let mut machine = start(&dir, play).unwrap();
    let reset = ShutdownReason::GuestReset;
    assert_eq!(next(&mut machine, soon()), Some(Event::ShuttingDown(reset)));
    let Some(Event::Exited { status, reason }) = next(&mut machine, soon()) else {
        panic!("no end");
    };
    assert!(status.success());
    assert_eq!(reason, Some(reset));
    assert!(machine.fds().is_empty());
    let evidence = machine.evidence().join("\n");
    assert!(evidence.contains("| last words"), "{evidence}");
    assert!(evidence.contains("| and qemu's"), "{evidence}");
}

#[test]
fn power_down_is_asked_again_until_it_is_heard() {
    let dir = TempDir::new();
    let play = "start
        for i in 1 2 3; do hear; case $line in *system_powerdown*) answer;; *) exit 9;; esac; done
        say '{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-shutdown\"}}'";
    let mut machine = start(&dir, play).unwrap();
    machine.power_down(Instant::now());
    let event = wait_for(&mut machine, "end", |e| matches!(e, Event::Exited { .. }));
    let Event::Exited { status, reason } = event else {
        unreachable!()
    };
    assert!(status.success());
    assert_eq!(reason, Some(ShutdownReason::GuestShutdown));
}

#[test]
fn an_answer_that_is_overdue_is_reported() {
    let dir = TempDir::new();
    let mut machine = start(&dir, "start; sleep 1000").unwrap();
    let now = Instant::now();
    machine.suspend(now);
    let due = machine.deadline().unwrap();
    assert_eq!(machine.handle(now), None);
    // The clock is the caller's: nobody waits here.
    assert_eq!(
        machine.handle(due),
        Some(Event::Unanswered { command: "stop" })
    );
    assert_eq!(machine.deadline(), None);
}

#[test]
fn a_command_that_is_refused_is_reported() {
    let dir = TempDir::new();
    let play =
        "start; hear; say \"{\\\"id\\\":$id,\\\"error\\\":{\\\"desc\\\":\\\"no\\\"}}\"; sleep 1000";
    let mut machine = start(&dir, play).unwrap();
    machine.resume(Instant::now());
    assert_eq!(
        next(&mut machine, soon()),
        Some(Event::Refused {
            command: "cont",
            reason: "no".into()
        })
    );
}

#[test]
fn a_flood_of_words_costs_no_memory_and_little_disk() {
    let dir = TempDir::new();
    // 24 MB on the console, 3 MB of messages, 200 events that mean nothing.
    let play = "start
        (yes 'a line of the console' | head -c 24000000 >&$con) &
        (yes 'a message of qemu' | head -c 3000000 >&2) &
        for ((i = 0; i < 200; i++)); do say '{\"event\":\"RTC_CHANGE\"}'; done
        wait; printf '\\033[2Jend' >&$con";
    let mut machine = start(&dir, play).unwrap();
    wait_for(&mut machine, "end", |e| matches!(e, Event::Exited { .. }));
    let evidence = machine.evidence().join("\n");
    assert!(
        evidence.contains("console, 24000007 bytes in all"),
        "{evidence}"
    );
    assert!(evidence.contains(" end\n"), "{evidence}");
    assert!(evidence.len() < 4096, "{}", evidence.len());
    let run = dir.path().join("run");
    let logged: u64 = ["console.log", "console.log.1"]
        .iter()
        .map(|name| fs::metadata(run.join(name)).unwrap().len())
        .sum();
    assert!(logged <= 4 << 20, "{logged}");
}

#[test]
fn dropping_a_machine_leaves_neither_process_nor_sockets() {
    let dir = TempDir::new();
    let machine = start(&dir, "start; sleep 1000").unwrap();
    let pid = machine.pid();
    let run = dir.path().join("run");
    assert!(run.join("qmp").exists());
    drop(machine);
    assert!(gone(pid));
    assert!(!run.join("qmp").exists());
    assert!(!run.join("vm").exists());
}

/// A file system on which nothing can be written: whoever does waits in the
/// kernel, where no signal reaches it.
struct Frozen(Volume);

impl Frozen {
    fn new() -> Option<Frozen> {
        if !require_programs(&["fsfreeze"]) {
            return None;
        }
        let volume = Volume::new(128)?;
        run(&format!("fsfreeze --freeze {}", volume.path().display()));
        Some(Frozen(volume))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run(&format!("fsfreeze --unfreeze {}", self.0.path().display()));
    }
}

#[test]
fn a_guest_that_kvm_cannot_execute_is_a_failure_at_once() {
    for (status, is_failure) in [("internal-error", true), ("paused", false)] {
        let dir = TempDir::new();
        let play = format!(
            "start; say '{{\"event\":\"STOP\"}}'; hear; case $line in *query-status*) \
             say '{{\"return\":{{\"running\":false,\"status\":\"{status}\"}},\"id\":'\"$id\"'}}' ;; esac; \
             say '{{\"event\":\"RESUME\"}}'; hear"
        );
        let mut machine = start(&dir, &play).unwrap();
        wait_for(&mut machine, "stop", |e| *e == Event::Suspended);
        let failed = std::cell::Cell::new(false);
        wait_for(&mut machine, "resume", |e| {
            failed.set(failed.get() || *e == Event::ProcessorFailed);
            *e == Event::Resumed
        });
        assert_eq!(failed.get(), is_failure, "{status}");
    }
}

#[test]
fn a_qemu_that_its_disk_keeps_from_ending_is_left_behind() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let dir = TempDir::new();
        let play = format!(
            "start; say '{{\"event\":\"STOP\"}}'; echo >{}",
            frozen.0.path().join("file").display()
        );
        let mut machine = start(&dir, &play).unwrap();
        wait_for(&mut machine, "stop", |e| *e == Event::Suspended);
        let pid = machine.pid();
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        eventually("it waits for its disk", || state().contains(" D "));

        let begun = Instant::now();
        let error = machine.force_down().unwrap_err();
        assert!(error.to_string().starts_with("unable to end machine "));
        drop(machine);
        assert!(
            begun.elapsed() < Duration::from_secs(25),
            "{:?}",
            begun.elapsed()
        );
        assert!(!gone(pid));

        // It ends as soon as its disk lets it, and then nothing is left of it
        // from the next child on.
        drop(frozen);
        eventually("its end", || {
            drop(Process::spawn(Command::new("/bin/true"), &[], None).unwrap());
            gone(pid)
        });
    });
}
