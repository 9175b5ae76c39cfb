//! The script by which an operator starts a machine that failed.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::host::{Host, TURN, ended};
use crate::support::{Process, guest, isolated, require_programs, run, within};

#[test]
fn a_machine_that_failed_is_started_by_hand() {
    isolated(|| {
        if !require_programs(&["ip", "swtpm"]) {
            return;
        }
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "mode=silent\n");
        fs::create_dir(host.machine("linux-gcc/linux-gcc-default/tpm")).unwrap();
        host.task("one", "linux-gcc", "");
        let ran = host.run(&["--once", "--build-startup=1", "--build-retries=0"]);
        let script = host.path("run/default-1/start-machine.sh");
        let text = format!("to start it by hand: sh {}", script.display());
        assert!(ran.err.contains(&text), "{}", ran.err);

        let _turn = guest::turn();
        let before = host.subvolumes("linux-gcc");
        let log = File::create(host.path("log")).unwrap();
        let mut command = Command::new("sh");
        command.arg(&script).stdin(Stdio::piped());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = Process(command.spawn().unwrap());
        let said = || fs::read(host.path("log")).unwrap();
        within(TURN, "the guest runs", || {
            String::from_utf8_lossy(&said()).contains("guest: mode silent")
                || process.0.try_wait().unwrap().is_some()
        });
        let links = run("ip -o link show master br1");
        let said = String::from_utf8_lossy(&said()).into_owned();
        assert!(links.contains("bbot-by-hand"), "{links}{said}");

        let mut terminal = process.0.stdin.take().unwrap();
        terminal.write_all(b"\x01cquit\n").unwrap();
        assert_eq!(ended(&mut process, TURN), Some(0), "{said}");
        assert_eq!(host.subvolumes("linux-gcc"), before);
        assert!(!run("ip -o link").contains("bbot-by-hand"));
    });
}
