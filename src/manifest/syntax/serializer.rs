//! From pairs to text.

use std::fmt;
use std::mem;

use super::chars::{self, CR, CharClass, LF, NEEDS_CHECK, find};

/// A line has at most 78 characters, the backslash of a continuation included.
const WIDTH: usize = 78;

/// A line is broken at a blank only behind this many characters; before that, a
/// ragged line costs more than a word cut in two.
const SOFT: usize = 57;

/// With this many characters of name, colon and space there would be no room
/// left for a value on the same line.
const MAX_INDENT: usize = 39;

/// The form in which pairs are written. All styles read back alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Start a multi-line value with `name: \` instead of a backslash on its own line.
    /// Readers before 2021 know no other form.
    pub old_form: bool,
    /// Do not wrap.
    pub long_lines: bool,
}

impl Style {
    /// The style of build2's current tools, to the byte.
    pub const TODAY: Style = Style {
        old_form: false,
        long_lines: false,
    };

    /// The style that all readers since 2017 understand.
    pub const OLD: Style = Style {
        old_form: true,
        long_lines: false,
    };
}

/// The reason why a pair cannot be written.
///
/// `Display` is `<target>: error: <what>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerializeError {
    /// The name of the text, or empty.
    pub target: String,
    /// The reason.
    pub what: String,
}

impl fmt::Display for SerializeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.target.is_empty() {
            write!(f, "{}: ", self.target)?;
        }
        write!(f, "error: {}", self.what)
    }
}

impl std::error::Error for SerializeError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Body,
    End,
}

/// Writes a stream of manifests, pair by pair.
///
/// The calls mirror what [`Parser`](super::Parser) returns: an empty name with
/// `1` starts a manifest, an empty name with an empty value ends it, and a
/// second one in a row ends the stream.
///
/// ```
/// use bbot_agent::manifest::{Serializer, Style};
///
/// let mut serializer = Serializer::new("output", Style::TODAY);
/// serializer.pair("", "1")?;
/// serializer.pair("name", "libfoo")?;
/// assert_eq!(serializer.into_text(), ": 1\nname: libfoo\n");
/// # Ok::<(), bbot_agent::manifest::SerializeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Serializer<'a> {
    target: &'a str,
    style: Style,
    text: String,
    state: State,
    wrote_version: bool,
}

