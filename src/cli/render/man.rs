//! The manual page, in the man(7) macros.

use std::fmt::Write as _;

use super::super::flags::TABLE;
use super::sections::{DESCRIPTION, ENVIRONMENT, EXIT, FILES, SIGNALS, SYNOPSIS};
use super::{remarks, value};

/// The sections by task. `@@` stands for those that are made from tables.
///
/// `# ` begins a section, four blanks a line of an example, and `* ` a term whose
/// explanation is the next line, after two blanks. A blank line ends a paragraph.
const MANUAL: &str = include_str!("manual.txt");

/// `bbot-agent(1)`.
pub(super) fn man() -> String {
    let mut out = String::from(".TH BBOT-AGENT 1 \"\" \"bbot-agent ");
    out.push_str(&escaped(env!("CARGO_PKG_VERSION")));
    out.push_str("\" \"User Commands\"\n.SH NAME\nbbot\\-agent \\- build2 build bot agent\n");
    out.push_str(".SH SYNOPSIS\n");
    for (i, synopsis) in SYNOPSIS.iter().enumerate() {
        if i > 0 {
            out.push_str(".br\n");
        }
        // Writing to a String does not fail.
        let _ = writeln!(out, ".B bbot\\-agent\n{}", marked(synopsis));
    }
    out.push_str(".SH DESCRIPTION\n");
    for (i, paragraph) in DESCRIPTION.iter().enumerate() {
        if i > 0 {
            out.push_str(".PP\n");
        }
        let _ = writeln!(out, "{}", marked(paragraph));
    }
    let (before, after) = MANUAL.split_once("@@\n").unwrap_or((MANUAL, ""));
    sections(&mut out, before);
    options(&mut out);
    items(&mut out, "SIGNALS", SIGNALS);
    out.push_str(".SH \"EXIT STATUS\"\n");
    for (status, meaning) in EXIT {
        let _ = writeln!(out, ".TP\n.B {status}\n{}", marked(meaning));
    }
    items(&mut out, "ENVIRONMENT", ENVIRONMENT);
    items(&mut out, "FILES", FILES);
    sections(&mut out, after);
    out.push_str(
        ".SH \"SEE ALSO\"\n.BR qemu (1),\n.BR btrfs (8),\n.BR sd_notify (3),\n.BR systemd.exec (5)\n",
    );
    out
}

fn options(out: &mut String) {
    out.push_str(".SH OPTIONS\n");
    for group in TABLE {
        let _ = writeln!(out, ".SS {}", group.title);
        for flag in group.flags {
            out.push_str(".TP\n");
            if let Some(c) = flag.short {
                let _ = write!(out, "\\fB\\-{c}\\fR, ");
            }
            let _ = write!(out, "\\fB{}\\fR", escaped(&format!("--{}", flag.name)));
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
}

fn items(out: &mut String, title: &str, items: &[(&str, &str)]) {
    let _ = writeln!(out, ".SH {title}");
    for (name, meaning) in items {
        let _ = writeln!(out, ".TP\n.B \"{}\"\n{}", escaped(name), marked(meaning));
    }
}

/// Sections of [`MANUAL`].
fn sections(out: &mut String, text: &str) {
    let mut lines = text.lines().peekable();
    let mut is_first = true;
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("# ") {
            let _ = writeln!(out, ".SH \"{title}\"");
            is_first = true;
        } else if let Some(term) = line.strip_prefix("* ") {
            let _ = writeln!(out, ".TP\n\\fB{}\\fR", escaped(term));
        } else if let Some(meaning) = line.strip_prefix("  ").filter(|l| !l.starts_with(' ')) {
            let _ = writeln!(out, "{}", marked(meaning));
        } else if let Some(first) = line.strip_prefix("    ") {
            let _ = writeln!(out, ".PP\n.RS 4\n.nf\n{}", escaped(first));
            while let Some(next) = lines.next_if(|next| next.starts_with("    ")) {
                let _ = writeln!(out, "{}", escaped(&next[4..]));
            }
            out.push_str(".fi\n.RE\n");
        } else if !line.is_empty() {
            if !is_first {
                out.push_str(".PP\n");
            }
            let _ = writeln!(out, "{}", marked(line));
            is_first = false;
        }
    }
}

/// AboutText with options in bold and values in italics.
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

/// AboutText in which nothing is markup: a hyphen is a minus, so that options can be
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
