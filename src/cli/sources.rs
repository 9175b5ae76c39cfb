//! Where options come from: the command line, the environment, files. Each
//! source becomes a list of settings that remember where they stood.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use lexopt::Arg;

use super::flags::{self, Draft, Flag, Takes};
use super::similar::similar;
use super::value::{Expected, Value};
use crate::error::{Class, Context as _, Error, Result};

/// The environment variable with options.
pub(super) const ENVIRONMENT: &str = "BBOT_AGENT_OPTIONS";

/// The maximum size of an option file. Real ones have a few hundred bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The place of a setting, in front of a message about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    CommandLine,
    Environment,
    File { path: PathBuf, line: usize },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::CommandLine => Ok(()),
            Origin::Environment => write!(f, "{ENVIRONMENT}: "),
            Origin::File { path, line } => write!(f, "{}:{line}: ", path.display()),
        }
    }
}

/// An option or a controller, as it was written.
#[derive(Debug)]
pub(super) struct Setting {
    /// `None`: a controller.
    pub(super) flag: Option<&'static Flag>,
    pub(super) value: Option<OsString>,
    pub(super) origin: Origin,
}

/// An error in a setting, with the place of the setting.
pub(super) fn usage(origin: &Origin, what: impl fmt::Display) -> Error {
    wrong(origin, what, None)
}

fn wrong(origin: &Origin, what: impl fmt::Display, near: Option<String>) -> Error {
    let mut error = Error::new(format!("{origin}{what}")).with_class(Class::Usage);
    if let Some(near) = near {
        error = error.hint(format!("did you mean {near}?"));
    }
    error.hint("run bbot-agent --help for details")
}

/// Reads words as a shell would hand them over.
pub(super) fn words<I>(words: I, origin: &Origin) -> Result<Vec<Setting>>
where
    I: IntoIterator<Item = OsString>,
{
    let mut parser = lexopt::Parser::from_args(words);
    let mut settings = Vec::new();
    loop {
        let (flag, value) = match parser.next() {
            Ok(None) => return Ok(settings),
            Ok(Some(Arg::Value(word))) => {
                require_controller(&word, origin, settings.last())?;
                (None, Some(word))
            }
            Ok(Some(Arg::Long(name))) => {
                let Some(flag) = flags::find(name) else {
                    return Err(unknown(origin, name));
                };
                if !flag.anywhere && *origin != Origin::CommandLine {
                    let text = format!("option '--{}' is for the command line only", flag.name);
                    return Err(usage(origin, text));
                }
                let written = format!("--{name}");
                let mut value = parser.optional_value();
                if value.is_none()
                    && let Takes::Value(_) = flag.takes
                {
                    let next = parser
                        .raw_args()
                        .ok()
                        .and_then(|mut raw| raw.next_if(is_value));
                    if next.is_none() {
                        let text = format!("missing value of option '{written}'");
                        return Err(usage(
                            origin,
                            format_args!("{text}: expected {}", shape(flag)),
                        ));
                    }
                    value = next;
                }
                (Some(flag), value)
            }
            Ok(Some(Arg::Short(c))) => match flags::find_short(c) {
                Some(flag) if *origin == Origin::CommandLine => (Some(flag), None),
                _ => return Err(usage(origin, format_args!("unknown option '-{c}'"))),
            },
            Err(error) => return Err(usage(origin, error)),
        };
        settings.push(Setting {
            flag,
            value,
            origin: origin.clone(),
        });
    }
}

/// Refuses a word that cannot be a controller, `[<priority>=]<url>`, for instance an
/// option without its dashes. The rest is judged by the module `controller`.
fn require_controller(word: &OsStr, origin: &Origin, before: Option<&Setting>) -> Result<()> {
    let text = word.to_string_lossy();
    let url = match text.split_once('=') {
        Some((digits, url)) if digits.bytes().all(|c| c.is_ascii_digit()) => url,
        _ => &text,
    };
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = |known: &&str| scheme.eq_ignore_ascii_case(known);
    if url.starts_with('/') || ["http", "https", "file"].iter().any(is_scheme) {
        return Ok(());
    }
    let name = text.split([' ', '\t', '=']).next().unwrap_or_default();
    // It may contain a password.
    let shown = text.rsplit('@').next().unwrap_or_default();
    let optional = before
        .filter(|setting| setting.value.is_none() && !text.contains(['=', ':', '/']))
        .and_then(|setting| setting.flag)
        .filter(|flag| matches!(flag.takes, Takes::Maybe(_)));
    let near = match optional {
        Some(flag) => Some(format!("--{}={shown}", flag.name)),
        None => flags::find(name)
            .map(|flag| flag.name)
            .or(similar(name))
            .map(|known| format!("--{known}")),
    };
    let mut text = format!("invalid controller '{shown}'");
    if near.is_none() {
        text.push_str(": expected [<priority>=]<url>, with a priority of up to 5 digits, and an http:, https: or file: url or an absolute path");
    }
    Err(wrong(origin, text, near))
}

