//! House rules that a script can check: who imports whom, where the clock and
//! unsafe code may be, how long a file may get, how tests are named.

use std::fs;
use std::path::{Path, PathBuf};

/// For every module (a file or directory directly under `src`), the modules it
/// may name. Layers only point down; a row that would make a circle is a bug in
/// the design, not in this table.
const MAY_USE: &[(&str, &[&str])] = &[
    // 0: know nothing of each other.
    ("diag", &["error"]),
    ("backoff", &[]),
    ("breaker", &["backoff"]),
    ("error", &[]),
    ("json", &[]),
    ("lz4", &["error"]),
    ("manifest", &[]),
    ("sys", &[]),
    ("tar", &["error"]),
    ("units", &[]),
    // 1
    ("auth", &["manifest", "watch", "sys", "error"]),
    (
        "check",
        &[
            "auth",
            "cli",
            "controller",
            "diag",
            "error",
            "json",
            "lock",
            "machine",
            "machines",
            "manifest",
            "network",
            "snapshot",
            "status",
            "store",
            "sys",
            "user",
            "watch",
        ],
    ),
    ("cli", &["sys", "error", "diag"]),
    ("licenses", &[]),
    ("lock", &["sys", "error"]),
    ("network", &["sys", "diag", "error"]),
    ("snapshot", &["backoff", "sys", "diag", "error"]),
    ("store", &["json", "manifest", "sys", "diag", "error"]),
    ("user", &["sys", "error"]),
    ("tftp", &["sys", "diag", "error"]),
    ("status", &["json", "diag", "error"]),
    ("watch", &["status", "sys", "diag", "error"]),
    // 2
    (
        "controller",
        &["manifest", "store", "watch", "sys", "diag", "error"],
    ),
    (
        "outbox",
        &[
            "backoff",
            "controller",
            "store",
            "manifest",
            "status",
            "watch",
            "diag",
            "error",
        ],
    ),
    (
        "machine",
        &["json", "manifest", "network", "sys", "diag", "error"],
    ),
    // 3
    (
        "guest",
        &[
            "machine", "network", "snapshot", "tftp", "manifest", "status", "watch", "sys", "diag",
            "error",
        ],
    ),
    // 4: neither knows the other, or where a task came from.
    (
        "bootstrap",
        &[
            "guest", "machine", "snapshot", "tftp", "manifest", "status", "watch", "diag", "error",
        ],
    ),
    (
        "perform",
        &[
            "lz4", "guest", "machine", "snapshot", "tftp", "manifest", "status", "watch", "diag",
            "error",
        ],
    ),
    // 6: knows all the others.
    (
        "agent",
        &[
            "auth",
            "bootstrap",
            "breaker",
            "cli",
            "controller",
            "guest",
            "lock",
            "machine",
            "machines",
            "manifest",
            "network",
            "outbox",
            "perform",
            "snapshot",
            "status",
            "store",
            "sweep",
            "sys",
            "tar",
            "user",
            "watch",
            "diag",
            "error",
        ],
    ),
    // 5
    (
        "machines",
        &[
            "backoff",
            "bootstrap",
            "snapshot",
            "manifest",
            "watch",
            "sys",
            "diag",
            "error",
        ],
    ),
    (
        "sweep",
        &[
            "lock", "machines", "network", "snapshot", "sys", "diag", "error",
        ],
    ),
];

/// Files that may read a clock or sleep; all others take time as an argument.
const CLOCK: &[&str] = &[
    "agent/deliver.rs",
    "agent/mod.rs",
    "agent/offer.rs",
    "agent/turn.rs",
    "auth/openssl.rs",
    "controller/http.rs",
    "controller/transport.rs",
    "outbox/mod.rs",
    "diag/mod.rs",
    "guest/mod.rs",
    "guest/wait.rs",
    "machine/mod.rs",
    "machines/mod.rs",
    "machines/room.rs",
    "network/program.rs",
    "perform/mod.rs",
    "sys/poll.rs",
    "tftp/server.rs",
    "watch.rs",
];

/// Files that may read the wall clock, which may jump: for what people and
/// controllers are shown, and for names.
const WALL_CLOCK: &[&str] = &["agent/deliver.rs", "watch.rs"];

fn sources() -> Vec<PathBuf> {
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
    collect(&root().join("src"), &mut found);
    found.sort();
    assert!(found.len() > 10, "no sources found");
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

fn named_modules(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, prefix)| {
        let rest = &line[at + prefix.len()..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn layers_only_point_down() {
    let mut wrong = Vec::new();
    for path in sources() {
        let name = relative(&path);
        let module = name.split('/').next().unwrap().trim_end_matches(".rs");
        if ["lib", "main", "program"].contains(&module) {
            continue;
        }
        let Some((_, may)) = MAY_USE.iter().find(|(m, _)| *m == module) else {
            wrong.push(format!("{name}: module {module} has no row in MAY_USE"));
            continue;
        };
        for (number, line) in code(&path) {
            for used in named_modules(&line) {
                if used != module && used != "trace" && !used.is_empty() && !may.contains(&used) {
                    wrong.push(format!("{name}:{number}: {module} may not use {used}"));
                }
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

#[test]
fn a_source_file_is_one_idea() {
    let long: Vec<_> = sources()
        .iter()
        .map(|path| {
            (
                relative(path),
                fs::read_to_string(path).unwrap().lines().count(),
            )
        })
        .filter(|(_, lines)| *lines > 450)
        .collect();
    assert!(long.is_empty(), "longer than 450 lines: {long:?}");
}

#[test]
fn names_of_tests_state_facts_and_ignored_ones_a_reason() {
    let mut files = sources();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    for path in files {
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
