//! `--status --follow`, on a terminal and on none.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bbot_agent::json::Value;
use nix::sys::signal::Signal;

use crate::support::{Process, TempDir, eventually, require_programs};

const AGENT: &str = env!("CARGO_BIN_EXE_bbot-agent");

/// Leaves the state of an agent that has ended, as one replaces it.
fn leave(run_dir: &Path, phase: &str) {
    let directory = run_dir.join("default-1");
    fs::create_dir_all(&directory).unwrap();
    let text = format!(
        "{{\"pid\":1,\"pid_start\":0,\"toolchain\":\"default\",\"instance\":1,\
         \"phase\":\"{phase}\",\"work\":\"{phase}\",\"since\":1,\"since_monotonic\":1}}\n"
    );
    let new = directory.join("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, directory.join("status.json")).unwrap();
}

/// Follows two states into a file, and ends by a signal. Returns the output.
fn followed(format: &str, signal: Signal) -> String {
    let dir = TempDir::new();
    let run_dir = dir.path().join("run");
    let output = dir.path().join("output");
    leave(&run_dir, "stopped");
    let child = Command::new(AGENT)
        .args([format, "--follow", "--run-dir"])
        .arg(&run_dir)
        .stdout(File::create(&output).unwrap())
        .stdin(Stdio::null())
        .spawn();
    let mut process = Process(child.unwrap());
    let said = || fs::read_to_string(&output).unwrap();
    eventually("the first state is there", || said().contains("stopped"));
    // The time since then is no change.
    std::thread::sleep(Duration::from_millis(2500));
    leave(&run_dir, "building");
    eventually("the next state is there", || said().contains("building"));
    super::signal(&process.0, signal);
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    said()
}

#[test]
fn each_change_of_the_state_is_a_block_or_a_line_of_json() {
    let text = followed("--status", Signal::SIGINT);
    let blocks: Vec<_> = text.split("\n\n").collect();
    let [first, second] = blocks[..] else {
        panic!("{text}")
    };
    assert!(first.starts_with("default-1: stopped "), "{text}");
    assert!(
        second.starts_with("default-1: not running, was building"),
        "{text}"
    );

    let text = followed("--status=json", Signal::SIGTERM);
    let phases: Vec<_> = text
        .lines()
        .map(|line| {
            let agents = Value::parse(line).unwrap();
            let agent = &agents.as_array().unwrap()[0];
            agent.get("phase").unwrap().as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(phases, ["stopped", "building"]);
}

#[test]
fn the_state_stays_at_one_place_of_a_terminal_and_does_not_scroll_it() {
    if !require_programs(&["script", "timeout"]) {
        return;
    }
    let dir = TempDir::new();
    leave(dir.path(), "stopped");
    // It is interrupted as by a user, and one of the three lines fits.
    let command = format!(
        "stty rows 3 cols 19; timeout --foreground --preserve-status -s INT 4 \
         {AGENT} --status --follow --run-dir {}",
        dir.path().display()
    );
    for agent in ["default-2", "default-3"] {
        let copy = dir.path().join(agent);
        fs::create_dir(&copy).unwrap();
        let state = dir.path().join("default-1/status.json");
        fs::copy(state, copy.join("status.json")).unwrap();
    }
    let typescript = dir.path().join("typescript");
    let child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdout(File::create(&typescript).unwrap())
        .stdin(Stdio::null())
        .spawn();
    let mut process = Process(child.unwrap());
    let said = || fs::read_to_string(&typescript).unwrap();
    eventually("a screen is there", || said().contains("\x1b[J"));
    leave(dir.path(), "building");
    assert_eq!(process.0.wait().unwrap().code(), Some(0), "{:?}", said());
    let text = said();
    let screens: Vec<_> = text.split("\x1b[H").skip(1).collect();
    // The rest of the line, with the time that has passed, is not seen.
    assert_eq!(screens.len(), 2, "{text:?}");
    for (screen, phase) in screens.into_iter().zip(["stopped ", "not runn"]) {
        let lines: Vec<_> = screen.lines().collect();
        let [first, more, last] = lines[..] else {
            panic!("{text:?}")
        };
        assert_eq!(more, "... 2 more lines\x1b[K", "{text:?}");
        assert_eq!(first, format!("default-1: {phase}\x1b[K"), "{text:?}");
        assert!(last.starts_with("\x1b[J"), "{text:?}");
    }
}

#[test]
fn a_follower_ends_when_its_reader_has() {
    let dir = TempDir::new();
    leave(dir.path(), "stopped");
    let child = Command::new(AGENT)
        .args(["--status", "--follow", "--run-dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn();
    let mut process = Process(child.unwrap());
    let mut output = process.0.stdout.take().unwrap();
    output.read_exact(&mut [0]).unwrap();
    drop(output);
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
}
