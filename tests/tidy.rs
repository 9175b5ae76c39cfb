//! House rules that a script can check: who imports whom, where the clock and
//! unsafe code may be, how long a file may get, how tests are named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that may read a clock or sleep; all others take time as an argument.
const CLOCK: &[&str] = &[
    "agent/build.rs",
    "agent/guests.rs",
    "agent/room.rs",
    "cgroup.rs",
    "check/frames.rs",
    "controller/http.rs",
    "controller/strict.rs",
    "controller/transport.rs",
    "delivery/clock.rs",
    "delivery/deliverer.rs",
    "diag/output.rs",
    "diag/record.rs",
    "guest/beside.rs",
    "guest/by_hand.rs",
    "guest/displace.rs",
    "guest/link.rs",
    "guest/mod.rs",
    "guest/resume.rs",
    "guest/template.rs",
    "guest/wait.rs",
    "lock.rs",
    "machine/mod.rs",
    "machines/mod.rs",
    "perform/auxiliary.rs",
    "perform/mod.rs",
    "perform/warm.rs",
    "sys/poll.rs",
    "sys/process.rs",
    "tftp/server.rs",
    "watch.rs",
];

/// Files that may read the wall clock, which may jump: for what people and
/// controllers are shown, and for names.
const WALL_CLOCK: &[&str] = &["delivery/clock.rs", "watch.rs"];

fn sources() -> Vec<PathBuf> {
    let found = rust_files("src");
    assert!(found.len() > 10, "no sources found");
    found
}

/// The Rust files below a directory of the project.
fn rust_files(dir: &str) -> Vec<PathBuf> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&root().join(dir), &mut found);
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    let src = root().join("src");
    path.strip_prefix(src).unwrap().to_str().unwrap().to_owned()
}

/// The code of a file: without comments, and without its unit tests, which
/// stand last.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        if !code.trim().is_empty() {
            lines.push((i + 1, code.to_owned()));
        }
    }
    lines
}

/// The modules in the map of `lib.rs` with their layers: rows `| 0 | [`name`] | ...`.
fn layers() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("//! | ")?.split(" | ");
        let layer = cells.next()?.parse().ok()?;
        let module = cells.next()?.strip_prefix("[`")?.strip_suffix("`]")?;
        Some((module.to_owned(), layer))
    };
    text.lines().filter_map(row).collect()
}