/// Whether a word can be the value of the option before it. One that begins
/// with two dashes is taken for the next option, and the value is missing.
/// `--name=--value` is unambiguous.
fn is_value(word: &OsStr) -> bool {
    !word.as_bytes().starts_with(b"--")
}

/// The value of an option as help writes it.
pub(super) fn shape(flag: &Flag) -> String {
    match flag.takes {
        Takes::Nothing => "nothing".to_owned(),
        Takes::Value(name) | Takes::Maybe(name) => format!("<{name}>"),
    }
}

fn unknown(origin: &Origin, name: &str) -> Error {
    let near = similar(name).map(|known| format!("--{known}"));
    wrong(origin, format_args!("unknown option '--{name}'"), near)
}

/// Reads the value of the environment variable: words, with `'...'` and
/// `"..."` around those that contain blanks.
pub(super) fn environment(text: &OsStr) -> Result<Vec<Setting>> {
    let mut found = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    for &c in text.as_bytes() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None => match c {
                b'"' | b'\'' => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                b' ' | b'\t' | b'\n' | b'\r' => found.extend(word.take()),
                _ => word.get_or_insert_default().push(c),
            },
        }
    }
    if quote.is_some() {
        return Err(usage(&Origin::Environment, "unterminated quoted string"));
    }
    found.extend(word);
    words(
        found.into_iter().map(OsString::from_vec),
        &Origin::Environment,
    )
}

/// Reads an option file.
pub(super) fn file(path: &Path) -> Result<Vec<Setting>> {
    let unable = || format!("unable to read option file {}", path.display());
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
        .context(unable)
        .map_err(|error| error.with_class(Class::Usage))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let error = Error::new(unable()).hint("it is larger than 1 MiB");
        return Err(error.with_class(Class::Usage));
    }
    file_text(&text, path)
}

/// Reads the text of an option file.
pub(super) fn file_text(text: &[u8], path: &Path) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (i, line) in text.split(|c| *c == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let origin = Origin::File {
            path: path.to_owned(),
            line: i + 1,
        };
        let mut one = words([OsString::from_vec(joined(line))], &origin)?;
        if one
            .iter()
            .any(|setting| setting.flag.is_some_and(|flag| flag.name == "options-file"))
        {
            let text = "an option file may not name another one";
            return Err(usage(&origin, text));
        }
        settings.append(&mut one);
    }
    Ok(settings)
}

/// A line as one word: `--name value` and `--name = "value"` become
/// `--name=value`.
fn joined(line: &[u8]) -> Vec<u8> {
    if !line.starts_with(b"--") {
        return unquoted(line).to_vec();
    }
    let end = line
        .iter()
        .position(|c| *c == b'=' || c.is_ascii_whitespace())
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_ascii_start();
    let value = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start();
    let mut word = name.to_vec();
    if !rest.is_empty() {
        word.push(b'=');
        word.extend_from_slice(unquoted(value));
    }
    word
}

/// Without the quotes around it, if there are.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => value,
    }
}

/// Stores what a source says. A list that it names starts over.
pub(super) fn store(draft: &mut Draft, settings: &[Setting]) -> Result<()> {
    for (i, setting) in settings.iter().enumerate() {
        let same = |other: &Setting| match (setting.flag, other.flag) {
            (Some(a), Some(b)) => a.name == b.name,
            (None, None) => true,
            _ => false,
        };
        let value = Value {
            raw: setting.value.as_deref(),
            first: !settings[..i].iter().any(same),
        };
        let stored = match setting.flag {
            Some(flag) => (flag.set)(draft, value).map_err(|expected| (flag, expected)),
            None => match value.push(&mut draft.options.controllers, value.word()) {
                Ok(()) => Ok(()),
                Err(Expected(what)) => {
                    let text = format!("invalid controller {}: expected {what}", quoted(value));
                    return Err(usage(&setting.origin, text));
                }
            },
        };
        stored.map_err(|(flag, Expected(what))| {
            let aliases = flag.aliases.iter().map(|name| format!(" or '--{name}'"));
            let text = format!(
                "invalid value {} of option '--{}'{}",
                quoted(value),
                flag.name,
                aliases.collect::<String>()
            );
            usage(&setting.origin, format_args!("{text}: expected {what}"))
        })?;
    }
    Ok(())
}

