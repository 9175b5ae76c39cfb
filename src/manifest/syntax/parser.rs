//! From text to pairs.

use std::borrow::Cow;

use super::chars::{BLANK, COLON, CR, LF, NEEDS_CHECK};
use super::error::{ParseError, Position};

/// A name, its value, and their places.
///
/// Two pairs are special: an empty name with a value is the start of a manifest
/// (the value is the format version), an empty name with an empty value is the
/// end of a manifest or of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The name.
    pub name: &'a str,
    /// The value without its escapes; borrowed if it had none.
    pub value: Cow<'a, str>,
    /// Offset of the name, for [`Parser::position`].
    pub name_at: usize,
    /// Offset of the first character of the value.
    pub value_at: usize,
}

impl Pair<'_> {
    /// Whether this is the end of a manifest or of the stream.
    pub fn is_end(&self) -> bool {
        self.name.is_empty() && self.value.is_empty()
    }
}

/// ParseLimits beyond which a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimits {
    /// Bytes of the whole text. This also bounds the number of lines and the
    /// length of a value, so those have no limit of their own.
    pub size: usize,
    /// Pairs in all manifests of the text, version pairs included. They take memory
    /// beyond the text itself.
    pub pairs: usize,
    /// Bytes of one name.
    pub name: usize,
}

impl Default for ParseLimits {
    /// 512 MiB, more than any source of manifests delivers; 100,000 pairs, a thousand
    /// times what a result has; names of 1,024 bytes.
    fn default() -> ParseLimits {
        ParseLimits {
            size: 512 << 20,
            pairs: 100_000,
            name: 1024,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Body,
    End,
}

/// Reads a stream of manifests, pair by pair.
///
/// ```
/// use bbot_agent::manifest::Parser;
///
/// let mut parser = Parser::new(b": 1\nname: libfoo\n", "input");
/// parser.next_pair()?; // the format version
/// let pair = parser.next_pair()?;
/// assert_eq!((pair.name, &*pair.value), ("name", "libfoo"));
/// assert_eq!(parser.position(pair.value_at).column, 7);
/// assert!(parser.next_pair()?.is_end()); // of the manifest
/// assert!(parser.next_pair()?.is_end()); // of the stream
/// # Ok::<(), bbot_agent::manifest::ParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    source: &'a str,
    size: usize,
    /// The text as far as it is UTF-8.
    pub(super) text: &'a str,
    /// The rest, empty if all of it is.
    pub(super) bad: &'a [u8],
    pub(super) at: usize,
    state: State,
    seen_version: bool,
    pairs: usize,
    limits: ParseLimits,
}

impl<'a> Parser<'a> {
    /// A parser of `text`; errors name it `source`.
    pub fn new(text: &'a [u8], source: &'a str) -> Parser<'a> {
        Parser::with_limits(text, source, ParseLimits::default())
    }

