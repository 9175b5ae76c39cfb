//! A result manifest in bounded memory: values that are too long lose their middle
//! while they are read.

use std::collections::VecDeque;

use super::fit::left_out;

/// The longest line in bytes that can begin a value in multi-line mode.
const MAX_START_BYTES: usize = 2048;

/// Text of a manifest, piece by piece. Of each value the first and the last bytes are
/// kept.
#[derive(Debug)]
pub struct Shortener {
    /// How many bytes of a value to keep at its start, and at its end.
    head_most: usize,
    tail_most: usize,
    text: Vec<u8>,
    /// The present value: its start, its end, and how much was between them.
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes: usize,
    lines: usize,
    /// The start of the present line.
    line: Vec<u8>,
    /// Whether the present value is in multi-line mode: it ends with a line that is a
    /// backslash.
    is_multi_line: bool,
}

impl Shortener {
    /// No text yet. Of a long value `head_most` bytes are kept at the start and
    /// `tail_most` at the end.
    pub fn new(head_most: usize, tail_most: usize) -> Shortener {
        Shortener {
            head_most,
            tail_most,
            text: Vec::new(),
            head: Vec::new(),
            tail: VecDeque::new(),
            bytes: 0,
            lines: 0,
            line: Vec::new(),
            is_multi_line: false,
        }
    }

    /// Adds the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (head, rest) = part.split_at(part.len().min(self.head_most - self.head.len()));
            self.head.extend_from_slice(head);
            self.tail.extend(rest);
            let over = self.tail.len().saturating_sub(self.tail_most);
            self.bytes += over;
            self.lines += newlines(self.tail.drain(..over));
            let room = MAX_START_BYTES - self.line.len();
            self.line.extend(part.iter().take(room));
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// The text.
    pub fn finish(mut self) -> Vec<u8> {
        self.end_value();
        self.text
    }

    fn end_line(&mut self) {
        let line = self.line.trim_ascii_end();
        let is_backslash = line == b"\\";
        if self.is_multi_line && !is_backslash {
            self.line.clear();
            return;
        }
        // A value may begin on the line of its name.
        let value = line
            .iter()
            .position(|byte| *byte == b':')
            .map(|at| &line[at + 1..]);
        let begins = is_backslash || value.is_some_and(|value| value.trim_ascii() == b"\\");
        self.line.clear();
        self.end_value();
        self.is_multi_line = begins && !self.is_multi_line;
    }

    /// Adds the present value to the text.
    fn end_value(&mut self) {
        if self.bytes > 0 {
            // Whole lines are kept: a part of one could be taken for the end of the value.
            if let Some(end) = self.head.iter().rposition(|byte| *byte == b'\n') {
                self.bytes += self.head.len() - end - 1;
                self.head.truncate(end + 1);
            }
            let last = self.tail.len().saturating_sub("\\\r\n".len());
            if let Some(end) = self.tail.range(..last).position(|byte| *byte == b'\n') {
                self.bytes += end + 1;
                self.lines += 1;
                self.tail.drain(..=end);
            }
            self.head.extend(left_out(self.bytes, self.lines).bytes());
            self.head
                .push(if self.is_multi_line { b'\n' } else { b' ' });
        }
        self.text.append(&mut self.head);
        self.text.extend(self.tail.drain(..));
        (self.bytes, self.lines) = (0, 0);
    }
}

fn newlines(bytes: impl Iterator<Item = u8>) -> usize {
    bytes.filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ResultManifest;

    fn shortened(text: &[u8], most: usize, piece: usize) -> Vec<u8> {
        let mut shortener = Shortener::new(most, most);
        text.chunks(piece).for_each(|piece| shortener.push(piece));
        shortener.finish()
    }

    /// A result with logs in both forms, of lines that contain backslashes.
    fn result(lines: usize) -> String {
        let log: String = (0..lines)
            .map(|n| format!("line {n} \\\\\n\\ {n}\n\\\\\n"))
            .collect();
        format!(
            ": 1\nname: p\nversion: 1\nstatus: success\nupdate-status: success\n\
             test-status: warning\nupdate-log: \\\n{log}\\\ntest-log:\n\\\n{log}\\\n\
             worker-checksum: {}\n",
            "1".repeat(lines)
        )
    }

    #[test]
    fn short_texts_are_as_they_were() {
        for text in [&b""[..], b"\n", b"\\", b"a: b\n", result(100).as_bytes()] {
            assert_eq!(shortened(text, 8192, 7), text);
        }
    }

    #[test]
    fn long_values_keep_both_ends_and_every_value_is_there() {
        let text = result(1000);
        let whole = ResultManifest::parse(text.as_bytes(), "").unwrap();
        for most in [40, 41, 64, 100, 999, 5000] {
            let short = shortened(text.as_bytes(), most, 100);
            assert_eq!(short, shortened(text.as_bytes(), most, 1));
            assert!(short.len() < 7 * most + 400, "{most}: {}", short.len());
            let short = ResultManifest::parse(&short, "").unwrap();
            assert_eq!(short.status, whole.status);
            assert_eq!(short.results.len(), 2);
            for (short, whole) in short.results.iter().zip(&whole.results) {
                assert_eq!(short.status, whole.status);
                let (head, rest) = short.log.split_once("[bbot-agent: ").unwrap();
                assert!(whole.log.starts_with(head), "{most}: {head}");
                let (note, tail) = rest.split_once(" lines left out]").unwrap();
                assert!(whole.log.ends_with(tail.trim_start()), "{most}: {tail}");
                let (bytes, lines) = note.split_once(" bytes, ").unwrap();
                assert!(bytes.parse::<usize>().unwrap() + 2 * most > 20_000);
                assert!(lines.parse::<usize>().unwrap() > 1000);
            }
            assert!(short.worker_checksum.is_some());
        }
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let text = b"a: ".iter().chain([b'x'; 100_000].iter());
        let short = shortened(&text.copied().collect::<Vec<u8>>(), 50, 4096);
        let text = String::from_utf8(short).unwrap();
        assert!(
            text.starts_with("a: xxx") && text.ends_with("xxx"),
            "{text}"
        );
        assert!(
            text.contains("x[bbot-agent: 99903 bytes, 0 lines left out] x"),
            "{text}"
        );
    }
}
