//! The command line of the program itself: what it prints and how it exits.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bbot_agent::cli;

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
    golden("help.txt", &cli::help());
    golden("bbot-agent.1", &cli::man());
    golden("completion.bash", &cli::bash_completion());
}

#[test]
fn help_fits_a_terminal() {
    for line in cli::help().lines() {
        assert!(line.len() < 80, "{line}");
        assert_eq!(line, line.trim_end());
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
    let output = feed(groff, &cli::man());
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
        cli::bash_completion()
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
        match cli::parse_options_file(&text, Path::new("/o")) {
            Ok(options) => {
                assert!(options.poll_interval >= std::time::Duration::from_secs(1));
                assert!(options.ram >= 1024 && options.bridge.len() <= 15);
                read += 1;
            }
            Err(error) => {
                assert!(error.to_string().starts_with("/o:"), "{error}");
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
    use std::io::Write as _;
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

#[test]
fn help_goes_through_the_pager_on_a_terminal_only() {
    let output = agent(&["--help"])
        .env("PAGER", "/nonexistent/pager")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), cli::help());

    // script(1) provides the terminal.
    let script = Command::new("script")
        .args(["-qec"])
        .arg(format!("{} --help", env!("CARGO_BIN_EXE_bbot-agent")))
        .arg("/dev/null")
        .env("PAGER", "tr a-z A-Z")
        .stdin(Stdio::null())
        .output();
    match script {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.starts_with("USAGE: BBOT-AGENT"), "{text}");
        }
        Err(_) => super::support::skip("no script(1)"),
    }
}
