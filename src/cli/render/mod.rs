//! Help, manual page and completion, all from the table of options.

mod bash;
mod help;
mod man;
mod sections;

use super::flags::{Default, Flag, Takes};

pub use self::bash::bash_completion;
pub use self::help::{help, usage, version};
pub use self::man::man;

/// The remarks behind an option's help: default, repetition, environment.
fn remarks(flag: &Flag) -> String {
    let mut text = String::new();
    if flag.repeats {
        text.push_str(" May be given several times.");
    }
    if let Default::Is(value) | Default::Means(value) = flag.default {
        text.push_str(" Default: ");
        text.push_str(value);
        text.push('.');
    }
    text
}

/// The value behind the name, as `("=", "dir")`, with `[=...]` where it is optional.
fn value(flag: &Flag) -> Option<(&'static str, &'static str, &'static str)> {
    match flag.takes {
        Takes::Nothing => None,
        Takes::Value(name) => Some((" ", name, "")),
        Takes::Maybe(name) => Some(("[=", name, "]")),
    }
}

/// Appends `text` in lines of at most `width` columns, each after `indent`
/// blanks, the first of which stand already.
fn wrap(out: &mut String, text: &str, indent: usize, width: usize) {
    let mut column = indent;
    let mut first = true;
    for word in text.split_whitespace() {
        if !first {
            if column + 1 + word.len() > width {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else {
                out.push(' ');
                column += 1;
            }
        }
        out.push_str(word);
        column += word.len();
        first = false;
    }
    out.push('\n');
}
