//! Turns with controllers on the network.

use std::fs;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use bbot_agent::json::Value;

use super::turns::signal;
use crate::support::brep::{Brep, Setup};
use crate::support::host::{Host, TURN, ended, finish, task};
use crate::support::http::{Identity, Server, closed_port};
use crate::support::site::Site;
use crate::support::{Process, TempDir, await_idle, eventually, guest, isolated, run, status};

#[test]
fn the_first_controller_with_a_task_gets_the_result_over_https() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let dir = TempDir::new();
        let authority = Identity::authority(dir.path(), "ca");
        let identity = authority.sign(
            dir.path(),
            "server",
            Some("subjectAltName=DNS:localhost,IP:127.0.0.1\n"),
        );
        let idle = Server::answering("200 OK", ": 1\nsession:\n");
        let broken = Server::answering("500 Internal Server Error", "database down");
        let server = Server::start_tls(&identity, |mut connection| {
            let Ok(request) = connection.request() else {
                return;
            };
            let host = request.header("host").unwrap_or_default();
            let answer = if request.target.contains("build-task") {
                let task = task("linux-gcc", "");
                let body = task.strip_prefix(": 1\n").unwrap_or_default().to_owned();
                format!(": 1\nsession: s/1\nresult-url: https://{host}/?build-result\n:\n{body}")
            } else {
                String::new()
            };
            connection.answer("200 OK", &answer);
        });
        let _turn = guest::turn();
        let mut command = host.agent(&[
            "--once",
            "--agent-name",
            "tester",
            "--toolchain-ver",
            "0.17.0",
        ]);
        command
            .arg("--ca-file")
            .arg(&authority.certificate)
            .arg(format!("3=http://127.0.0.1:{}/?build-task", closed_port()))
            .arg(format!("2={}", broken.url("/?build-task")))
            .arg(format!("1={}", idle.url("/?build-task")))
            .arg(server.url("/?build-task"));
        let ran = finish(command, TURN);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(
            ran.err
                .contains("unable to request task from http://127.0.0.1:"),
            "{}",
            ran.err
        );
        assert!(ran.err.contains("database down"), "{}", ran.err);
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert_eq!(
            requests[0].text(),
            ": 1\nagent: tester\ntoolchain-name: default\ntoolchain-version: 0.17.0\n:\n\
             id: linux-gcc-1.0\nname: linux-gcc\nsummary: Linux with GCC\n"
        );
        assert_eq!(requests[0].header("content-type"), Some("text/manifest"));
        let result = requests[1].text();
        assert!(result.starts_with(": 1\nsession: s/1\n"), "{result}");
        assert!(
            result.contains(":\nname: libfoo\nversion: 1.2.3\nstatus: success\n"),
            "{result}"
        );
    });
}

#[test]
fn a_turn_that_no_controller_answers_says_so_in_its_exit_status() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let mut command = host.agent(&["--once"]);
        command.arg(format!("http://127.0.0.1:{}/", closed_port()));
        let ran = finish(command, TURN);
        assert_eq!(ran.code, Some(69), "{}", ran.err);
        assert!(ran.err.contains("connection refused"), "{}", ran.err);
    });
}

#[test]
fn a_task_that_cannot_be_done_is_given_back_and_the_next_controller_is_asked() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let lines = task("linux-gcc", "");
        for (text, why) in [
            (
                lines.replace("machine: linux-gcc", "machine: another"),
                "machine another was not offered",
            ),
            (
                lines.clone() + "interactive: error\n",
                "it is interactive (stops at error), see --interactive",
            ),
            (
                lines.clone() + "auxiliary-machine: x86-db\n",
                "auxiliary machine x86-db was not offered",
            ),
        ] {
            let first = Brep::start(Setup {
                careless: true,
                ..Setup::default()
            });
            let next = Brep::start(Setup::default());
            first.queue(text.strip_prefix(": 1\n").unwrap());
            let mut command = host.agent(&["--once", "--toolchain-ver", "0.17.0"]);
            command.arg(format!("1={}", first.url())).arg(next.url());
            let ran = finish(command, TURN);
            assert!(ran.err.contains(why), "{}", ran.err);
            let build = first.state().builds[0].clone();
            // No controller hands an interactive task out again.
            let result = build.result.clone().unwrap_or_default();
            let is_final = result.contains("\nstatus: abort\n");
            assert_eq!(is_final, text.contains("interactive"), "{}", ran.err);
            assert!(is_final || build.is_interrupted(), "{result} {}", ran.err);
            assert_eq!(next.state().asked, 1);
        }
    });
}

#[test]
fn a_signal_ends_the_look_up_of_a_name() {
    isolated(|| {
        let Some(site) = Site::new() else { return };
        // A name server that does not answer.
        run("ip addr add 127.0.0.53/8 dev lo");
        let silent = UdpSocket::bind("127.0.0.53:53").unwrap();
        let configuration = site.path("resolv.conf");
        fs::write(&configuration, "nameserver 127.0.0.53\n").unwrap();
        let target = fs::canonicalize("/etc/resolv.conf").unwrap();
        run(&format!(
            "mount --bind {} {}",
            configuration.display(),
            target.display()
        ));
        let mut arguments = site.arguments();
        *arguments.last_mut().unwrap() = "http://controller.example/?build-task".to_owned();
        let mut command = Command::new(Site::agent());
        command
            .args(&arguments)
            .args(["--request-timeout", "60"])
            .stdin(Stdio::null());
        let mut agent = Process(command.spawn().unwrap());
        let mut query = [0; 512];
        silent.recv(&mut query).unwrap();
        let start = Instant::now();
        let pid = i32::try_from(agent.0.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        assert_eq!(ended(&mut agent, TURN), Some(0));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}

#[test]
fn the_status_has_the_failure_of_a_controller_and_a_signal_is_none() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let mut asked = 0;
        let controller = Server::start(move |mut connection| {
            if connection.request().is_ok() {
                asked += 1;
                match asked {
                    1 => connection.answer("200 OK", "nonsense"),
                    _ => connection.hang(),
                }
            }
        });
        let mut command = host.agent(&["--poll-interval", "1"]);
        command.arg(controller.url(""));
        let mut agent = host.start(command, "log");
        let run_dir = host.path("run/default-1");
        await_idle(&run_dir, "controllers-down");
        let detail = status(&run_dir).unwrap();
        let detail = detail.get("detail").and_then(Value::as_str).unwrap();
        let failure = ": invalid task response manifest: ";
        assert!(detail.contains(failure), "{detail}");
        eventually("a second request", || controller.requests().len() == 2);
        signal(&agent, Signal::SIGTERM);
        assert_eq!(ended(&mut agent, TURN), Some(0));
        let log = fs::read_to_string(host.path("log")).unwrap();
        assert_eq!(log.matches("error: ").count(), 1, "{log}");
    });
}
