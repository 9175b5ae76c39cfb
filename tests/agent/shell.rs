//! `--shell`: a throw-away copy of a machine on the terminal.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bbot_agent::sys::poll::readable_within;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{InputFlags, LocalFlags, OutputFlags, Termios, tcgetattr};
use nix::unistd::Pid;

use super::turns::signal;
use crate::support::host::{Host, TURN, ended, finish};
use crate::support::{Process, eventually, guest, isolated, require_programs};

/// The agent with `--shell` on a terminal.
struct Shell {
    process: Process,
    /// The other end of the terminal, which does not block.
    user: File,
    terminal: OwnedFd,
    seen: String,
}

impl Shell {
    fn start(host: &Host) -> Shell {
        let pair = nix::pty::openpty(None, None).unwrap();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        let mut command = host.agent(&["--shell", "linux-gcc"]);
        command.stdin(end()).stdout(end()).stderr(end());
        let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        fcntl(pair.master.as_fd(), flags).unwrap();
        Shell {
            process: Process(command.spawn().unwrap()),
            user: File::from(pair.master),
            terminal: pair.slave,
            seen: String::new(),
        }
    }

    fn settings(&self) -> (InputFlags, OutputFlags, LocalFlags) {
        let settings = tcgetattr(&self.terminal).unwrap();
        let Termios {
            input_flags,
            output_flags,
            local_flags,
            ..
        } = settings;
        (input_flags, output_flags, local_flags)
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        match self.user.read(&mut buffer) {
            Ok(count) => self.seen += &String::from_utf8_lossy(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    /// Waits for the text on the terminal.
    #[track_caller]
    fn await_text(&mut self, text: &str) {
        let until = Instant::now() + TURN;
        while !self.seen.contains(text) {
            assert!(Instant::now() < until, "no {text:?}: {}", self.seen);
            readable_within(self.user.as_fd(), Duration::from_millis(100)).unwrap();
            self.read();
        }
    }

    fn write(&mut self, text: &str) {
        self.user.write_all(text.as_bytes()).unwrap();
    }
}

#[test]
fn a_machine_has_its_console_on_the_terminal() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        if !require_programs(&["swtpm"]) {
            return;
        }
        host.add_bootstrapped("linux-gcc", "mode=shell\n");
        fs::create_dir(host.machine("linux-gcc/linux-gcc-default/tpm")).unwrap();
        let before = host.subvolumes("linux-gcc");
        let _turn = guest::turn();

        let mut shell = Shell::start(&host);
        let usual = shell.settings();
        shell.await_text("guest: mode shell");
        assert!(shell.seen.contains("Ctrl-a x ends it"), "{}", shell.seen);
        assert_eq!(host.subvolumes("linux-gcc").len(), before.len() + 1);
        let console = finish(host.agent(&["--console"]), TURN);
        let on_terminal = "info: the console of a shell (--shell) is on its terminal";
        assert!(console.err.contains(on_terminal), "{}", console.err);
        // It is not possible to give less than a processor.
        let full = finish(host.agent(&["--shell", "linux-gcc", "--host-cpu=1"]), TURN);
        assert!(full.err.contains("processors: --host-cpu"), "{}", full.err);
        let status = host.agent(&["--status"]);
        let status = finish(status, TURN).out;
        assert!(status.contains("default-99: shell"), "{status}");
        assert!(
            status.contains("256.0 MiB and 1 processor for a shell"),
            "{status}"
        );
        // The echo has the sum in two parts.
        shell.write("echo sum: $((40 + 2))\n");
        shell.await_text("sum: 42");
        // The terminal sends no signal: Ctrl-c is for the guest.
        assert!(!shell.settings().2.contains(LocalFlags::ISIG));
        shell.write("\x03exit\n");
        assert_eq!(ended(&mut shell.process, TURN), Some(0), "{}", shell.seen);
        assert_eq!(shell.settings(), usual);
        assert_eq!(host.subvolumes("linux-gcc"), before);

        for by_signal in [false, true] {
            let mut shell = Shell::start(&host);
            shell.await_text("guest: mode shell");
            if by_signal {
                // The signal of a terminal that goes away.
                let pid = i32::try_from(shell.process.0.id()).unwrap();
                kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
            } else {
                shell.write("\x01x");
            }
            assert_eq!(ended(&mut shell.process, TURN), Some(0), "{}", shell.seen);
            assert_eq!(shell.settings(), usual);
            assert_eq!(host.subvolumes("linux-gcc"), before);
            assert!(!host.path("run/default-99/vm").exists());
        }

        // Without a terminal there are no keys that end it.
        let mut process = host.start(host.agent(&["--shell", "linux-gcc"]), "log");
        let log = || fs::read_to_string(host.path("log")).unwrap();
        eventually("the shell starts", || {
            log().contains(", and SIGTERM ends it")
        });
        signal(&process, Signal::SIGTERM);
        assert_eq!(ended(&mut process, TURN), Some(0), "{}", log());
        assert!(!log().contains("Ctrl-a"), "{}", log());

        let mut shell = Shell::start(&host);
        shell.await_text("guest: mode shell");
        shell.process.kill();
        assert_eq!(host.subvolumes("linux-gcc").len(), before.len() + 1);
        let collected = finish(host.agent(&["--gc"]), TURN).out;
        assert!(collected.contains("removed "), "{collected}");
        assert_eq!(host.subvolumes("linux-gcc"), before);
    });
}

#[test]
fn a_machine_that_cannot_be_run_is_named_with_the_reason() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "mode=shell\n");
        host.add("other", "");
        let refused = |words: &[&str]| {
            let ran = finish(host.agent(words), TURN);
            assert_ne!(ran.code, Some(0));
            ran.err
        };
        let none = refused(&["--shell", "linux-clang"]);
        assert!(none.contains("no machine linux-clang in "), "{none}");
        assert!(
            none.contains("the machines are: linux-gcc, other"),
            "{none}"
        );
        let fresh = refused(&["--shell", "other"]);
        let cause = "unable to use machine other: it has no current copy for toolchain default";
        assert!(fresh.contains(cause), "{fresh}");
        fs::remove_file(host.machine("other").join("other-1")).unwrap();
        let retired = refused(&["--shell", "other"]);
        assert!(retired.contains("there is no link "), "{retired}");
        let full = refused(&["--shell", "linux-gcc", "--host-ram", "1M"]);
        assert!(full.contains("never fit"), "{full}");
    });
}
