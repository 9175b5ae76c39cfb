//! The values of one manifest in their order, and how the typed manifests read
//! theirs.

use std::fmt;

use super::syntax::{Pair, ParseError, Parser, SerializeError, Serializer, Style};

/// The values of one manifest, in order, known or not.
///
/// All in one piece of memory, since a host may have a thousand machines, each
/// with three of these.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// Name, value, name, value, and so on, each behind its length ([`push_length`]).
    text: String,
}

/// What one character of a length says: six bits, the lowest ones first.
const BITS: u32 = 6;

/// That another one follows.
const MORE: u8 = 1 << BITS;

/// Writes a length: to a text, so in ASCII.
fn push_length(text: &mut String, mut length: usize) {
    loop {
        let bits = length.to_le_bytes()[0] & (MORE - 1);
        length >>= BITS;
        if length == 0 {
            return text.push(char::from(bits));
        }
        text.push(char::from(bits | MORE));
    }
}

/// Takes a length and the text that is so long off the front of `text`.
fn pop<'a>(text: &mut &'a str) -> Option<&'a str> {
    let digits = text.bytes().position(|byte| byte < MORE)? + 1;
    let (length, behind) = text.split_at_checked(digits)?;
    let number = |more, byte: u8| more << BITS | usize::from(byte & (MORE - 1));
    let (taken, rest) = behind.split_at_checked(length.bytes().rev().fold(0, number))?;
    *text = rest;
    Some(taken)
}

impl Values {
    /// No values.
    #[must_use]
    pub fn new() -> Values {
        Values::default()
    }

    /// No values, with memory for so many of so many bytes, names included.
    fn with_capacity(values: usize, bytes: usize) -> Values {
        Values {
            // A character for each length, and some for those of more.
            text: String::with_capacity(bytes + 2 * values + bytes / usize::from(MORE)),
        }
    }

    /// The first value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// All values of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.iter().filter(move |(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.text.as_str();
        std::iter::from_fn(move || Some((pop(&mut rest)?, pop(&mut rest)?)))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Adds a value at the end.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        for part in [name.as_ref(), value.as_ref()] {
            push_length(&mut self.text, part.len());
            self.text.push_str(part);
        }
    }

    /// Those with a name that `keep` says yes to.
    pub(super) fn only(&self, keep: impl Fn(&str) -> bool) -> Values {
        let mut kept = Values {
            text: String::with_capacity(self.text.len()),
        };
        for (name, value) in self.iter().filter(|(name, _)| keep(name)) {
            kept.push(name, value);
        }
        kept
    }

    /// Removes all values of this name.
    pub fn remove(&mut self, name: &str) {
        *self = self.only(|n| n != name);
    }

    /// Replaces all values of this name: where the first of them stood, else
    /// behind the last value of one of the names `after`, else at the end.
    pub fn replace<V: AsRef<str>>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = V>,
        after: &[&str],
    ) {
        let names = || self.iter().map(|(n, _)| n).enumerate();
        let first = names().find(|(_, n)| *n == name).map(|(at, _)| at);
        let behind = names().filter(|(_, n)| after.contains(n)).last();
        let at = first.or(behind.map(|(at, _)| at + 1)).unwrap_or(usize::MAX);
        let mut new: Values = self.iter().take(at).collect();
        for value in values {
            new.push(name, value);
        }
        for (n, value) in self.iter().skip(at).filter(|(n, _)| *n != name) {
            new.push(n, value);
        }
        *self = new;
    }

    /// Writes them as one manifest.
    pub(super) fn write(&self, to: &mut Serializer<'_>) -> Result<(), SerializeError> {
        start(to)?;
        for (name, value) in self.iter() {
            pair(to, name, value)?;
        }
        end(to)
    }

    /// The text of a stream that holds just these.
    pub(super) fn to_text(&self, kind: &str, style: Style) -> Result<String, SerializeError> {
        let mut serializer = Serializer::with_style(kind, style);
        self.write(&mut serializer)?;
        Ok(serializer.into_text())
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Values {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(values: T) -> Values {
        let mut all = Values::new();
        for (name, value) in values {
            all.push(name, value);
        }
        all
    }
}

/// Starts a manifest.
pub(super) fn start(to: &mut Serializer<'_>) -> Result<(), SerializeError> {
    to.pair("", "1")
}

/// Ends a manifest.
pub(super) fn end(to: &mut Serializer<'_>) -> Result<(), SerializeError> {
    to.pair("", "")
}

/// Writes a pair; an error says whose value it is.
pub(super) fn pair(to: &mut Serializer<'_>, name: &str, value: &str) -> Result<(), SerializeError> {
    to.pair(name, value).map_err(|mut error| {
        error.what = format!("{name}: {}", error.what);
        error
    })
}

/// A stream of manifests that are to be of some kind.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    parser: Parser<'a>,
    kind: &'static str,
}

impl<'a> Stream<'a> {
    pub(super) fn new(text: &'a [u8], source: &'a str, kind: &'static str) -> Stream<'a> {
        Stream {
            parser: Parser::new(text, source),
            kind,
        }
    }

    /// The next manifest, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Section<'a>>, ParseError> {
        let pairs = self
            .parser
            .next_manifest()
            .map_err(|e| of_kind(e, self.kind))?;
        Ok(pairs.map(|pairs| Section {
            parser: self.parser.clone(),
            kind: self.kind,
            pairs,
        }))
    }

