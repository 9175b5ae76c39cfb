//! `--help`, `-h` and `--version`.

use std::fmt::Write as _;

use super::super::flags::{Flag, TABLE};
use super::sections::{DESCRIPTION, EXIT, SIGNALS, SYNOPSIS};
use super::{remarks, value, wrap};

/// Columns of a line, and of the names on the left.
const WIDTH: usize = 79;
const LEFT: usize = 26;

/// The text of `--help`.
#[must_use]
pub fn help() -> String {
    let mut out = String::new();
    for (i, synopsis) in SYNOPSIS.iter().enumerate() {
        out.push_str(if i == 0 { "usage: " } else { "       " });
        let _ = writeln!(out, "bbot-agent {synopsis}");
    }
    for paragraph in DESCRIPTION {
        out.push('\n');
        wrap(&mut out, paragraph, 0, WIDTH);
    }
    for group in TABLE {
        let _ = write!(out, "\n{}:\n", group.title);
        for flag in group.flags {
            let text = format!("{}{}", flag.help, remarks(flag));
            item(&mut out, &left(flag), LEFT, &text);
        }
    }
    out.push_str("\nSignals:\n");
    for (signal, meaning) in SIGNALS {
        item(&mut out, signal, 18, meaning);
    }
    out.push_str("\nExit status:\n");
    for (status, meaning) in EXIT {
        item(&mut out, &status.to_string(), 6, meaning);
    }
    out
}

/// The text of `-h`: the options with the first sentence of their help.
pub fn usage() -> String {
    let mut out = String::new();
    for (i, synopsis) in SYNOPSIS.iter().enumerate() {
        out.push_str(if i == 0 { "usage: " } else { "       " });
        let _ = writeln!(out, "bbot-agent {synopsis}");
    }
    for group in TABLE {
        let _ = write!(out, "\n{}:\n", group.title);
        for flag in group.flags {
            let sentence = flag.help.split_inclusive(['.', ';', ':']).next();
            let sentence = sentence.unwrap_or_default().trim_end_matches([';', ':']);
            item(&mut out, &left(flag), LEFT, sentence);
        }
    }
    out.push_str("\nbbot-agent --help describes them.\n");
    out
}

/// An option with its value.
fn left(flag: &Flag) -> String {
    let mut left = format!("--{}", flag.name);
    if let Some((before, name, after)) = value(flag) {
        let _ = write!(left, "{before}<{name}>{after}");
    }
    left
}

/// A name on the left, its meaning on the right, which begins on a line of its
/// own when the name is too long.
fn item(out: &mut String, left: &str, indent: usize, text: &str) {
    let _ = write!(out, "  {left}");
    let column = left.len() + 2;
    if column + 2 > indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
    } else {
        out.extend(std::iter::repeat_n(' ', indent - column));
    }
    wrap(out, text, indent, WIDTH);
}

/// The text of `--version`.
#[must_use]
pub fn version() -> String {
    concat!(
        "bbot-agent ",
        env!("CARGO_PKG_VERSION"),
        "\nCopyright (c) the bbot-agent authors\n",
        "This is free software under the MIT license; --print-licenses lists what it contains.\n"
    )
    .to_owned()
}
