//! Log text cleaned for a manifest.
//!
//! Compilers colour their messages and test programs print arbitrary bytes. A
//! controller rejects a result manifest that contains them, and the build with it;
//! a worker of 2017 does not check.

use std::borrow::Cow;

use super::syntax::{first_special, is_allowed};

/// The replacement for bytes that are not UTF-8.
const INVALID: char = char::REPLACEMENT_CHARACTER;

/// The replacement for characters that a manifest may not hold.
const NOT_GRAPHIC: char = '?';

/// The text of `bytes` without characters that a manifest may not hold.
///
/// Terminal escape sequences are dropped; an unterminated one ends at the end
/// of its line. Runs of carriage returns become one newline, together with a
/// line feed behind them. Bytes that are not UTF-8 become U+FFFD, other characters
/// that are not graphic become a question mark. A clean text is borrowed.
pub fn sanitize(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && is_clean(text)
    {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(bytes.len());
    let mut escape = Escape::None;
    for chunk in bytes.utf8_chunks() {
        let mut text = chunk.valid();
        while !text.is_empty() {
            if escape == Escape::None {
                // Plain text is copied in one step.
                let (plain, rest) = text.split_at(first_special(text));
                clean.push_str(plain);
                text = rest;
            }
            let Some(c) = text.chars().next() else {
                break;
            };
            text = &text[c.len_utf8()..];
            escape = match escape.next(c) {
                Ok(escape) => escape,
                Err(Printed) => {
                    if c == '\r' {
                        text = text.trim_start_matches('\r');
                        text = text.strip_prefix('\n').unwrap_or(text);
                        clean.push('\n');
                    } else {
                        clean.push(if is_allowed(c) { c } else { NOT_GRAPHIC });
                    }
                    Escape::None
                }
            };
        }
        if !chunk.invalid().is_empty() {
            clean.push(INVALID);
        }
    }
    Cow::Owned(clean)
}

fn is_clean(text: &str) -> bool {
    first_special(text) == text.len()
}

/// The position in an escape sequence (ECMA-48, sections 5.3 to 5.6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    /// Behind ESC.
    Start,
    /// Intermediate bytes behind ESC: a final byte follows.
    Intermediate,
    /// A control sequence, up to its final byte.
    Control,
    /// A command string, up to BEL or ST.
    Command,
    /// ESC in a command string: ST if a backslash follows.
    CommandEnd,
}

/// The character is not part of an escape sequence.
struct Printed;

impl Escape {
    /// The state behind `c`, or [`Printed`] if `c` is not part of a sequence.
    fn next(self, c: char) -> Result<Escape, Printed> {
        match (self, c) {
            // A sequence never goes beyond its line.
            (_, '\n' | '\r') => Err(Printed),
            (Escape::Command, '\u{1B}') => Ok(Escape::CommandEnd),
            (Escape::Command, '\u{7}' | '\u{9C}') => Ok(Escape::None),
            (Escape::Command, _) => Ok(Escape::Command),
            (Escape::CommandEnd, '\\') => Ok(Escape::None),
            (_, '\u{1B}') => Ok(Escape::Start),
            (_, '\u{9B}') | (Escape::Start | Escape::CommandEnd, '[') => Ok(Escape::Control),
            (_, '\u{90}' | '\u{98}' | '\u{9D}'..='\u{9F}')
            | (Escape::Start | Escape::CommandEnd, 'P' | 'X' | ']' | '^' | '_') => {
                Ok(Escape::Command)
            }
            (Escape::Start | Escape::CommandEnd | Escape::Intermediate, ' '..='/') => {
                Ok(Escape::Intermediate)
            }
            (Escape::Start | Escape::CommandEnd | Escape::Intermediate, '0'..='~') => {
                Ok(Escape::None)
            }
            (Escape::Control, ' '..='?') => Ok(Escape::Control),
            (Escape::Control, '@'..='~') => Ok(Escape::None),
            _ => Err(Printed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_text_is_borrowed() {
        let text = "a\tb\né€😀\u{2028}";
        assert!(matches!(sanitize(text.as_bytes()), Cow::Borrowed(t) if t == text));
    }

    #[test]
    fn each_kind_of_dirt_is_cleaned() {
        for (dirty, clean) in [
            (&b"\x1B[31;1mred\x1B[0m\x1B[K"[..], "red"),
            (b"\xC2\x9B31mred", "red"),
            (b"\x1B]8;;http://x/\x1B\\link\x1B]8;;\x1B\\", "link"),
            (b"\x1B]0;title\x07text", "text"),
            (b"\x1BPdata\xC2\x9Ctext", "text"),
            (b"\x1B(Btext\x1B7\x1B=", "text"),
            (b"\x1B]0;never ends\nnext", "\nnext"),
            (b"\x1B[31\nnext", "\nnext"),
            (b"\x1B]0;a\x1B[1mb", "b"),
            (b"\x1B[1\x1B[2mx", "x"),
            (b"\x1B", ""),
            (b"\x1B\xC3\xA9", "é"),
            (b"10%\r20%\r\r\n30%\n\r40%", "10%\n20%\n30%\n\n40%"),
            (b"a\0b\x08c\x7F", "a?b?c?"),
            (b"\xEF\xBB\xBFbom \xE2\x80\x8B", "?bom ?"),
            (
                b"caf\xE9 \xF0\x9F\x98 x\xFF\xFE",
                "caf\u{FFFD} \u{FFFD} x\u{FFFD}\u{FFFD}",
            ),
            (b"\r\xFF\n", "\n\u{FFFD}\n"),
        ] {
            assert_eq!(sanitize(dirty), clean, "{}", dirty.escape_ascii());
        }
    }

    #[test]
    fn any_bytes_come_out_clean_and_stay_so() {
        let mut state = 7u64;
        let alphabet = b"\x1B[]\\;m0 A\r\n\t\x07\x9B\x9D\xC2\xE2\x80\x8B\xFF\xC3\xA9\x00P_";
        for _ in 0..100_000 {
            let mut bytes = Vec::new();
            for _ in 0..16 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(3);
                let at = usize::try_from(state >> 33).unwrap() % alphabet.len();
                bytes.push(alphabet[at]);
            }
            let clean = sanitize(&bytes);
            assert!(is_clean(&clean), "{}", bytes.escape_ascii());
            assert!(matches!(sanitize(clean.as_bytes()), Cow::Borrowed(_)));
        }
    }
}
