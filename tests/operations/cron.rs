//! What cron does to its jobs: no environment, no terminal, descriptors closed
//! or full, a working directory that is gone.

use std::fs;
use std::process::{Command, Stdio};

use bbot_agent::manifest::ResultManifest;

use super::super::support::isolated;
use super::Host;

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
