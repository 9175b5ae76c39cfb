//! The agent in surroundings that it did not choose: standard error that nobody reads,
//! files that are none, and what a parent leaves to its child.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{mkfifo, pipe};

use super::super::support::{Process, eventually, isolated};
use super::{Host, said, signal};

/// Machine directories without a link: at level 3 each is a line in every turn.
fn add_noise(host: &Host) {
    for i in 0..1500 {
        let name = format!("default/machine-with-a-name-of-some-length-{i}");
        fs::create_dir(host.volume.path().join(name)).unwrap();
    }
}

/// Writes until the other end takes no more.
fn fill(fd: impl AsFd) {
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL).unwrap());
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    let mut file = File::from(fd.as_fd().try_clone_to_owned().unwrap());
    while file.write(&[b'x'; 1024]).is_ok() {}
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags)).unwrap();
}

fn start(host: &Host, stderr: OwnedFd) -> Process {
    let mut command = host.agent(&["--verbose=3", "--poll-interval=1", &host.spool()]);
    Process(command.stderr(stderr).spawn().unwrap())
}

fn assert_stops(process: &mut Process) {
    let begin = Instant::now();
    signal(&process.0, Signal::SIGTERM);
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5), "{begin:?}");
}

#[test]
fn a_full_pipe_and_a_stopped_terminal_block_nothing() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        add_noise(&host);
        let (_reader, full) = pipe().unwrap();
        let terminal = nix::pty::openpty(None, None).unwrap();
        for writer in [full, terminal.slave] {
            let _ = fs::remove_file(host.path("run/default-1/status.json"));
            fill(&writer);
            let mut process = start(&host, writer);
            host.await_idle("no-task");
            assert_stops(&mut process);
        }
    });
}

#[test]
fn lost_diagnostics_are_counted() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        add_noise(&host);
        let (reader, writer) = pipe().unwrap();
        let mut process = start(&host, writer);
        // A pipe and the agent hold 64 kB each; a turn has more to say.
        host.await_idle("no-task");
        let mut reader = File::from(reader);
        let mut text = Vec::new();
        eventually("the number of lost records", || {
            let mut buffer = [0; 4096];
            let count = reader.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
            String::from_utf8_lossy(&text)
                .contains(" diagnostics were lost: standard error was not read\n")
        });
        for line in String::from_utf8_lossy(&text).lines() {
            let whole = ["trace: ", "warning: ", "info: "];
            let is_last = text.ends_with(line.as_bytes());
            assert!(
                is_last || whole.iter().any(|label| line.starts_with(label)),
                "{line}"
            );
        }
        drop(reader);
        assert_stops(&mut process);
    });
}

#[test]
fn a_device_is_not_replaced_by_the_metrics() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let device = host.path("null");
        mknod(&device, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap();
        let option = format!("--metrics={}", device.display());
        let output = host.run(&["--once", &option, &host.spool()]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(
            said(&output).contains("not a regular file"),
            "{}",
            said(&output)
        );
        let kind = fs::symlink_metadata(&device).unwrap().file_type();
        assert!(kind.is_char_device());
    });
}

#[test]
fn an_unreadable_status_does_not_hide_the_others() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let child = host.agent(&[&host.spool()]).spawn().unwrap();
        let mut process = Process(child);
        host.await_idle("no-task");
        for (name, text) in [("a-1", Some("nonsense")), ("b-1", None)] {
            let dir = host.path("run").join(name);
            fs::create_dir(&dir).unwrap();
            let file = dir.join("status.json");
            match text {
                Some(text) => fs::write(file, text).unwrap(),
                None => mkfifo(&file, Mode::S_IRWXU).unwrap(),
            }
        }
        let output = host.run(&["--status"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.contains("default-1: idle: no task"), "{shown}");
        assert!(
            said(&output).contains("a-1/status.json"),
            "{}",
            said(&output)
        );
        let output = host.run(&["--status", "--toolchain-name=b"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("it is a FIFO"), "{}", said(&output));
        assert_stops(&mut process);
    });
}

#[test]
fn a_signal_ends_the_wait_for_the_writer_of_a_fifo() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let fifo = host.path("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let option = format!("--fake-request={}", fifo.display());
        let mut command = host.agent(&["--once", "--dump-result", "--fake-build", &option]);
        let mut process = Process(command.stderr(Stdio::piped()).spawn().unwrap());
        let waits = || {
            let call = fs::read_to_string(format!("/proc/{}/wchan", process.0.id()));
            call.is_ok_and(|call| call.contains("poll"))
        };
        eventually("the agent waits", waits);
        assert_stops_with_any_status(&mut process);
    });
}

fn assert_stops_with_any_status(process: &mut Process) {
    let begin = Instant::now();
    signal(&process.0, Signal::SIGTERM);
    process.0.wait().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{begin:?}");
}

#[test]
fn what_a_parent_left_is_set_anew() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let script = "trap '' CHLD; umask 077; ulimit -S -n 64; ulimit -S -f 1000; \
                      exec env --block-signal=TERM --block-signal=USR1 \"$@\" 0<&- 2>&-";
        let agent = host.agent(&["--check", "--poll-interval=1", &host.spool()]);
        let wrapped = || {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(agent.get_program());
            command
        };
        // Ends of children are seen although the parent ignored SIGCHLD.
        let output = wrapped().args(agent.get_args()).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.contains("ok       acceleration"), "{shown}");

        let args = agent.get_args().filter(|arg| *arg != "--check");
        let mut process = Process(wrapped().args(args).spawn().unwrap());
        host.await_idle("no-task");
        let read =
            |name: &str| fs::read_to_string(format!("/proc/{}/{name}", process.0.id())).unwrap();
        assert!(read("status").contains("Umask:\t0022\n"));
        let limits = read("limits");
        let soft = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..]
                .split_whitespace()
                .next()
                .unwrap()
                .to_owned()
        };
        assert!(soft("Max open files").parse::<u32>().unwrap() >= 1024);
        assert_eq!(soft("Max file size"), "unlimited");
        assert_stops(&mut process);
    });
}
