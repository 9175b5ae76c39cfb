//! Interactive builds: the login, the display, and the end by the user.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use bbot_agent::network::NetworkClaim;

use crate::support::brep::{Brep, Setup};
use crate::support::host::{Host, TURN, ended, finish};
use crate::support::{guest, isolated, within};

const TASK: &str = "name: libfoo\nversion: 1.2.3\nmachine: linux-gcc\n\
                    target-config: mode=stall\ninteractive: error\n";

/// The types of security that a VNC server offers (RFC 6143, sections 7.1.1 and 7.1.2).
fn security_types(port: u16) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut version = [0; 12];
    stream.read_exact(&mut version).unwrap();
    assert_eq!(&version, b"RFB 003.008\n");
    stream.write_all(&version).unwrap();
    let mut count = [0];
    stream.read_exact(&mut count).unwrap();
    let mut types = vec![0; count[0].into()];
    stream.read_exact(&mut types).unwrap();
    types
}

#[test]
fn a_user_finds_the_guest_at_its_login_and_ends_it() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let password = host.path("password");
        fs::write(&password, "secret\n").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let brep = Brep::start(Setup {
            login: Some("build1 build1:5901".to_owned()),
            ..Setup::default()
        });
        brep.queue(TASK);
        let agent = |words: &[&str]| {
            let mut command = host.agent(&["--once", "--agent-name", "build1"]);
            // The limits of other builds do not hold.
            command.args(["--build-timeout", "1", "--idle-limit", "1"]);
            command.args(["--interactive-vnc", "127.0.0.1", "--instance", "2"]);
            command.arg("--vnc-password").arg(&password);
            command.args(words).arg(brep.url());
            command
        };

        // Such a task is not for an agent without the option, nor with another login.
        let ran = finish(agent(&[]), TURN);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        let login = ["--interactive", "both", "--interactive-login", "%h %p"];
        let ran = finish(agent(&login), TURN);
        assert!(
            ran.err.contains("unable to match login info"),
            "{}",
            ran.err
        );

        let _turn = guest::turn();
        let mut process = host.start(agent(&["--interactive", "both"]), "log");
        let log = || fs::read_to_string(host.path("log")).unwrap();
        let status = host.path("run/default-2/status.json");
        let status = || fs::read_to_string(&status).unwrap_or_default();
        within(TURN, "the guest has its task", || {
            status().contains("\"building\"")
        });
        assert!(
            status().contains("\"login\":\"build1:5901\""),
            "{}",
            status()
        );
        let line = "is interactive and stops at error: a user may log in at build1:5901";
        assert!(log().contains(line), "{}", log());
        // 2 is the authentication by a password.
        assert_eq!(security_types(5901), [2]);
        // The limits of other builds would have ended it.
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(status().contains("\"building\""), "{}", status());

        let mut qmp = UnixStream::connect(host.path("run/default-2/qmp")).unwrap();
        let commands = ["qmp_capabilities", "system_powerdown"];
        for command in commands {
            writeln!(qmp, "{{\"execute\":\"{command}\"}}").unwrap();
        }
        assert_eq!(ended(&mut process, TURN), Some(0), "{}", log());
        let result = brep.state().builds[0].result.clone().unwrap();
        assert!(result.contains("\nstatus: abort\n"), "{result}");
        assert!(result.contains("the user ended the build"), "{result}");
        assert!(
            log().lines().all(|line| line.starts_with("info: ")),
            "{}",
            log()
        );
        assert!(!log().contains("secret"), "{}", log());
    });
}

#[test]
fn a_display_is_of_one_toolchain_and_its_guest_fails_as_others_do() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let task = "target-config: mode=panic\ninteractive: error\n";
        host.task("one", "linux-gcc", task);
        let words = [
            "--once",
            "--interactive",
            "both",
            "--interactive-vnc",
            "127.0.0.1",
            "--breaker",
            "1",
        ];
        // The agent of another toolchain.
        let claim = NetworkClaim::display(5900).unwrap().unwrap();
        let ran = host.run(&words);
        assert_eq!(ran.code, Some(78), "{}", ran.err);
        let why = "unable to use display address 127.0.0.1:5900: an agent of another toolchain \
                   has its port";
        assert!(ran.err.contains(why), "{}", ran.err);
        let check = [&["--check"], &words[1..]].concat();
        let output = host.agent(&check).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(why), "{said}");
        drop(claim);

        let ran = host.run(&words);
        assert!(ran.err.contains("the guest panicked"), "{}", ran.err);
        assert!(!ran.err.contains("display address"), "{}", ran.err);
        assert!(!ran.err.contains("no work is asked for"), "{}", ran.err);
        let result = host.result("one").expect(&ran.err);
        assert!(result.contains("\nstatus: abort\n"), "{result}");
    });
}
