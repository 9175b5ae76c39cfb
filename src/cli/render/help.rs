//! `-h`, `--help` and `--version`.

use std::fmt::Write as _;

use super::super::flags::{Flag, Group, TABLE};
use super::sections::{DESCRIPTION, EXIT, SIGNALS, SYNOPSIS};
use super::{first_sentence, remarks, value, wrap};

/// Columns of a line.
const WIDTH: usize = 79;

/// Columns of the names on the left, in the summary and in the help.
const SUMMARY_INDENT: usize = 28;
const HELP_INDENT: usize = 26;

/// The text of `-h`: the first sentence of each option.
pub(super) fn summary() -> String {
    let mut out = String::new();
    synopsis(&mut out);
    for group in TABLE {
        section(&mut out, group, SUMMARY_INDENT, &|flag| {
            first_sentence(flag).to_owned()
        });
    }
    out.push_str("\nbbot-agent --help explains each option; man bbot-agent has examples.\n");
    out
}

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut out = String::new();
    synopsis(&mut out);
    for paragraph in DESCRIPTION {
        out.push('\n');
        wrap(&mut out, paragraph, 0, WIDTH);
    }
    for group in TABLE {
        section(&mut out, group, HELP_INDENT, &|flag| {
            format!("{}{}", flag.help, remarks(flag))
        });
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

fn synopsis(out: &mut String) {
    for (i, synopsis) in SYNOPSIS.iter().enumerate() {
        out.push_str(if i == 0 { "usage: " } else { "       " });
        // Writing to a String does not fail.
        let _ = writeln!(out, "bbot-agent {synopsis}");
    }
}

fn section(out: &mut String, group: &Group, indent: usize, text: &dyn Fn(&Flag) -> String) {
    let _ = write!(out, "\n{}:\n", group.title);
    for flag in group.flags {
        let mut left = flag.short.map_or(String::new(), |c| format!("-{c}, "));
        let _ = write!(left, "--{}", flag.name);
        if let Some((before, name, after)) = value(flag) {
            let _ = write!(left, "{before}<{name}>{after}");
        }
        item(out, &left, indent, &text(flag));
    }
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
pub(super) fn version() -> String {
    concat!(
        "bbot-agent ",
        env!("CARGO_PKG_VERSION"),
        "\nCopyright (c) the bbot-agent authors\n",
        "This is free software under the MIT license; --print-licenses lists what it contains.\n"
    )
    .to_owned()
}
