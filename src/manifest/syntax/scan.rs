//! The parser's scanner: newlines, the end of input, forbidden characters, and runs
//! of plain text.

use super::chars::{
    CR, LF, NEEDS_CHECK, class, describe_bad_utf8, fails_at_first_byte, find, is_allowed,
    is_bad_ascii, is_in, run_of, skip_graphic,
};
use super::error::ParseError;
use super::parser::Parser;

impl Parser<'_> {
    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// Whether `at` is the end of the input, not only of its valid part.
    pub(super) fn is_eof(&self, at: usize) -> bool {
        at == self.text.len() && self.bad.is_empty()
    }

    /// The offset behind the newline at `at`, if there is one.
    pub(super) fn after_newline(&self, at: usize) -> Option<usize> {
        match self.byte(at)? {
            b'\n' => Some(at + 1),
            b'\r' => {
                let end = run_of(b'\r', self.text.as_bytes(), at);
                Some(end + usize::from(self.byte(end) == Some(b'\n')))
            }
            _ => None,
        }
    }

    pub(super) fn is_line_end(&self, at: usize) -> bool {
        self.is_eof(at) || matches!(self.byte(at), Some(b'\n' | b'\r'))
    }

    /// Whether a line consists of a lone backslash, from `at` on.
    pub(super) fn is_lone_backslash(&self, at: usize) -> bool {
        self.byte(at) == Some(b'\\') && self.is_line_end(at + 1)
    }

    pub(super) fn bad_character(&self, at: usize, context: &str) -> ParseError {
        let what = match self.text[at..].chars().next().and_then(class) {
            Some(class) => format!("invalid Unicode codepoint ({class})"),
            None => describe_bad_utf8(self.bad),
        };
        self.error(at, format!("invalid manifest{context}: {what}"))
    }

    pub(super) fn is_bad(&self, at: usize) -> bool {
        let next = self.text[at..].chars().next();
        next.map_or(!self.bad.is_empty(), |c| !is_allowed(c))
    }

    /// Fails if the first byte of the character at `at` is invalid; a look-ahead reads
    /// no further.
    pub(super) fn check_ahead(&self, at: usize) -> Result<(), ParseError> {
        let is_bad = match self.byte(at) {
            Some(b) => is_bad_ascii(b),
            None => fails_at_first_byte(self.bad),
        };
        if is_bad {
            return Err(self.bad_character(at, ""));
        }
        Ok(())
    }

    /// The end of the run of good characters from `at` on that has no ASCII
    /// character of these sets, which include [`NEEDS_CHECK`].
    #[inline]
    pub(super) fn skip<const SETS: u8>(
        &self,
        mut at: usize,
        context: &str,
    ) -> Result<usize, ParseError> {
        let bytes = self.text.as_bytes();
        loop {
            at = find::<SETS>(bytes, at);
            match bytes.get(at) {
                None if self.bad.is_empty() => return Ok(at),
                None => return Err(self.bad_character(at, context)),
                Some(&b) if is_in(SETS & !NEEDS_CHECK, b) => return Ok(at),
                Some(_) => {
                    at = skip_graphic(self.text, at)
                        .map_err(|(bad, _)| self.bad_character(bad, context))?;
                }
            }
        }
    }

    pub(super) fn skip_spaces(&mut self) {
        while let Some(b' ' | b'\t') = self.byte(self.at) {
            self.at += 1;
        }
    }

    pub(super) fn skip_blank_lines(&mut self) -> Result<(), ParseError> {
        loop {
            self.skip_spaces();
            if let Some(after) = self.after_newline(self.at) {
                self.at = after;
            } else if self.byte(self.at) == Some(b'#') {
                self.at = self.skip::<{ LF | CR | NEEDS_CHECK }>(self.at, "")?;
            } else {
                return self.check_ahead(self.at);
            }
        }
    }
}
