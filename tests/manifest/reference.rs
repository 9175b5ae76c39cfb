//! The manifest format read one character at a time, with look-ahead by index:
//! slow and plain, so that it can be checked against the rules by eye. The
//! parser proper is checked against this one.

/// Manifests as lists of names and values.
pub(crate) type Stream = Vec<Vec<(String, String)>>;

/// Whose rules to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Today,
    /// No check of characters, and only the introducer behind the colon.
    In2017,
}

/// All of a stream, or that it is none: `Err(())` says nothing about why.
pub(crate) fn parse(input: &[u8], era: Era) -> Result<Stream, ()> {
    let text = std::str::from_utf8(input).map_err(|_| ())?;
    if era == Era::Today && !text.chars().all(bbot_agent::manifest::syntax::is_allowed) {
        return Err(());
    }
    let mut reader = Reader {
        text: one_newline(text),
        at: 0,
        era,
    };
    let mut stream: Stream = Vec::new();
    let mut seen_version = false;
    while let Some((name, value)) = reader.pair()? {
        match (name.as_str(), value.as_str(), stream.last_mut()) {
            ("", "1", _) => stream.push(Vec::new()),
            ("", "", _) if seen_version => stream.push(Vec::new()),
            ("", ..) | (_, _, None) => return Err(()),
            (.., Some(manifest)) => manifest.push((name, value)),
        }
        seen_version = true;
    }
    Ok(stream)
}

/// With every run of CRs, and an LF behind it, replaced by one LF.
fn one_newline(text: &str) -> Vec<char> {
    let mut chars = Vec::new();
    let mut was_cr = false;
    for c in text.chars() {
        match c {
            '\r' if was_cr => {}
            '\r' => chars.push('\n'),
            '\n' if was_cr => {}
            c => chars.push(c),
        }
        was_cr = c == '\r';
    }
    chars
}

struct Reader {
    text: Vec<char>,
    at: usize,
    era: Era,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    /// Whether a newline or the end is `ahead` from here.
    fn ends(&self, ahead: usize) -> bool {
        matches!(self.peek(ahead), None | Some('\n'))
    }

    fn spaces(&mut self) {
        while matches!(self.peek(0), Some(' ' | '\t')) {
            self.at += 1;
        }
    }

    fn pair(&mut self) -> Result<Option<(String, String)>, ()> {
        loop {
            self.spaces();
            match self.peek(0) {
                None => return Ok(None),
                Some('\n') => self.at += 1,
                Some('#') => {
                    while !self.ends(0) {
                        self.at += 1;
                    }
                }
                Some(_) => break,
            }
        }
        let mut name = String::new();
        while let Some(c) = self.peek(0).filter(|c| !": \t\n".contains(*c)) {
            name.push(c);
            self.at += 1;
        }
        self.spaces();
        if self.peek(0) != Some(':') {
            return Err(());
        }
        self.at += 1;
        self.spaces();
        let value = if self.peek(0) == Some('\\') && self.ends(1) {
            self.at += 2;
            self.lines()
        } else if self.era == Era::Today
            && self.peek(0) == Some('\n')
            && self.peek(1) == Some('\\')
            && self.ends(2)
        {
            self.at += 3;
            self.lines()
        } else {
            self.line()
        };
        self.at += 1;
        Ok(Some((name, value)))
    }

    /// How many backslashes there are from here on.
    fn backslashes(&self) -> usize {
        (0..).take_while(|&n| self.peek(n) == Some('\\')).count()
    }

    fn line(&mut self) -> String {
        let mut value = String::new();
        let mut joined = false;
        while let Some(c) = self.peek(0).filter(|&c| c != '\n') {
            if joined && c == '\\' && self.ends(1) {
                value.push('\n');
                self.at += 2;
                joined = false;
                continue;
            }
            joined = self.character(c, &mut value);
        }
        value.trim_end_matches([' ', '\t']).to_owned()
    }

    fn lines(&mut self) -> String {
        let mut value = String::new();
        let mut joined = true;
        while let Some(c) = self.peek(0) {
            if joined && c == '\\' && self.ends(1) {
                self.at += 1;
                return value;
            }
            if c == '\n' && self.peek(1) == Some('\\') && self.ends(2) {
                self.at += 2;
                return value;
            }
            joined = self.character(c, &mut value);
        }
        value
    }

    /// Takes one character, or a run of backslashes: whether that continued
    /// the line.
    fn character(&mut self, c: char, value: &mut String) -> bool {
        let run = self.backslashes();
        if run == 0 {
            value.push(c);
            self.at += 1;
            return false;
        }
        let ends = self.ends(run);
        let continues = run == 1 && self.peek(1) == Some('\n');
        self.at += run + usize::from(continues);
        value.extend(std::iter::repeat_n('\\', run - usize::from(ends)));
        continues
    }
}
