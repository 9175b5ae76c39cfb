//! Help, manual page and completions, all from the table of options.

mod bash;
mod fish;
mod help;
mod man;
mod sections;
mod zsh;

use super::flags::{Default, Flag, Takes};
use super::{AboutText, Shell, Unit};
use crate::{licenses, units};

/// A text about the program.
pub fn text(text: AboutText) -> String {
    match text {
        AboutText::Summary => help::summary(),
        AboutText::Help => help::help(),
        AboutText::Version => help::version(),
        AboutText::Unit(Unit::Service) => units::service(),
        AboutText::Unit(Unit::Once) => units::once(),
        AboutText::Unit(Unit::Timer) => units::timer(),
        AboutText::Unit(Unit::Needrestart) => units::needrestart(),
        AboutText::Manual => man::man(),
        AboutText::Completion(Shell::Bash) => bash::completion(),
        AboutText::Completion(Shell::Zsh) => zsh::completion(),
        AboutText::Completion(Shell::Fish) => fish::completion(),
        AboutText::Licenses => licenses::text(),
    }
}

/// The remarks behind the help of an option: repetition and default.
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

/// The first sentence of the help of an option, without its full stop.
fn first_sentence(flag: &Flag) -> &'static str {
    flag.help
        .split_once(". ")
        .map_or(flag.help, |(first, _)| first)
        .trim_end_matches('.')
}

/// The value behind the name, as `("=", "dir", "")`, with `[=...]` where it is
/// optional.
fn value(flag: &Flag) -> Option<(&'static str, &'static str, &'static str)> {
    match flag.takes {
        Takes::Nothing => None,
        Takes::Value(name) => Some((" ", name, "")),
        Takes::Maybe(name) => Some(("[=", name, "]")),
    }
}

/// Appends `text` in lines of at most `width` columns, each after `indent` blanks. The
/// blanks of the first line are there already.
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
