//! Auxiliary machines: started beside a build, used by it, and taken down with it.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::host::{Host, TURN, ended, names};
use crate::support::{Process, guest, isolated, run, within};

use super::turns::signal;

/// Adds a revision of an auxiliary machine.
fn add(host: &Host, name: &str, settings: &str) {
    host.add(name, settings);
    let manifest = host
        .machine(name)
        .join(format!("{name}-1.0"))
        .join("manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(manifest, text + "role: auxiliary\nram-minimum: 131072\n").unwrap();
}

fn assert_nothing_is_left(host: &Host, machines: &[&str]) {
    for name in machines {
        assert_eq!(
            host.subvolumes(name),
            [format!("{name}-1"), format!("{name}-1.0")]
        );
    }
    assert_eq!(names(&host.path("tftp/build")), [""; 0]);
    assert_eq!(run("nft list ruleset"), "");
    assert!(!run("ip -o link").contains("bb-"));
    let left = names(&host.path("run/default-1"));
    assert!(
        !left.iter().any(|name| name.starts_with("auxiliary")),
        "{left:?}"
    );
}

const MEMORY: [&str; 2] = ["--auxiliary-ram", "300M"];

#[test]
fn a_build_uses_its_auxiliary_machines() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        add(&host, "x86-web", "mode=http\n");
        add(&host, "x86-echo", "mode=echo\n");
        host.task(
            "one",
            "linux-gcc",
            "auxiliary-machine: x86-web\nauxiliary-machine-e-cho: x86-echo\n\
             target: x86_64-linux-gnu\ntarget-config: mode=clients\n",
        );
        let _turns = guest::turns(2);
        let console = host.path("run/default-1/console.log");
        fs::create_dir_all(host.path("run/default-1")).unwrap();
        fs::write(&console, "that of a former guest").unwrap();
        let mut command = host.agent(&["--once"]);
        command.args(MEMORY).arg(host.path("controller"));
        let mut process = host.start(command, "log");
        let log = || fs::read_to_string(host.path("log")).unwrap();
        let status = host.path("run/default-1/status.json");
        let status = || fs::read_to_string(&status).unwrap_or_default();
        within(TURN, "the guests run", || {
            log().contains("started auxiliary machine x86-echo")
        });
        let console = fs::read_to_string(&console).unwrap_or_default();
        assert!(!console.contains("former"), "{console}");
        assert!(
            status().contains("\"auxiliary\":[\"x86-web\",\"x86-echo\"]"),
            "{}",
            status()
        );
        let claim = fs::read_to_string(host.path("run/default-1/claim")).unwrap();
        assert!(claim.contains("\"ram_kb\":569344"), "{claim}");
        let mut console = host.agent(&["--console=x86-web"]);
        let console = console.output().unwrap();
        let text = String::from_utf8_lossy(&console.stdout);
        assert!(text.contains("guest: serving"), "{text}");
        assert_eq!(ended(&mut process, TURN), Some(0), "{}", log());
        let result = host.result("one").unwrap();
        assert!(result.contains("status: success"), "{result}");
        assert!(result.contains("a page of 10.195."), "{result}");
        assert!(result.contains(", echo: hello"), "{result}");
        for line in [
            "auxiliary machine x86-web is ready after ",
            "auxiliary machine x86-echo is ready after ",
            "(auxiliary ",
        ] {
            assert!(log().contains(line), "{line}: {}", log());
        }
        assert_nothing_is_left(&host, &["x86-web", "x86-echo"]);
    });
}

#[test]
fn an_auxiliary_machine_that_fails_ends_the_task_and_rests() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        add(&host, "x86-web", "mode=silent\n");
        for (name, mode, why) in [
            ("x86-off", "poweroff", "powered off"),
            (
                "x86-liar",
                "liar",
                "line 2 of its environment is not <name>=<value>",
            ),
        ] {
            add(&host, name, &format!("mode={mode}\n"));
            let extra = format!("auxiliary-machine-a: x86-web\nauxiliary-machine: {name}\n");
            host.task(name, "linux-gcc", &extra);
            let _turns = guest::turns(2);
            let mut command = host.agent(&["--once"]);
            command.args(MEMORY).arg(host.path("controller"));
            let ran = crate::support::host::finish(command, TURN);
            let result = host.result(name).unwrap();
            assert!(result.contains("status: abort"), "{result}");
            assert!(
                result.contains(&format!("auxiliary machine {name}: ")),
                "{result}"
            );
            assert!(result.contains(why), "{result}");
            let rests = format!("machine {name} is not offered in the next 300 s");
            assert!(ran.err.contains(&rests), "{}", ran.err);
            assert!(ran.err.contains("auxiliary machine failure"), "{}", ran.err);
            assert_nothing_is_left(&host, &["x86-web", name]);
        }
    });
}

#[test]
fn a_killed_agent_leaves_no_auxiliary_machine() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        add(&host, "x86-a", "mode=silent\n");
        add(&host, "x86-b", "mode=silent\n");
        host.task(
            "one",
            "linux-gcc",
            "auxiliary-machine: x86-a\nauxiliary-machine-b: x86-b\n",
        );
        let _turns = guest::turns(2);
        let agent = |words: &[&str]| {
            let mut command = host.agent(words);
            command.args(MEMORY).arg(host.path("controller"));
            command
        };
        let killed: Process = host.start(agent(&["--once"]), "log");
        let log = || fs::read_to_string(host.path("log")).unwrap();
        within(TURN, "both run", || {
            log().contains("started auxiliary machine x86-b")
        });
        signal(&killed, nix::sys::signal::Signal::SIGKILL);
        drop(killed);
        // The next agent has no machines to offer, and gives the task back.
        for name in ["x86-a", "x86-b"] {
            fs::remove_file(host.machine(name).join(format!("{name}-1"))).unwrap();
        }
        let ran = crate::support::host::finish(agent(&["--once"]), TURN);
        assert!(
            ran.err.contains("was being built when the agent ended"),
            "{}",
            ran.err
        );
        for name in ["x86-a", "x86-b"] {
            symlink(
                format!("{name}-1.0"),
                host.machine(name).join(format!("{name}-1")),
            )
            .unwrap();
        }
        assert_nothing_is_left(&host, &["x86-a", "x86-b"]);
    });
}
