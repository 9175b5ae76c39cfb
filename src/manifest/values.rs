//! The values of one manifest in their order, and the reading of them by the typed
//! manifests.

use std::fmt;

use super::syntax::{Pair, ParseError, Parser, SerializeError, Serializer, Style};

/// The values of one manifest in order, unknown ones included.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(Vec<(String, String)>);

impl Values {
    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a value at the end.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// The values whose names are in `names`.
    pub(super) fn only(&self, names: &[&str]) -> Values {
        self.iter().filter(|(n, _)| names.contains(n)).collect()
    }

    /// Replaces all values of this name: at the place of the first of them, else
    /// behind the last value of one of the names `after`, else at the end.
    pub fn replace<'a>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = &'a str>,
        after: &[&str],
    ) {
        let first = self.0.iter().position(|(n, _)| n == name);
        let last = self
            .0
            .iter()
            .rposition(|(n, _)| after.contains(&n.as_str()));
        let at = first.or(last.map(|at| at + 1)).unwrap_or(self.0.len());
        self.0.retain(|(n, _)| n != name);
        let new = values.into_iter().map(|v| (name.to_owned(), v.to_owned()));
        self.0.splice(at..at, new);
    }

    /// Writes them as one manifest.
    pub(super) fn write(&self, to: &mut Serializer<'_>) -> Result<(), SerializeError> {
        start(to)?;
        for (name, value) in self.iter() {
            pair(to, name, value)?;
        }
        end(to)
    }

    /// The text of a stream of this one manifest.
    pub(super) fn to_text(&self, kind: &str, style: Style) -> Result<String, SerializeError> {
        let mut serializer = Serializer::new(kind, style);
        self.write(&mut serializer)?;
        Ok(serializer.into_text())
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Values {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(values: T) -> Values {
        let values = values.into_iter();
        Values(values.map(|(n, v)| (n.into(), v.into())).collect())
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

/// Writes a pair; an error names the value.
pub(super) fn pair(to: &mut Serializer<'_>, name: &str, value: &str) -> Result<(), SerializeError> {
    to.pair(name, value).map_err(|mut error| {
        error.what = format!("{name}: {}", error.what);
        error
    })
}

/// A stream of manifests of an expected kind.
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

    /// The next manifest, or an error if there is none. Later errors are about a
    /// manifest of kind `kind`.
    pub(super) fn expect(&mut self, kind: &'static str) -> Result<Section<'a>, ParseError> {
        self.kind = kind;
        let next = self.next()?;
        next.ok_or_else(|| self.error(format!("{kind} manifest expected")))
    }

    /// Checks that no manifest follows.
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

/// Reads a text of exactly one manifest.
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

/// One manifest of a stream, with its parser for the places of errors.
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
        let pairs = self.pairs.into_iter();
        pairs.map(|p| (p.name, p.value)).collect()
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

    /// The value of this name, which may be missing or empty but must not occur
    /// twice.
    pub(super) fn unique(&self, name: &str) -> Result<Option<&Pair<'a>>, ParseError> {
        let mut pairs = self.pairs.iter().filter(|p| p.name == name);
        let first = pairs.next();
        match pairs.next() {
            None => Ok(first),
            Some(second) => Err(self.redefinition(second)),
        }
    }

    /// The error for a second value of this name.
    pub(super) fn redefinition(&self, pair: &Pair<'_>) -> ParseError {
        let what = format!("{} redefinition", pair.name);
        of_kind(self.parser.error(pair.name_at, what), self.kind)
    }

    /// The value of this name; an empty one is an error.
    pub(super) fn optional(&self, name: &str) -> Result<Option<&Pair<'a>>, ParseError> {
        match self.unique(name)? {
            Some(pair) if pair.value.is_empty() => Err(self.error(pair, format!("empty {name}"))),
            pair => Ok(pair),
        }
    }

    /// The value of this name; a missing or empty one is an error.
    pub(super) fn required(&self, name: &str) -> Result<&Pair<'a>, ParseError> {
        self.optional(name)?.ok_or_else(|| self.missing(name))
    }

    /// The error for a missing value, at the end of the manifest.
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
