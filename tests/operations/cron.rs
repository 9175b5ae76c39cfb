//! What cron does to its jobs: no environment, no terminal, descriptors closed
//! or full, a working directory that is gone.

use std::fs;
use std::process::{Command, Stdio};

use bbot_agent::manifest::ResultManifest;

use super::super::support::{isolated, run};
use super::{Host, said};

#[test]
fn a_turn_survives_what_cron_does_to_it() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let gone = host.path("gone");
        for (number, script) in [
            "exec \"$@\" <&-",
            "exec \"$@\" >&-",
            "exec \"$@\" 2>&-",
            "exec \"$@\" <&- >&- 2>&-",
            "exec \"$@\" >/dev/full 2>&1",
            "mkdir $GONE && cd $GONE && rmdir $GONE && exec \"$@\"",
        ]
        .iter()
        .enumerate()
        {
            for task in [false, true] {
                let result = task.then(|| host.drop_task(&format!("t{number}")));
                let status = Command::new("/bin/sh")
                    .args(["-c", script, "sh", env!("CARGO_BIN_EXE_bbot-agent")])
                    .args(host.options())
                    .args(["--once", "--verbose=2", "--fake-build"])
                    .arg(host.spool())
                    .env_clear()
                    .env("GONE", &gone)
                    .stdin(Stdio::null())
                    .status()
                    .unwrap();
                assert_eq!(status.code(), Some(0), "{script}");
                if let Some(result) = result {
                    let text = fs::read(&result).expect(script);
                    let result = ResultManifest::parse(&text, "result").unwrap();
                    assert_eq!(result.name, "libfoo", "{script}");
                }
            }
        }
    });
}

#[test]
fn turns_of_their_own_bootstrap_a_bad_machine_seldom_and_report_it_once() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let copy = host.volume.path().join("default/linux/linux-default");
        run(&format!("btrfs -q subvolume delete {}", copy.display()));
        let starts = host.path("starts");
        let qemu = host.qemu(&format!("echo >>{}\nexit 1", starts.display()));
        let spool = host.spool();
        let turn = || host.run(&["--once", &qemu, &spool]);
        let first = turn();
        assert_eq!(first.status.code(), Some(1), "{}", said(&first));
        assert!(said(&first).contains("1 are broken"), "{}", said(&first));
        let count = fs::read(&starts).unwrap().len();
        for _ in 0..3 {
            let next = turn();
            assert_eq!(next.status.code(), Some(1), "{}", said(&next));
            assert_eq!(said(&next), "");
        }
        assert_eq!(fs::read(&starts).unwrap().len(), count);

        // The failures of a former boot are forgotten, and so are those of a revision
        // that is no longer used.
        let kept = host.path("state/default-1/bootstraps");
        let text = fs::read_to_string(&kept).unwrap();
        fs::write(&kept, text.replace("\"boot\":\"", "\"boot\":\"x")).unwrap();
        let next = turn();
        assert!(said(&next).contains("error: "), "{}", said(&next));
        let count = fs::read(&starts).unwrap().len();
        let machine = copy.parent().unwrap();
        let (old, new) = (machine.join("linux-1.0"), machine.join("linux-1.1"));
        let command = format!("mv {} {}", old.display(), new.display());
        run(&command);
        run(&format!(
            "ln -sfn linux-1.1 {}",
            machine.join("linux-1").display()
        ));
        turn();
        assert!(fs::read(&starts).unwrap().len() > count);
    });
}

#[test]
fn a_result_for_a_full_standard_output_is_an_error_and_not_a_panic() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.drop_task("t");
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let output = host
            .agent(&["--once", "--fake-build", "--dump-result", &host.spool()])
            .stdout(full.unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(71));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "error: unable to write to standard output: No space left on device\n"
        );
    });
}

#[test]
fn options_may_come_from_a_file_and_the_environment() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let mut text = String::from("# the agent of this host\n\n");
        for option in host.options() {
            text.push_str(&option.replacen('=', " ", 1));
            text.push('\n');
        }
        text.push_str(&host.spool());
        text.push('\n');
        let file = host.path("agent.options");
        fs::write(&file, &text).unwrap();
        let agent = |arguments: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_bbot-agent"))
                .args(arguments)
                .env_clear()
                .env(
                    "BBOT_AGENT_OPTIONS",
                    format!("--options-file '{}'", file.display()),
                )
                .output()
                .unwrap()
        };
        let output = agent(&["--once"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{error}");
        fs::write(&file, format!("{text}--cpu none\n")).unwrap();
        let output = agent(&["--once"]);
        assert_eq!(output.status.code(), Some(64));
        let line = text.lines().count() + 1;
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!(
                "error: {}:{line}: invalid value 'none' of option '--cpu': expected a number \
                 from 1 to 1024\ninfo: run bbot-agent --help for details\n",
                file.display()
            )
        );
    });
}