    /// A parser with other limits.
    pub fn with_limits(text: &'a [u8], source: &'a str, limits: ParseLimits) -> Parser<'a> {
        let size = text.len();
        // The first call refuses a text over the limit.
        let readable = if text.len() > limits.size { b"" } else { text };
        let (text, bad) = match std::str::from_utf8(readable) {
            Ok(text) => (text, &[][..]),
            Err(error) => {
                let (good, bad) = readable.split_at(error.valid_up_to());
                // The good part is always UTF-8.
                (std::str::from_utf8(good).unwrap_or_default(), bad)
            }
        };
        Parser {
            source,
            size,
            text,
            bad,
            at: 0,
            state: State::Start,
            seen_version: false,
            pairs: 0,
            limits,
        }
    }

    /// The next pair. At the end of the stream, every call returns an end pair.
    pub fn next_pair(&mut self) -> Result<Pair<'a>, ParseError> {
        if self.state == State::End {
            return Ok(self.end());
        }
        if self.size > self.limits.size {
            let what = format!(
                "{} bytes, over the limit of {}",
                self.size, self.limits.size
            );
            return Err(self.error(0, what));
        }
        self.skip_blank_lines()?;
        if self.is_eof(self.at) {
            // The end of an open manifest is an empty pair, too.
            self.state = match self.state {
                State::Body => State::Start,
                State::Start | State::End => State::End,
            };
            return Ok(self.end());
        }
        if self.state == State::Body && self.byte(self.at) == Some(b':') {
            self.state = State::Start;
            return Ok(self.end());
        }
        self.pairs += 1;
        if self.pairs > self.limits.pairs {
            let what = format!("more than {} values", self.limits.pairs);
            return Err(self.error(self.at, what));
        }
        let mut pair = self.pair()?;
        if self.state == State::Start {
            self.check_version(&mut pair)?;
            self.state = State::Body;
        }
        Ok(pair)
    }

    /// The pairs of the next manifest, `None` at the end of the stream.
    pub fn next_manifest(&mut self) -> Result<Option<Vec<Pair<'a>>>, ParseError> {
        if self.next_pair()?.is_end() {
            return Ok(None);
        }
        // A machine has about eight values.
        let mut pairs = Vec::with_capacity(8);
        loop {
            let pair = self.next_pair()?;
            if pair.is_end() {
                return Ok(Some(pairs));
            }
            pairs.push(pair);
        }
    }

    /// The line and column of `offset`. Linear in `offset`, as only errors need it.
    pub fn position(&self, offset: usize) -> Position {
        let mut position = Position { line: 1, column: 1 };
        let mut was_cr = false;
        for c in self.text.get(..offset).unwrap_or(self.text).chars() {
            match c {
                // A run of CRs, with an LF behind it or not, is one newline.
                '\r' | '\n' if was_cr => {}
                '\r' | '\n' => {
                    position.line += 1;
                    position.column = 1;
                }
                _ => position.column += 1,
            }
            was_cr = c == '\r';
        }
        position
    }

    /// The offset behind the last pair.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// An error at `offset`.
    pub fn error(&self, offset: usize, what: impl Into<String>) -> ParseError {
        ParseError {
            kind: None,
            source: self.source.to_owned(),
            position: self.position(offset),
            what: shortened(what.into()),
        }
    }

    fn end(&self) -> Pair<'a> {
        Pair {
            name_at: self.at,
            value_at: self.at,
            ..Pair::default()
        }
    }

    fn check_version(&mut self, pair: &mut Pair<'a>) -> Result<(), ParseError> {
        if !pair.name.is_empty() {
            return Err(self.error(pair.name_at, "format version pair expected"));
        }
        if pair.value.is_empty() {
            if !self.seen_version {
                return Err(self.error(pair.value_at, "format version value expected"));
            }
            pair.value = Cow::Borrowed("1");
        } else if pair.value != "1" {
            let what = format!("unsupported format version {}", pair.value);
            return Err(self.error(pair.value_at, what));
        }
        self.seen_version = true;
        Ok(())
    }

    fn pair(&mut self) -> Result<Pair<'a>, ParseError> {
        let name_at = self.at;
        self.at = self.skip::<{ COLON | BLANK | LF | CR | NEEDS_CHECK }>(name_at, " name")?;
        let name = &self.text[name_at..self.at];
        if name.len() > self.limits.name {
            let what = format!("name of more than {} bytes", self.limits.name);
            return Err(self.error(name_at, what));
        }
        self.skip_spaces();
        if self.byte(self.at) != Some(b':') {
            if self.is_bad(self.at) {
                return Err(self.bad_character(self.at, ""));
            }
            return Err(self.error(self.at, "':' expected after name"));
        }
        self.at += 1;
        self.skip_spaces();
        let (value_at, value) = self.value()?;
        if let Some(after) = self.after_newline(self.at) {
            self.at = after;
        }
        Ok(Pair {
            name,
            value,
            name_at,
            value_at,
        })
    }
}

/// Shortens an error: it can quote a value of megabytes.
fn shortened(mut what: String) -> String {
    const MOST: usize = 500;
    if what.len() > MOST {
        let end = (0..=MOST).rfind(|&at| what.is_char_boundary(at));
        what.truncate(end.unwrap_or(0));
        what.push_str("...");
    }
    what
}
