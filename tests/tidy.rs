//! House rules that a script can check: who imports whom, where the clock and
//! unsafe code may be, how long a file may get, how tests are named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that may read a clock or sleep; all others take time as an argument.
const CLOCK: &[&str] = &[
    "agent/build.rs",
    "agent/host.rs",
    "auth/openssl.rs",
    "controller/http.rs",
    "controller/transport.rs",
    "delivery/clock.rs",
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
const WALL_CLOCK: &[&str] = &["delivery/clock.rs", "watch.rs"];

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
