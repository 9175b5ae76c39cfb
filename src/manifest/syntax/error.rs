//! Errors of the parser.

use std::fmt;

/// A line and a column, both from 1; a column is a code point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// The place in a text that is not a valid manifest, and the reason.
///
/// `Display` is `<source>:<line>:<column>: error: <what>`, as build2 has it, or
/// `invalid <kind> manifest: <source>:<line>:<column>: <what>` once the kind of
/// manifest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The expected kind of manifest (`task`), if known.
    pub kind: Option<&'static str>,
    /// The name of the text: a file, a URL, or empty.
    pub source: String,
    /// The place in the text.
    pub position: Position,
    /// The reason.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = self.kind {
            write!(f, "invalid {kind} manifest: ")?;
        }
        if !self.source.is_empty() {
            write!(f, "{}:", self.source)?;
        }
        let Position { line, column } = self.position;
        let level = if self.kind.is_none() { "error: " } else { "" };
        write!(f, "{line}:{column}: {level}{}", self.what)
    }
}

impl std::error::Error for ParseError {}
