//! The command line of the program itself: what it prints and how it exits.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};

use bbot_agent::cli::{self, AboutText, Invocation, Shell};
use bbot_agent::platform::HOST_QEMU;

fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bbot-agent"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    agent(args).output().unwrap()
}

/// Compares with a file under `tests/data/cli`; `BBOT_AGENT_GOLDEN=write`
/// writes it instead.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/cli")
        .join(name);
    if std::env::var_os("BBOT_AGENT_GOLDEN").is_some_and(|value| value == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (number, (is, was)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is, was, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(text, expected, "run with BBOT_AGENT_GOLDEN=write to accept");
}

#[test]
fn help_manual_and_completion_are_as_reviewed() {
    for (name, text) in [
        ("summary.txt", AboutText::Summary),
        ("help.txt", AboutText::Help),
        ("bbot-agent.1", AboutText::Manual),
        ("completion.bash", AboutText::Completion(Shell::Bash)),
        ("completion.zsh", AboutText::Completion(Shell::Zsh)),
        ("completion.fish", AboutText::Completion(Shell::Fish)),
    ] {
        // As on hosts with x86-64; the manual escapes hyphens.
        let default = |name| format!("Default: {name}.");
        let (own, usual) = (default(HOST_QEMU), default("qemu-system-x86_64"));
        let text = cli::text(text).replace(&own, &usual);
        let escape = |text: &str| text.replace('-', "\\-");
        golden(name, &text.replace(&escape(&own), &escape(&usual)));
    }
}

#[test]
fn help_fits_a_terminal() {
    for text in [AboutText::Help, AboutText::Summary].map(cli::text) {
        for line in text.lines() {
            assert!(line.len() < 80, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }
}

#[test]
fn the_manual_is_good_roff() {
    let Ok(groff) = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-z"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return super::support::skip("no groff");
    };
    let output = feed(groff, &cli::text(AboutText::Manual));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(complaints.is_empty(), "{complaints}");
}

#[test]
fn bash_completes_options_and_their_words() {
    let script = format!(
        "{}
        complete_line() {{
            COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _bbot_agent 2>/dev/null
            echo \"${{COMPREPLY[*]}}\"
        }}
        complete_line bbot-agent --toolchain-n
        complete_line bbot-agent --accel ''
        complete_line bbot-agent --check = j
        complete_line bbot-agent --check json
        complete_line bbot-agent --accel = t
        complete_line bbot-agent --accel =
        complete_line bbot-agent --machines /pro
        complete_line bbot-agent --bridge ''
        ",
        cli::text(AboutText::Completion(Shell::Bash))
    );
    let bash = Command::new("bash")
        .args(["--norc", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(bash) = bash else {
        return super::support::skip("no bash");
    };
    let output = feed(bash, &script);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "--toolchain-name --toolchain-num\nkvm tcg auto\njson\n\ntcg\nkvm tcg auto\n/proc\n\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn zsh_completes_options_and_their_words() {
    let zsh = Command::new("zsh")
        .args(["-f", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(zsh) = zsh else {
        return super::support::skip("no zsh");
    };
    let dir = super::support::TempDir::new();
    let text = cli::text(AboutText::Completion(Shell::Zsh));
    fs::write(dir.path().join("_bbot-agent"), text).unwrap();
    // Completion needs a line editor, which needs a terminal. Each line is executed, too,
    // and fails, since there is no such program.
    let script = format!(
        "(sleep 60; kill $$) >/dev/null 2>&1 &!
        zmodload zsh/zpty
        zpty z 'TERM=dumb zsh -f -i'
        zpty -w z 'fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; PATH=; echo REA''DY'
        zpty -r z out '*READY*'
        for line in --toolchain-na --accel=t --check=j --print-completion=z; do
            zpty -n -w z \"bbot-agent $line\"$'\\t\\n'
            zpty -r z out '*not found*'
            print -r -- $out
        done
        exit
        ",
        dir.path().display()
    );
    let output = feed(zsh, &script);
    let text = String::from_utf8_lossy(&output.stdout);
    for completed in [
        "--toolchain-name=",
        "--accel=tcg",
        "--check=json",
        "--print-completion=zsh",
    ] {
        assert!(text.contains(completed), "{completed}: {text}");
    }
}

#[test]
fn fish_completes_options_and_their_words() {
    let fish = Command::new("fish")
        .args(["--no-config"])
        .env("HOME", std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(fish) = fish else {
        return super::support::skip("no fish");
    };
    let script = format!(
        "{}
        complete -C 'bbot-agent --toolchain-nu'
        complete -C 'bbot-agent --accel '
        complete -C 'bbot-agent --check=j'
        ",
        cli::text(AboutText::Completion(Shell::Fish))
    );
    let output = feed(fish, &script);
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text
        .lines()
        .map(|line| line.split('\t').next().unwrap_or_default())
        .collect();
    assert_eq!(
        words,
        ["--toolchain-num", "auto", "kvm", "tcg", "--check=json"],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The settings of an option file with this text.
fn parse_options_file(text: &[u8]) -> bbot_agent::error::Result<Box<cli::Options>> {
    let file = memfd_create("options", MFdFlags::empty()).unwrap();
    File::from(file.try_clone().unwrap())
        .write_all(text)
        .unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let args = ["--check", "--options-file", &path].map(OsString::from);
    match cli::parse(args, &|_| None)? {
        Invocation::Check(options, _) => Ok(options),
        other => panic!("{other:?}"),
    }
}

/// The bounded version of the fuzz target `options`: the seeds, mutated.
#[test]
fn no_option_file_makes_the_reader_panic() {
    let seeds: Vec<Vec<u8>> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/options"))
            .unwrap()
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
    // xorshift64: the same sequence in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).unwrap()
    };
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut text = seeds[random(seeds.len())].clone();
        for _ in 0..=random(3) {
            let at = random(text.len());
            match random(4) {
                0 => text[at] = u8::try_from(random(256)).unwrap(),
                1 => text.truncate(at + 1),
                2 => text.insert(at, b"\n=-'\" #"[random(7)]),
                _ => {
                    let other = &seeds[random(seeds.len())];
                    let from = random(other.len());
                    text.extend_from_slice(&other[from..]);
                }
            }
        }
        match parse_options_file(&text) {
            Ok(options) => {
                assert!(options.poll_interval >= std::time::Duration::from_secs(1));
                assert!(options.ram >= 1024 && options.bridge.len() <= 15);
                read += 1;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.starts_with("/proc/self/fd/"), "{text}");
                refused += 1;
            }
        }
    }
    assert!(
        read > 1000 && refused > 1000,
        "{read} read, {refused} refused"
    );
}

fn feed(mut child: std::process::Child, text: &str) -> Output {
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

#[test]
fn a_wrong_command_line_exits_64_and_prints_nothing_to_stdout() {
    let output = run(&["--fro"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: unknown option '--fro'\ninfo: run bbot-agent --help for details\n"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_full_standard_output_is_an_error_and_not_a_panic() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = agent(&["--help"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(71));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: unable to write to standard output: No space left on device\n"
    );
}

#[test]
fn a_full_standard_error_does_no_harm() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = agent(&["--fro"]).stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}
