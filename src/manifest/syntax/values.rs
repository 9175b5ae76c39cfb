//! The parser of values: two forms, continuations, backslashes.

use std::borrow::Cow;

use super::chars::{BACKSLASH, CR, LF, NEEDS_CHECK, run_of};
use super::error::ParseError;
use super::parser::Parser;

impl<'a> Parser<'a> {
    /// The value from here on, and its offset. Leaves the position at the
    /// newline or the end of input behind it.
    pub(super) fn value(&mut self) -> Result<(usize, Cow<'a, str>), ParseError> {
        let start = self.at;
        // The introducer is a lone backslash, behind the colon (the old form)
        // or on a line of its own (the new form).
        let new_form = self.after_newline(start);
        let introducer = new_form.unwrap_or(start);
        if self.is_lone_backslash(introducer) {
            let value_at = self.after_newline(introducer + 1);
            let value_at = value_at.unwrap_or(introducer + 1);
            self.at = value_at;
            return Ok((value_at, self.lines()?));
        }
        if new_form.is_some() {
            // The look-ahead to the next line counts as a part of the value.
            if self.check_ahead(introducer).is_err() {
                return Err(self.bad_character(introducer, " value"));
            }
            return Ok((start, Cow::Borrowed("")));
        }
        self.check_ahead(start)?;
        Ok((start, self.line()?))
    }

    /// A simple value.
    fn line(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let mut value = Pieces::new(self.text, self.at);
        loop {
            self.at = self.skip::<{ BACKSLASH | LF | CR | NEEDS_CHECK }>(self.at, " value")?;
            if self.byte(self.at) != Some(b'\\') {
                return Ok(value.finish_trimmed(self.at));
            }
            if !self.backslashes(&mut value) {
                continue;
            }
            // Behind a continuation, a lone backslash stands for a newline.
            if self.is_lone_backslash(self.at) {
                let after = self.after_newline(self.at + 1);
                self.at = after.unwrap_or(self.at + 1);
                value.newline(self.at);
            }
        }
    }

    /// A multi-line value, behind its introducer.
    fn lines(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let mut value = Pieces::new(self.text, self.at);
        // Behind the introducer or a continuation: a line starts here, but the
        // newline before it is not one of the value.
        let mut joined = self.at;
        loop {
            // Line feeds need no check here, so a log is read in long runs.
            self.at = self.skip::<{ BACKSLASH | CR | NEEDS_CHECK }>(self.at, " value")?;
            let at = self.at;
            match self.byte(at) {
                None => return Ok(value.finish(at)),
                Some(b'\r') => {
                    let after = self.after_newline(at).unwrap_or(at + 1);
                    value.skip(at, after);
                    value.newline(after);
                    self.at = after;
                }
                Some(_) => {
                    let starts_line =
                        at == joined || matches!(self.byte(at - 1), Some(b'\n' | b'\r'));
                    if starts_line && self.is_lone_backslash(at) {
                        self.at = at + 1;
                        return Ok(if at == joined {
                            value.finish(at)
                        } else {
                            value.finish_before_newline(at)
                        });
                    }
                    if self.backslashes(&mut value) {
                        joined = self.at;
                    }
                }
            }
        }
    }

    /// Reads a run of backslashes. Returns whether it was a continuation.
    ///
    /// The last backslash of a line is dropped, and so is the newline behind it
    /// if it was the only one. All others stand for themselves.
    fn backslashes(&mut self, value: &mut Pieces<'a>) -> bool {
        let start = self.at;
        let end = run_of(b'\\', self.text.as_bytes(), start);
        self.at = end;
        if !self.is_line_end(end) {
            return false;
        }
        match self.after_newline(end) {
            Some(after) if end - start == 1 => {
                value.skip(start, after);
                self.at = after;
                true
            }
            _ => {
                value.skip(end - 1, end);
                false
            }
        }
    }
}

/// A value that is being read: pieces of the text, and newlines between them.
struct Pieces<'a> {
    text: &'a str,
    /// Where the piece begins that is not in `done` yet.
    start: usize,
    /// `None` while there is only one piece.
    done: Option<String>,
}

impl<'a> Pieces<'a> {
    fn new(text: &'a str, start: usize) -> Pieces<'a> {
        Pieces {
            text,
            start,
            done: None,
        }
    }

    /// Leaves out what is between `from` and `to`.
    fn skip(&mut self, from: usize, to: usize) {
        let piece = &self.text[self.start..from];
        self.done
            .get_or_insert_with(|| String::with_capacity(2 * piece.len() + 128))
            .push_str(piece);
        self.start = to;
    }

    /// Puts a newline in place of the text up to `to`.
    fn newline(&mut self, to: usize) {
        self.skip(self.start, to);
        self.done.get_or_insert_default().push('\n');
    }

    fn finish(self, end: usize) -> Cow<'a, str> {
        let piece = &self.text[self.start..end];
        match self.done {
            None => Cow::Borrowed(piece),
            Some(mut done) => {
                done.push_str(piece);
                Cow::Owned(done)
            }
        }
    }

    /// The value without the newline that is just before `end`.
    fn finish_before_newline(mut self, end: usize) -> Cow<'a, str> {
        if self.start < end {
            // A plain line feed, the last of the piece.
            return self.finish(end - 1);
        }
        if let Some(done) = &mut self.done {
            done.pop();
        }
        self.finish(end)
    }

    /// The value without spaces and tabs at its end.
    fn finish_trimmed(self, end: usize) -> Cow<'a, str> {
        match self.finish(end) {
            Cow::Borrowed(value) => Cow::Borrowed(value.trim_end_matches([' ', '\t'])),
            Cow::Owned(mut value) => {
                value.truncate(value.trim_end_matches([' ', '\t']).len());
                Cow::Owned(value)
            }
        }
    }
}
