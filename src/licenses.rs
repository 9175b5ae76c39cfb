//! The crates that are linked into the program. The versions are those of `Cargo.lock`;
//! a test compares names and licenses with cargo's.

use std::fmt::Write as _;

const LOCK: &str = include_str!("../Cargo.lock");

/// Crates that are linked in, with their licenses (SPDX expressions).
const CRATES: &[(&str, &str)] = &[
    ("base64", "MIT OR Apache-2.0"),
    ("bitflags", "MIT OR Apache-2.0"),
    ("bytes", "MIT"),
    ("cfg-if", "MIT OR Apache-2.0"),
    ("errno", "MIT OR Apache-2.0"),
    ("getrandom", "MIT OR Apache-2.0"),
    ("http", "MIT OR Apache-2.0"),
    ("httparse", "MIT OR Apache-2.0"),
    ("itoa", "MIT OR Apache-2.0"),
    ("lexopt", "MIT"),
    ("libc", "MIT OR Apache-2.0"),
    ("log", "MIT OR Apache-2.0"),
    ("lz4_flex", "MIT"),
    ("memoffset", "MIT"),
    ("nix", "MIT"),
    ("once_cell", "MIT OR Apache-2.0"),
    ("percent-encoding", "MIT OR Apache-2.0"),
    ("ring", "Apache-2.0 AND ISC"),
    ("rustls", "Apache-2.0 OR ISC OR MIT"),
    ("rustls-pki-types", "MIT OR Apache-2.0"),
    ("rustls-webpki", "ISC"),
    ("signal-hook", "MIT OR Apache-2.0"),
    ("signal-hook-registry", "MIT OR Apache-2.0"),
    ("subtle", "BSD-3-Clause"),
    ("tftpd", "MIT"),
    ("twox-hash", "MIT"),
    ("untrusted", "ISC"),
    ("ureq", "MIT OR Apache-2.0"),
    ("ureq-proto", "MIT OR Apache-2.0"),
    ("utf8-zero", "MIT OR Apache-2.0"),
    ("zeroize", "Apache-2.0 OR MIT"),
];

/// Linked code that is not a crate.
const OTHERS: &[(&str, &str)] = &[
    ("Rust standard library", "MIT OR Apache-2.0"),
    ("musl C library", "MIT"),
];

/// Name, version and license of each crate.
pub fn crates() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    CRATES
        .iter()
        .map(|(name, license)| (*name, version(name), *license))
}

/// The version of a package in the lock file.
fn version(name: &str) -> &'static str {
    let mut lines = LOCK.lines();
    while let Some(line) = lines.next() {
        let found = line
            .strip_prefix("name = \"")
            .and_then(|rest| rest.strip_suffix('"'));
        if found == Some(name) {
            return lines
                .next()
                .and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
                .unwrap_or("?");
        }
    }
    "?"
}

/// The text of `--print-licenses`.
pub fn text() -> String {
    let mut out = String::from(concat!(
        "bbot-agent ",
        env!("CARGO_PKG_VERSION"),
        ": MIT\n\n"
    ));
    // Writing to a String does not fail.
    let _ = writeln!(out, "It contains:");
    for (name, version, license) in crates() {
        let name = format!("{name} {version}");
        let _ = writeln!(out, "  {name:<28} {license}");
    }
    for (name, license) in OTHERS {
        let _ = writeln!(out, "  {name:<28} {license}");
    }
    out.push_str("\nThe text of the MIT license:\n\n");
    out.push_str(include_str!("../LICENSE"));
    out
}
