//! The manual page, in the man(7) macros.

use std::fmt::Write as _;

use super::super::flags::TABLE;
use super::sections::{DESCRIPTION, ENVIRONMENT, EXIT, FILES, SIGNALS, SYNOPSIS};
use super::{remarks, value};

/// `bbot-agent(1)`.
#[must_use]
pub fn man() -> String {
    let mut out = String::from(".TH BBOT-AGENT 1 \"\" \"bbot-agent ");
    out.push_str(&escaped(env!("CARGO_PKG_VERSION")));
    out.push_str("\" \"User Commands\"\n.SH NAME\nbbot\\-agent \\- build2 build bot agent\n");
    out.push_str(".SH SYNOPSIS\n");
    for (i, synopsis) in SYNOPSIS.iter().enumerate() {
        if i > 0 {
            out.push_str(".br\n");
        }
        let _ = writeln!(out, ".B bbot\\-agent\n{}", marked(synopsis));
    }
    out.push_str(".SH DESCRIPTION\n");
    for (i, paragraph) in DESCRIPTION.iter().enumerate() {
        if i > 0 {
            out.push_str(".PP\n");
        }
        let _ = writeln!(out, "{}", marked(paragraph));
    }
    out.push_str(".SH OPTIONS\n");
    for group in TABLE {
        let _ = writeln!(out, ".SS {}", group.title);
        for flag in group.flags {
            let _ = write!(out, ".TP\n\\fB{}\\fR", escaped(&format!("--{}", flag.name)));
            if let Some((before, name, after)) = value(flag) {
                let _ = write!(out, "{before}\\fI{}\\fR{after}", escaped(name));
            }
            let text = format!("{}{}", flag.help, remarks(flag));
            let _ = writeln!(out, "\n{}", marked(&text));
            for alias in flag.aliases {
                let _ = writeln!(out, "Also: {}.", marked(&format!("--{alias}")));
            }
        }
    }
    let items = |out: &mut String, title: &str, items: &[(&str, &str)]| {
        let _ = writeln!(out, ".SH {title}");
        for (name, meaning) in items {
            let _ = writeln!(out, ".TP\n.B \"{}\"\n{}", escaped(name), marked(meaning));
        }
    };
    items(&mut out, "SIGNALS", SIGNALS);
    out.push_str(".SH \"EXIT STATUS\"\n");
    for (status, meaning) in EXIT {
        let _ = writeln!(out, ".TP\n.B {status}\n{}", marked(meaning));
    }
    items(&mut out, "ENVIRONMENT", ENVIRONMENT);
    items(&mut out, "FILES", FILES);
    out.push_str(
        ".SH \"SEE ALSO\"\n.BR qemu (1),\n.BR btrfs (8),\n.BR sd_notify (3),\n.BR systemd.exec (5)\n",
    );
    out
}

/// Text with options in bold and values in italics.
fn marked(text: &str) -> String {
    let mut out = String::new();
    for (i, word) in text.split(' ').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        let mut rest = word;
        while !rest.is_empty() {
            let option = rest.find("--").unwrap_or(rest.len());
            let value = rest.find('<').unwrap_or(rest.len());
            if value < option {
                let end = rest[value..]
                    .find('>')
                    .map_or(rest.len(), |end| value + end + 1);
                out.push_str(&escaped(&rest[..value]));
                let name = rest[value..end].trim_matches(['<', '>']);
                let _ = write!(out, "\\fI{}\\fR", escaped(name));
                rest = &rest[end..];
            } else if option < rest.len() {
                let length = rest[option..]
                    .find(|c: char| !(c.is_ascii_lowercase() || c == '-'))
                    .unwrap_or(rest.len() - option);
                out.push_str(&escaped(&rest[..option]));
                let end = option + length;
                let _ = write!(out, "\\fB{}\\fR", escaped(&rest[option..end]));
                rest = &rest[end..];
            } else {
                out.push_str(&escaped(rest));
                rest = "";
            }
        }
    }
    out
}

/// Text in which nothing is markup: a hyphen is a minus, so that options can be
/// copied from the page, and no line begins with a control character.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '"' => out.push_str("\\(dq"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_bold_and_values_are_slanted() {
        assert_eq!(
            marked("see --check=<x> or <a>-1."),
            "see \\fB\\-\\-check\\fR=\\fIx\\fR or \\fIa\\fR\\-1."
        );
    }
}