impl<'a> Serializer<'a> {
    /// A writer in the style `style`.
    pub fn new(target: &'a str, style: Style) -> Serializer<'a> {
        Serializer {
            target,
            style,
            text: String::new(),
            state: State::Start,
            wrote_version: false,
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Reserves memory for values of this many bytes, without their names.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        // Wrapping adds at most two bytes to every 58.
        self.text.reserve(bytes + bytes / 29);
    }

    /// Writes one pair, plain or special.
    pub fn pair(&mut self, name: &str, value: &str) -> Result<(), SerializeError> {
        match (self.state, name, value) {
            (State::End, ..) => self.fail("serialization after eos"),
            (State::Start, "", "") => {
                self.state = State::End;
                Ok(())
            }
            (State::Body, "", "") => {
                self.state = State::Start;
                Ok(())
            }
            (State::Start | State::Body, "", version) => self.start(version),
            (State::Start, ..) => self.fail("format version pair expected"),
            (State::Body, ..) => {
                let indent = self.name(name)?;
                self.value(value, indent)
            }
        }
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T, SerializeError> {
        Err(SerializeError {
            target: self.target.to_owned(),
            what: what.into(),
        })
    }

    fn fail_character<T>(&self, part: &str, class: CharClass) -> Result<T, SerializeError> {
        self.fail(format!(
            "invalid {part}: invalid Unicode codepoint ({class})"
        ))
    }

    fn start(&mut self, version: &str) -> Result<(), SerializeError> {
        if version != "1" {
            return self.fail(format!("unsupported format version {version}"));
        }
        let first = !mem::replace(&mut self.wrote_version, true);
        self.text.push_str(if first { ": 1\n" } else { ":\n" });
        self.state = State::Body;
        Ok(())
    }

    /// Writes the name and a colon. Returns their width with a space, in characters.
    fn name(&mut self, name: &str) -> Result<usize, SerializeError> {
        if name.starts_with('#') {
            return self.fail("name starts with '#'");
        }
        for c in name.chars() {
            match c {
                ' ' | '\t' | '\n' | '\r' => return self.fail("name contains whitespace"),
                ':' => return self.fail("name contains ':'"),
                _ => {}
            }
            if let Some(class) = chars::class(c) {
                return self.fail_character("name", class);
            }
        }
        self.text.push_str(name);
        self.text.push(':');
        Ok(name.chars().count() + 2)
    }

    fn value(&mut self, value: &str, indent: usize) -> Result<(), SerializeError> {
        if value.is_empty() {
            self.text.push('\n');
            return Ok(());
        }
        self.reserve(value.len() + 8);
        let is_multi_line = indent > MAX_INDENT
            || value.starts_with([' ', '\t'])
            || value.ends_with([' ', '\t'])
            || find::<{ LF | CR }>(value.as_bytes(), 0) < value.len();
        if !is_multi_line {
            self.text.push(' ');
            self.fragments(value, indent)?;
            self.text.push('\n');
            return Ok(());
        }
        let introducer = if self.style.old_form {
            " \\\n"
        } else {
            "\n\\\n"
        };
        self.text.push_str(introducer);
        self.fragments(value, 0)?;
        self.text.push_str("\n\\\n");
        Ok(())
    }

    /// Writes a value line by line, the first one at column `indent`.
    fn fragments(&mut self, value: &str, indent: usize) -> Result<(), SerializeError> {
        let bytes = value.as_bytes();
        // The text before `done` has been written. Adjacent lines without changes are
        // written together.
        let mut done = 0;
        let mut line = 0;
        let mut at = 0;
        let mut column = indent;
        let mut is_ascii = true;
        loop {
            at = find::<{ LF | CR | NEEDS_CHECK }>(bytes, at);
            match bytes.get(at) {
                Some(b'\n' | b'\r') | None => {}
                Some(_) => {
                    is_ascii = false;
                    match chars::skip_graphic(value, at) {
                        Ok(end) => at = end,
                        Err((_, class)) => return self.fail_character("value", class),
                    }
                    continue;
                }
            }
            let fragment = &value[line..at];
            // A text has at least as many bytes as characters, so no long line is
            // missed.
            if column + fragment.len() > WIDTH && !self.style.long_lines {
                self.text.push_str(&value[done..line]);
                done = at;
                if is_ascii {
                    self.wrap_ascii(fragment, column);
                } else {
                    self.wrap(fragment, column);
                }
            }
            if fragment.ends_with('\\') {
                self.text.push_str(&value[done..at]);
                self.text.push('\\');
                done = at;
            }
            match bytes.get(at) {
                None => break,
                Some(b'\r') => {
                    // CR and CRLF come out as LF: a CR cannot be read back.
                    self.text.push_str(&value[done..at]);
                    self.text.push('\n');
                    at += 1 + usize::from(bytes.get(at + 1) == Some(&b'\n'));
                    done = at;
                }
                Some(_) => at += 1,
            }
            line = at;
            column = 0;
            is_ascii = true;
        }
        self.text.push_str(&value[done..]);
        Ok(())
    }

    /// Writes one line in pieces of at most [`WIDTH`] characters.
    fn wrap(&mut self, fragment: &str, mut column: usize) {
        let mut done = 0;
        for (at, _) in fragment.char_indices() {
            if breaks(fragment.as_bytes(), at, column) {
                self.text.push_str(&fragment[done..at]);
                self.text.push_str("\\\n");
                done = at;
                column = 0;
            }
            column += 1;
        }
        self.text.push_str(&fragment[done..]);
    }

    /// As [`Self::wrap`] for ASCII: no break can come before [`SOFT`], so that part is
    /// skipped at once.
    fn wrap_ascii(&mut self, fragment: &str, mut column: usize) {
        let mut done = 0;
        let mut at = 0;
        loop {
            let unbroken = (SOFT + 1).saturating_sub(column);
            at += unbroken;
            column += unbroken;
            if at >= fragment.len() {
                break;
            }
            if breaks(fragment.as_bytes(), at, column) {
                self.text.push_str(&fragment[done..at]);
                self.text.push_str("\\\n");
                done = at;
                column = 0;
            }
            at += 1;
            column += 1;
        }
        self.text.push_str(&fragment[done..]);
    }
}

/// Whether a line that has `column` characters is broken before the one at `at`.
#[inline]
fn breaks(fragment: &[u8], at: usize, column: usize) -> bool {
    let rest = &fragment[at..];
    let is_blank = matches!(rest[0], b' ' | b'\t');
    // The last character may stand where the backslash would have.
    let is_full = column >= WIDTH - usize::from(rest.len() > 1);
    if column <= SOFT || !(is_full || is_blank) {
        return false;
    }
    // A break behind a backslash would read back as an escaped one.
    if at > 0 && fragment[at - 1] == b'\\' {
        return false;
    }
    is_full || !word_fits(rest, column)
}

/// Whether the blank that `rest` starts with, and the word behind it, fit on a
/// line that has `column` characters: bytes, as libbutl counts them.
fn word_fits(rest: &[u8], column: usize) -> bool {
    // One character more than fit decides.
    let width = WIDTH.saturating_sub(column);
    let seen = &rest[1..rest.len().min(width + 2)];
    match seen.iter().position(|b| matches!(b, b' ' | b'\t')) {
        Some(length) => column + 1 + length < WIDTH,
        None => column + 1 + seen.len() <= WIDTH,
    }
}