/// The modules that a path or a `use` of `text` names behind `crate::`.
fn named_modules(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = |text: &str| text.chars().take_while(|c| is_name(*c)).collect::<String>();
    let mut found = Vec::new();
    for (_, rest) in text
        .match_indices("crate::")
        .map(|(at, m)| text.split_at(at + m.len()))
    {
        let Some(group) = rest.strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        // The first name of each path at the top of the group.
        let (mut depth, mut is_start) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => is_start = true,
                c if is_start && is_name(c) => {
                    is_start = false;
                    found.push(name(&group[at..]));
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a_module_names_only_modules_of_lower_layers() {
    assert_eq!(
        named_modules("use crate::{a, b::{c, d}, e::f};\ncrate::g::h()"),
        ["a", "b", "e", "g"]
    );
    let layers = layers();
    let mut wrong = Vec::new();
    for path in sources() {
        let name = relative(&path);
        let module = name.split('/').next().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let Some(layer) = layers.get(module) else {
            wrong.push(format!(
                "{name}: module {module} is not in the map of lib.rs"
            ));
            continue;
        };
        let lines: Vec<_> = code(&path).into_iter().map(|(_, line)| line).collect();
        for used in named_modules(&lines.join("\n")) {
            // A macro is at the root of the crate.
            if used != module && layers.get(&used).is_some_and(|other| other >= layer) {
                wrong.push(format!("{name}: {module} may not use {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_only() {
    for path in sources() {
        let name = relative(&path);
        if name.starts_with("sys/") {
            continue;
        }
        for (number, line) in code(&path) {
            // As a keyword, not in a text: QEMU has an option value of that name.
            let unsafe_here = ["{", "fn", "impl", "extern", "("]
                .iter()
                .any(|next| line.contains(&format!("unsafe {next}")) || line.contains("unsafe("));
            assert!(!unsafe_here, "{name}:{number}: unsafe outside sys");
        }
    }
}

#[test]
fn only_the_loops_read_the_clock() {
    let mut wrong = Vec::new();
    for path in sources() {
        let name = relative(&path);
        if CLOCK.contains(&name.as_str()) {
            continue;
        }
        for (number, line) in code(&path) {
            for clock in ["Instant::now", "SystemTime::now", "thread::sleep"] {
                if line.contains(clock) {
                    wrong.push(format!("{name}:{number}: {clock}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_wall_clock_decides_nothing() {
    let mut wrong = Vec::new();
    for path in sources() {
        let name = relative(&path);
        if WALL_CLOCK.contains(&name.as_str()) {
            continue;
        }
        for (number, line) in code(&path) {
            for clock in [
                "SystemTime::now",
                "UNIX_EPOCH.elapsed",
                "CLOCK_REALTIME",
                ".modified()",
            ] {
                if line.contains(clock) {
                    wrong.push(format!("{name}:{number}: {clock}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The figure `name` of the ratchet; see `tests/manifest/allocations.rs`.
fn hold(name: &str, found: &[String]) {
    let held = u64::try_from(found.len()).unwrap();
    let known = crate::manifest::allocations::held(name);
    assert!(
        held <= known,
        "{name}: {held}, {known} in tests/data/ratchet:\n{}",
        found.join("\n")
    );
}

/// A type name has one meaning in the crate.
#[test]
fn public_types_have_names_of_their_own() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources() {
        for (number, line) in code(&path) {
            let line = line.trim_start();
            let Some(rest) = ["pub struct ", "pub enum ", "pub trait "]
                .iter()
                .find_map(|kind| line.strip_prefix(kind))
            else {
                continue;
            };
            let name = rest
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect();
            let place = format!("{}:{number}", relative(&path));
            places.entry(name).or_default().push(place);
        }
    }
    places.retain(|_, places| places.len() > 1);
    let twice = places
        .iter()
        .map(|(name, places)| format!("{name}: {}", places.join(", ")));
    hold("types-of-one-name", &twice.collect::<Vec<_>>());
}

/// A comment has a noun as its subject, and no word of a private dialect.
#[test]
fn comments_are_plain_english() {
    const OPENINGS: &[&str] = &[
        "What ",
        "Who ",
        "Whom ",
        "That ",
        "One that ",
        "Those that ",
    ];
    const WORDS: &[&str] = &[
        "ours",
        "theirs",
        "somebody",
        "lament",
        "vouch",
        "patience",
        "owes",
        "owed",
        "in vain",
        "gone wild",
        "be it that",
        "last words",
        "comes to nothing",
    ];
    let mut wrong = Vec::new();
    for path in sources() {
        let file = fs::read_to_string(&path).unwrap();
        let mut is_first = true;
        for (at, line) in file.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else {
                is_first = true;
                continue;
            };
            let text = comment.trim_start_matches(['/', '!']).trim_start();
            let is_opening = is_first && comment.starts_with(['/', '!']);
            is_first = false;
            let words: Vec<_> = text.split(|c: char| !c.is_ascii_alphabetic()).collect();
            let words = format!(" {} ", words.join(" ").to_lowercase());
            if is_opening && OPENINGS.iter().any(|opening| text.starts_with(opening))
                || WORDS
                    .iter()
                    .any(|word| words.contains(&format!(" {word} ")))
            {
                wrong.push(format!("{}:{}: {text}", relative(&path), at + 1));
            }
        }
    }
    hold("comments-to-reword", &wrong);
}

#[test]
fn a_source_file_is_one_idea() {
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count();
    let mut files = [sources(), rust_files("tests")].concat();
    files.retain(|path| lines(path) > 450);
    assert!(files.is_empty(), "longer than 450 lines: {files:?}");
}

#[test]
fn names_of_tests_state_facts_and_ignored_ones_a_reason() {
    for path in [sources(), rust_files("tests")].concat() {
        let text = fs::read_to_string(&path).unwrap();
        // Spelled so that this line does not find itself.
        for bad in [concat!("fn te", "st_"), concat!("#[ign", "ore]")] {
            assert!(!text.contains(bad), "{}: {bad}", path.display());
        }
    }
}

#[test]
fn every_wait_between_turns_has_a_reason() {
    // `idle` takes one; `pause` is for waits within a phase, which has a name
    // already. The loop and what it calls between turns may only use the former.
    let mut idle = 0;
    for path in sources() {
        let name = relative(&path);
        for (number, line) in code(&path) {
            if name.starts_with("agent/") {
                assert!(!line.contains(".pause("), "{name}:{number}: no reason");
                idle += usize::from(line.contains(".idle("));
            }
        }
    }
    assert!(idle > 0, "nothing waits between turns");
}

/// Programs of Debian's essential packages and of git, make and Rust, which every
/// machine has; and those that a package in setup's list brings with it.
const ALWAYS: &[&str] = &[
    "/bin/sh",
    "/bin/true",
    "awk",
    "bash",
    "cargo",
    "chmod",
    "chroot",
    "cp",
    "env",
    "git",
    "iconv",
    "kill",
    "ldd",
    "make",
    "mkfifo",
    "mount",
    "sh",
    "sleep",
    "tar",
    "taskset",
    "timeout",
    "umount",
    "fsfreeze",
    "gcc",
    "btrfs",
    "rustc",
    "ld",
    "as",
    "systemctl",
    "systemd-analyze",
    "fuse",
    "true",
];

#[test]
fn every_program_of_a_test_is_one_that_setup_gets() {
    let list = std::process::Command::new(root().join("tests/tools/setup"))
        .args(["--list", "test"])
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let known: Vec<&str> = list.lines().chain(ALWAYS.iter().copied()).collect();
    let mut wrong = Vec::new();
    for path in rust_files("tests") {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        if name.starts_with("tests/bench") || name == file!() {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for asked in asked_programs(&text) {
            if !known.contains(&asked) {
                wrong.push(format!("{name}: {asked}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not in tests/tools/setup:\n{}",
        wrong.join("\n")
    );
}

/// The programs that are literals in calls of these functions.
fn asked_programs(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for call in ["program(\"", "Command::new(\"", "run(\"", "run(&format!(\""] {
        for (at, _) in text.match_indices(call) {
            // Part of a longer name.
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &text[at + call.len()..];
            found.extend(rest.split(['"', ' ', '\\']).next());
        }
    }
    for (at, call) in text.match_indices("require_programs(&[") {
        let list = &text[at + call.len()..];
        let list = list.split(']').next().unwrap_or_default();
        found.extend(list.split('"').skip(1).step_by(2));
    }
    found.retain(|name| !name.is_empty() && !name.starts_with(['{', '-']));
    found
}
