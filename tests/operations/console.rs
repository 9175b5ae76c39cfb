//! `--console`: another process follows the console of a running guest.

use std::process::{Command, Output, Stdio};

use super::super::support::{eventually, isolated};
use super::evidence::silent;
use super::qemu::Stage;
use super::said;

impl Stage {
    fn console(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bbot-agent"));
        command
            .arg(format!("--run-dir={}", self.host.path("run").display()))
            .args(words)
            .stdin(Stdio::null());
        command
    }

    fn console_output(&self, words: &[&str]) -> Output {
        self.console(words).output().unwrap()
    }
}

#[test]
fn the_console_of_a_guest_is_followed_to_its_end_and_cannot_steer_the_terminal() {
    isolated(|| {
        // Each question about the failed guest adds a line.
        let script = silent("printf 'line \\033[2J%d\\r\\n' $((n += 1)) >&$con; answer {}");
        let Some(stage) = Stage::new(31, &script) else {
            return;
        };
        let none = stage.console_output(&["--console"]);
        assert_eq!(none.status.code(), Some(1));
        assert_eq!(said(&none), "error: no guest is running\n");

        stage.host.drop_task("one");
        let mut command = stage.agent();
        command.args(["--hold=3", "--build-startup=4"]);
        let mut agent = crate::support::Process(command.spawn().unwrap());
        eventually("the guest runs", || {
            let status = stage.host.status();
            status.is_some_and(|s| s.get("work").unwrap().as_str() == Some("booting"))
        });
        let wrong = stage.console_output(&["--console=other"]);
        assert_eq!(wrong.status.code(), Some(1));
        assert_eq!(
            said(&wrong),
            "error: no guest of machine other is running\ninfo: guests are running of: linux\n"
        );
        let followed = stage.console_output(&["--console=linux"]);
        assert_eq!(followed.status.code(), Some(0), "{}", said(&followed));
        let text = String::from_utf8(followed.stdout).unwrap();
        assert_eq!(text, "line 1\nline 2\nline 3\n");
        assert_eq!(agent.0.wait().unwrap().code(), Some(1));
    });
}

#[test]
fn a_follower_ends_by_a_signal() {
    isolated(|| {
        let Some(stage) = Stage::new(32, &silent("answer {}")) else {
            return;
        };
        stage.host.drop_task("one");
        let mut command = stage.agent();
        let mut agent = crate::support::Process(command.spawn().unwrap());
        eventually("the guest runs", || {
            let status = stage.host.status();
            status.is_some_and(|s| s.get("work").unwrap().as_str() == Some("booting"))
        });
        let mut command = stage.console(&["--console"]);
        let mut follower = crate::support::Process(command.spawn().unwrap());
        eventually("it waits for signals", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", follower.0.id()));
            let status = status.unwrap();
            let blocked = status.lines().find_map(|l| l.strip_prefix("SigBlk:"));
            blocked.unwrap().trim() != "0000000000000000"
        });
        super::signal(&follower.0, nix::sys::signal::Signal::SIGINT);
        assert_eq!(follower.0.wait().unwrap().code(), Some(0));
        agent.kill();
    });
}