fn quoted(value: Value<'_>) -> String {
    format!("'{}'", value.raw.unwrap_or_default().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(settings: &[Setting]) -> Vec<String> {
        settings
            .iter()
            .map(|setting| {
                let value = setting.value.as_ref().map(|v| v.display().to_string());
                format!("{}={value:?}", setting.flag.map_or("", |flag| flag.name))
            })
            .collect()
    }

    #[test]
    fn a_file_has_one_option_a_line() {
        let text =
            b"# comment\n\n  --cpu 4\r\n--ram=1024\n--machines \"/a b\"\n--toolchain-id ''\n\
                     --legacy-request\n--hold = 0\nhttps://example.org/?a=b#c\n--trust";
        let error = file_text(text, Path::new("/o")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/o:10: missing value of option '--trust': expected <fingerprint>"
        );
        let text = &text[..text.len() - 8];
        assert_eq!(
            shown(&file_text(text, Path::new("/o")).unwrap()),
            [
                "cpu=Some(\"4\")",
                "ram=Some(\"1024\")",
                "machines=Some(\"/a b\")",
                "toolchain-id=Some(\"\")",
                "legacy-request=None",
                "hold=Some(\"0\")",
                "=Some(\"https://example.org/?a=b#c\")",
            ]
        );
    }

    #[test]
    fn a_file_may_not_ask_for_help_nor_for_another_file() {
        for line in ["--help", "--options-file /x", "--check"] {
            assert!(file_text(line.as_bytes(), Path::new("/o")).is_err());
        }
    }

    #[test]
    fn an_option_without_dashes_is_not_a_controller() {
        for line in ["cpu 4", "cpu=4", "machnies /m", "verbose"] {
            let text = format!("--ram 2G\n{line}\n");
            let error = file_text(text.as_bytes(), Path::new("/o")).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("/o:2: invalid controller '{line}'")
            );
            let hint = error.hints().next().unwrap_or_default();
            assert!(hint.starts_with("did you mean --"), "{hint}");
        }
        let error = file_text(b"user:secret@host", Path::new("/o")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/o:1: invalid controller 'host': expected [<priority>=]<url>, with a priority of up to \
             5 digits, and an http:, https: or file: url or an absolute path"
        );
        let error = file_text(b"warm\n", Path::new("/o")).unwrap_err();
        assert_eq!(error.hints().next(), Some("did you mean --warm?"));
        let line = ["--console", "x86_64-linux"].map(OsString::from);
        let error = words(line, &Origin::CommandLine).unwrap_err();
        assert_eq!(
            error.hints().next(),
            Some("did you mean --console=x86_64-linux?")
        );
        let line = ["--check", "F1=/dir"].map(OsString::from);
        let error = words(line, &Origin::CommandLine).unwrap_err().to_string();
        assert!(error.contains("up to 5 digits"), "{error}");
        for line in ["http://machines/", "1=/machines", "/cpu", "HTTPS://a"] {
            assert_eq!(
                file_text(line.as_bytes(), Path::new("/o")).unwrap().len(),
                1
            );
        }
    }

    #[test]
    fn the_environment_has_words_and_quotes() {
        let settings = environment(OsStr::new(
            " --cpu 4 '--machines=/a b'  /\"x y\"z --toolchain-id ''",
        ))
        .unwrap();
        assert_eq!(
            shown(&settings),
            [
                "cpu=Some(\"4\")",
                "machines=Some(\"/a b\")",
                "=Some(\"/x yz\")",
                "toolchain-id=Some(\"\")"
            ]
        );
        let error = environment(OsStr::new("--cpu '4")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "BBOT_AGENT_OPTIONS: unterminated quoted string"
        );
    }

    #[test]
    fn an_option_that_follows_is_not_the_value() {
        let given = ["--machines", "--tftp", "/x"].map(OsString::from);
        let error = words(given, &Origin::CommandLine).unwrap_err();
        assert_eq!(
            error.to_string(),
            "missing value of option '--machines': expected <dir>"
        );
        let given = ["--openssl-option=--x", "--fake-request", "-"].map(OsString::from);
        let settings = words(given, &Origin::CommandLine).unwrap();
        assert_eq!(
            shown(&settings),
            ["openssl-option=Some(\"--x\")", "fake-request=Some(\"-\")"]
        );
    }

    #[test]
    fn a_misspelled_option_gets_a_suggestion() {
        let given = ["--machnies", "/x"].map(OsString::from);
        let error = words(given, &Origin::CommandLine).unwrap_err();
        assert_eq!(error.to_string(), "unknown option '--machnies'");
        let hints: Vec<&str> = error.hints().collect();
        assert_eq!(
            hints,
            [
                "did you mean --machines?",
                "run bbot-agent --help for details"
            ]
        );
    }
}