    /// The next manifest, which has to be there. From here on, errors are about
    /// a manifest of kind `kind`.
    pub(super) fn expect(&mut self, kind: &'static str) -> Result<Section<'a>, ParseError> {
        self.kind = kind;
        let next = self.next()?;
        next.ok_or_else(|| self.error(format!("{kind} manifest expected")))
    }

    /// Checks that nothing follows.
    pub(super) fn finish(mut self) -> Result<(), ParseError> {
        let at = self.parser.offset();
        match self.next()? {
            None => Ok(()),
            Some(_) => {
                let what = format!("single {} manifest expected", self.kind);
                Err(of_kind(self.parser.error(at, what), self.kind))
            }
        }
    }

    fn error(&self, what: impl Into<String>) -> ParseError {
        of_kind(self.parser.error(self.parser.offset(), what), self.kind)
    }
}

fn of_kind(mut error: ParseError, kind: &'static str) -> ParseError {
    error.kind = Some(kind);
    error
}

/// Reads a text that has to be exactly one manifest.
pub(super) fn single<'a>(
    text: &'a [u8],
    source: &'a str,
    kind: &'static str,
) -> Result<Section<'a>, ParseError> {
    let mut stream = Stream::new(text, source, kind);
    let section = stream.expect(kind)?;
    stream.finish()?;
    Ok(section)
}

/// One manifest of a stream, with what it takes to say where an error is.
#[derive(Debug)]
pub(super) struct Section<'a> {
    parser: Parser<'a>,
    kind: &'static str,
    pairs: Vec<Pair<'a>>,
}

impl<'a> Section<'a> {
    pub(super) fn pairs(&self) -> &[Pair<'a>] {
        &self.pairs
    }

    pub(super) fn into_pairs(self) -> Vec<Pair<'a>> {
        self.pairs
    }

    pub(super) fn into_values(self) -> Values {
        let length = |p: &Pair<'_>| p.name.len() + p.value.len();
        let bytes = self.pairs.iter().map(length).sum();
        let mut values = Values::with_capacity(self.pairs.len(), bytes);
        for pair in &self.pairs {
            values.push(pair.name, &pair.value);
        }
        values
    }

    /// The same manifest, as one of kind `kind`.
    pub(super) fn of_kind(mut self, kind: &'static str) -> Section<'a> {
        self.kind = kind;
        self
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|p| p.name == name)
    }

    /// An error about the value of `pair`.
    pub(super) fn error(&self, pair: &Pair<'_>, what: impl Into<String>) -> ParseError {
        of_kind(self.parser.error(pair.value_at, what), self.kind)
    }

    /// The value of this name, which may be missing or empty but not be there
    /// twice.
    pub(super) fn unique(&self, name: &str) -> Result<Option<&Pair<'a>>, ParseError> {
        let mut pairs = self.pairs.iter().filter(|p| p.name == name);
        let first = pairs.next();
        match pairs.next() {
            None => Ok(first),
            Some(second) => Err(self.redefinition(second)),
        }
    }

    /// That there is a value of this name already.
    pub(super) fn redefinition(&self, pair: &Pair<'_>) -> ParseError {
        let what = format!("{} redefinition", pair.name);
        of_kind(self.parser.error(pair.name_at, what), self.kind)
    }

    /// The value of this name, which is not empty if it is there.
    pub(super) fn optional(&self, name: &str) -> Result<Option<&Pair<'a>>, ParseError> {
        match self.unique(name)? {
            Some(pair) if pair.value.is_empty() => Err(self.error(pair, format!("empty {name}"))),
            pair => Ok(pair),
        }
    }

    /// The value of this name, which has to be there.
    pub(super) fn required(&self, name: &str) -> Result<&Pair<'a>, ParseError> {
        self.optional(name)?.ok_or_else(|| self.missing(name))
    }

    /// That there is no value of this name, said at the end of the manifest.
    pub(super) fn missing(&self, name: &str) -> ParseError {
        let error = self
            .parser
            .error(self.parser.offset(), format!("no {name} specified"));
        of_kind(error, self.kind)
    }

    /// Reads a value that may be missing.
    pub(super) fn read<T, E: fmt::Display>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ParseError> {
        let Some(pair) = self.optional(name)? else {
            return Ok(None);
        };
        let value = read(&pair.value);
        let value = value.map_err(|e| self.error(pair, format!("invalid {name}: {e}")))?;
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_of_every_length_come_back() {
        let mut values = Values::new();
        assert!(values.is_empty());
        let lengths = [0, 1, 62, 63, 64, 65, 4095, 4096, 4097, 262_144];
        for length in lengths {
            values.push("n".repeat(length), "\u{e9}".repeat(length));
        }
        let found: Vec<_> = values.iter().map(|(n, v)| (n.len(), v.len() / 2)).collect();
        assert_eq!(found, lengths.map(|length| (length, length)));
        assert!(values.iter().all(|(_, v)| v.chars().all(|c| c == '\u{e9}')));
    }

    #[test]
    fn a_value_that_looks_like_a_length_is_a_value() {
        let pairs = [("\u{0}\u{1}", "A\u{7f}@"), ("", ""), ("\u{2}", "\u{40}")];
        let values: Values = pairs.into_iter().collect();
        assert_eq!(values.iter().collect::<Vec<_>>(), pairs);
        assert_eq!(values.get("\u{2}"), Some("@"));
    }
}
