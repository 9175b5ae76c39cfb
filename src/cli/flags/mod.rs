//! The one table of options. The parser, `--help`, the manual page and the
//! completion are all read off it, so that they cannot disagree.
//!
//! A row says how an option is written, what it means and which field it sets.
//! Setting only stores: what a value refers to is looked at by its user.

mod build;
mod controllers;
mod host;
mod interactive;
mod modes;
mod sharing;

use super::options::Options;
use super::value::{Expected, Value};
use super::{AboutText, Format};

/// One option.
#[derive(Debug)]
pub(super) struct Flag {
    /// Long name, without the dashes.
    pub(super) name: &'static str,
    /// Short name.
    pub(super) short: Option<char>,
    /// Other names that mean the same, for command lines of other versions.
    pub(super) aliases: &'static [&'static str],
    /// The value behind the name.
    pub(super) takes: Takes,
    /// How a shell completes the value.
    pub(super) complete: Complete,
    /// The value without the option.
    pub(super) default: Default,
    /// Each occurrence adds to a list.
    pub(super) repeats: bool,
    /// May stand in an option file and in the environment.
    pub(super) anywhere: bool,
    /// Sentences for help and manual. `<...>` is a value, `--...` an option.
    pub(super) help: &'static str,
    /// Stores the value.
    pub(super) set: fn(&mut Draft, Value<'_>) -> Result<(), Expected>,
}

/// The value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, or `=yes` or `=no`.
    Nothing,
    /// A value, named for help.
    Value(&'static str),
    /// Nothing, or `=` and a value.
    Maybe(&'static str),
}

/// How a shell completes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complete {
    /// Not at all.
    Nothing,
    /// A file name.
    File,
    /// A directory name.
    Directory,
    /// One of these.
    Words(&'static [&'static str]),
}

/// The value of an option that is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    /// Nothing that is worth a word.
    None,
    /// This value, parsed like any other.
    Is(&'static str),
    /// Something that has to be described.
    Means(&'static str),
}

/// Options that belong together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) flags: &'static [Flag],
}

/// A row to start from.
const FLAG: Flag = Flag {
    name: "",
    short: None,
    aliases: &[],
    takes: Takes::Nothing,
    complete: Complete::Nothing,
    default: Default::None,
    repeats: false,
    anywhere: true,
    help: "",
    set: |_, _| Ok(()),
};

/// The table, in the order of help.
pub(super) const TABLE: &[Group] = &[
    modes::MODES,
    modes::SOURCES,
    controllers::CONTROLLERS,
    build::MACHINES,
    build::GUESTS,
    interactive::INTERACTIVE,
    host::HOST,
    sharing::SHARING,
    host::TRIALS,
];

/// Every option.
pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    TABLE.iter().flat_map(|group| group.flags)
}

/// The option called `name`, without the dashes.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name || flag.aliases.contains(&name))
}

/// The option with the short name `c`.
pub(super) fn find_short(c: char) -> Option<&'static Flag> {
    match c {
        'h' => Some(&modes::SUMMARY),
        c => all().find(|flag| flag.short == Some(c)),
    }
}

/// The settings that the sources add up to.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) options: Options,
    /// The modes that were asked for, each with its option, in order.
    pub(super) modes: Vec<(&'static str, Mode)>,
    /// The value of `--proxy`.
    pub(super) proxy: Option<String>,
    pub(super) dry_run: bool,
    pub(super) failed: bool,
    /// `--follow`.
    pub(super) follow: bool,
    pub(super) console: Option<String>,
    /// The machine of `--shell`.
    pub(super) shell: String,
    /// The directory of `--resume`.
    pub(super) resume: std::path::PathBuf,
    pub(super) once: bool,
    pub(super) no_wait: bool,
    pub(super) dump_task: bool,
    pub(super) dump_result: bool,
    pub(super) files: Vec<std::path::PathBuf>,
}

/// A mode of the program other than to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Print(AboutText),
    Check(Format),
    Status(Format),
    Console,
    Shell,
    Resume,
    Gc,
    DumpMachines,
}

/// The draft in which every option has its default.
pub(super) fn defaults() -> Draft {
    let mut draft = Draft {
        options: Options::blank(),
        modes: Vec::new(),
        proxy: None,
        dry_run: false,
        failed: false,
        follow: false,
        console: None,
        shell: String::new(),
        resume: std::path::PathBuf::new(),
        once: false,
        no_wait: false,
        dump_task: false,
        dump_result: false,
        files: Vec::new(),
    };
    for flag in all() {
        if let Default::Is(text) = flag.default {
            let value = Value {
                raw: Some(std::ffi::OsStr::new(text)),
                first: true,
            };
            let stored = (flag.set)(&mut draft, value);
            debug_assert_eq!(stored, Ok(()), "default of --{}", flag.name);
        }
    }
    draft
}

impl std::default::Default for Options {
    fn default() -> Options {
        defaults().options
    }
}

/// Stores a value that was understood.
fn put<T>(slot: &mut T, value: Result<T, Expected>) -> Result<(), Expected> {
    *slot = value?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_the_option_accepts() {
        // In release builds a default that is not would go unnoticed.
        for flag in all() {
            if let Default::Is(text) = flag.default {
                let value = Value {
                    raw: Some(std::ffi::OsStr::new(text)),
                    first: true,
                };
                let stored = (flag.set)(&mut defaults(), value);
                assert_eq!(stored, Ok(()), "--{}", flag.name);
                assert!(matches!(flag.takes, Takes::Value(_)), "--{}", flag.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_spelled_alike() {
        let mut names: Vec<&str> = all()
            .flat_map(|flag| std::iter::once(flag.name).chain(flag.aliases.iter().copied()))
            .collect();
        for name in &names {
            assert!(
                name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'-'),
                "{name}"
            );
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_option_is_explained_in_sentences() {
        for flag in all() {
            let help = flag.help;
            assert!(
                help.starts_with(|c: char| c.is_ascii_uppercase()),
                "--{}",
                flag.name
            );
            assert!(help.ends_with('.'), "--{}", flag.name);
            assert!(!help.contains("  "), "--{}", flag.name);
            assert!(help.is_ascii(), "--{}", flag.name);
        }
    }

    #[test]
    fn options_that_are_mentioned_exist() {
        let mentioned = |text: &'static str| {
            text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
                .filter_map(|word| word.strip_prefix("--"))
                .filter(|name| !name.is_empty())
        };
        for flag in all() {
            for name in mentioned(flag.help) {
                assert!(find(name).is_some(), "--{} mentions --{name}", flag.name);
            }
        }
    }

    #[test]
    fn lists_start_over_in_a_source_that_wins_and_grow_within_it() {
        let samples = [
            "a=1",
            "http://a",
            "a",
            &"0:".repeat(32)[..63],
            &"00:".repeat(32)[..95],
        ];
        for flag in all().filter(|flag| flag.repeats && flag.name != "options-file") {
            let good = samples.iter().find(|text| {
                let raw = Some(std::ffi::OsStr::new(**text));
                (flag.set)(&mut defaults(), Value { raw, first: true }).is_ok()
            });
            let raw = Some(std::ffi::OsStr::new(*good.expect(flag.name)));
            let mut once = defaults();
            (flag.set)(&mut once, Value { raw, first: true }).unwrap();
            let mut again = once.clone();
            (flag.set)(&mut again, Value { raw, first: true }).unwrap();
            assert_eq!(once.options, again.options, "--{}", flag.name);
            (flag.set)(&mut again, Value { raw, first: false }).unwrap();
            assert_ne!(once.options, again.options, "--{}", flag.name);
        }
    }
}
