//! The characters that a manifest may hold, and a scan for special ones.

use std::fmt;

/// The classes of code points that a manifest may not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharClass {
    /// C0, DEL and C1, line feed, carriage return and tab included.
    Control,
    /// Invisible formatting: soft hyphen, zero-width and bidirectional
    /// characters, the byte order mark.
    Format,
    /// The private-use areas.
    PrivateUse,
    /// Code points that are guaranteed never to be characters.
    Noncharacter,
    /// Planes and blocks without any assignment.
    Reserved,
}

impl fmt::Display for CharClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CharClass::Control => "control",
            CharClass::Format => "format",
            CharClass::PrivateUse => "private-use",
            CharClass::Noncharacter => "noncharacter",
            CharClass::Reserved => "reserved",
        })
    }
}

/// The class of a character that is not graphic, `None` if it is.
///
/// The tables are those of Unicode 12, as in libbutl. Unassigned code points
/// outside of the reserved ranges count as graphic.
pub fn class(c: char) -> Option<CharClass> {
    let code = u32::from(c);
    // Nearly all text is in these ranges, so the tables are seldom read.
    if matches!(code, 0x20..=0x7E | 0xA0..=0xAC | 0xAE..=0x05FF | 0x2070..=0xD7FF) {
        return None;
    }
    if code & 0xFFFF >= 0xFFFE {
        return Some(CharClass::Noncharacter);
    }
    Some(match code {
        0x0000..=0x001F | 0x007F..=0x009F => CharClass::Control,
        0x00AD
        | 0x0600..=0x0605
        | 0x061C
        | 0x06DD
        | 0x070F
        | 0x08E2
        | 0x180E
        | 0x200B..=0x200F
        | 0x202A..=0x202E
        | 0x2060..=0x2064
        | 0x2066..=0x206F
        | 0xFEFF
        | 0xFFF9..=0xFFFB
        | 0x1_10BD
        | 0x1_10CD
        | 0x1_3430..=0x1_3438
        | 0x1_BCA0..=0x1_BCA3
        | 0x1_D173..=0x1_D17A
        | 0xE_0001
        | 0xE_0020..=0xE_007F => CharClass::Format,
        0xE000..=0xF8FF | 0xF_0000..=0x10_FFFF => CharClass::PrivateUse,
        0xFDD0..=0xFDEF => CharClass::Noncharacter,
        0x3_0000..=0xE_0000 | 0xE_0002..=0xE_001F | 0xE_0080..=0xE_00FF | 0xE_01F0..=0xE_FFFF => {
            CharClass::Reserved
        }
        _ => return None,
    })
}

/// Whether `c` may stand in a value: graphic, line feed, carriage return, tab.
pub fn is_allowed(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\t') || class(c).is_none()
}

/// The offset of the first character of `text` that may not stand in a value or
/// is a carriage return, which is read as something else; the end if none is.
pub(crate) fn first_special(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at = find::<{ CR | NEEDS_CHECK }>(bytes, at);
        if matches!(bytes.get(at), None | Some(b'\r')) {
            return at;
        }
        match skip_graphic(text, at) {
            Ok(end) => at = end,
            Err((bad, _)) => return bad,
        }
    }
}

/// The end of the run of non-ASCII graphic characters that starts at `at`.
/// Fails with the offset and class of a character that is not graphic, also if it is
/// ASCII and the first.
pub(super) fn skip_graphic(text: &str, at: usize) -> Result<usize, (usize, CharClass)> {
    let mut end = at;
    for c in text[at..].chars() {
        if c.is_ascii() && end > at {
            break;
        }
        if let Some(class) = class(c) {
            return Err((end, class));
        }
        end += c.len_utf8();
    }
    Ok(end)
}

// Sets of bytes at which a scan stops; they can be combined.

/// `:`
pub(super) const COLON: u8 = 1;
/// Space and tab.
pub(super) const BLANK: u8 = 2;
/// `\`
pub(super) const BACKSLASH: u8 = 4;
pub(super) const LF: u8 = 8;
pub(super) const CR: u8 = 16;
/// Bytes that need a closer check: ASCII that a manifest may not hold, and all
/// bytes that are not ASCII.
pub(super) const NEEDS_CHECK: u8 = 32;

/// Whether `b` is in one of the sets.
#[inline]
pub(super) const fn is_in(sets: u8, b: u8) -> bool {
    ((sets & COLON != 0) & (b == b':'))
        | ((sets & BLANK != 0) & ((b == b' ') | (b == b'\t')))
        | ((sets & BACKSLASH != 0) & (b == b'\\'))
        | ((sets & LF != 0) & (b == b'\n'))
        | ((sets & CR != 0) & (b == b'\r'))
        | ((sets & NEEDS_CHECK != 0) & (is_bad_ascii(b) | (b >= 0x80)))
}

/// ASCII that may not stand in a manifest.
#[inline]
pub(super) const fn is_bad_ascii(b: u8) -> bool {
    ((b < 0x20) & (b != b'\t') & (b != b'\n') & (b != b'\r')) | (b == 0x7F)
}

const fn table(sets: u8) -> [bool; 256] {
    let mut table = [false; 256];
    let mut b = 0u8;
    loop {
        table[b as usize] = is_in(sets, b);
        if b == u8::MAX {
            return table;
        }
        b += 1;
    }
}

/// The offset of the first byte from `from` on that is in one of the sets, or
/// the end.
#[inline]
pub(super) fn find<const SETS: u8>(bytes: &[u8], from: usize) -> usize {
    let table = const { &table(SETS) };
    let found = bytes[from..].iter().position(|&b| table[usize::from(b)]);
    found.map_or(bytes.len(), |n| from + n)
}

/// The end of the run of bytes `b` from `from` on.
pub(super) fn run_of(b: u8, bytes: &[u8], from: usize) -> usize {
    let found = bytes[from..].iter().position(|&other| other != b);
    found.map_or(bytes.len(), |n| from + n)
}

/// Whether a sequence that is not UTF-8 can be told from its first byte alone.
pub(super) fn fails_at_first_byte(sequence: &[u8]) -> bool {
    matches!(sequence.first(), Some(0x80..=0xC1 | 0xF5..))
}

/// Describes the error at the start of `sequence`, which is not UTF-8.
pub(super) fn describe_bad_utf8(sequence: &[u8]) -> String {
    let lead = sequence.first().copied().unwrap_or(0);
    // The second byte is what rules out overlong forms, surrogates and code
    // points above the last (Unicode 15, table 3-7).
    let (length, second) = match lead {
        0xC2..=0xDF => (2, 0x80..=0xBF),
        0xE0 => (3, 0xA0..=0xBF),
        0xED => (3, 0x80..=0x9F),
        0xE1..=0xEF => (3, 0x80..=0xBF),
        0xF0 => (4, 0x90..=0xBF),
        0xF1..=0xF3 => (4, 0x80..=0xBF),
        0xF4 => (4, 0x80..=0x8F),
        0xF8..=0xFB => return "5-byte length UTF-8 sequence".to_owned(),
        0xFC..=0xFD => return "6-byte length UTF-8 sequence".to_owned(),
        _ => return bad_byte("first", lead),
    };
    let ordinals = ["second", "third", "forth"]; // as libbutl spells it
    for (index, ordinal) in ordinals.iter().take(length - 1).enumerate() {
        let Some(&byte) = sequence.get(index + 1) else {
            return "unexpected end of stream".to_owned();
        };
        let range = if index == 0 { &second } else { &(0x80..=0xBF) };
        if !range.contains(&byte) {
            return bad_byte(ordinal, byte);
        }
    }
    bad_byte("first", lead)
}

fn bad_byte(ordinal: &str, byte: u8) -> String {
    let shown = match byte {
        b' '..=b'~' => format!(" '{}'", char::from(byte)),
        _ => String::new(),
    };
    format!("invalid UTF-8 sequence {ordinal} byte (0x{byte:02X}{shown})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_bounds_of_the_tables() {
        for (code, expected) in [
            (0x00, Some(CharClass::Control)),
            (0x1F, Some(CharClass::Control)),
            (0x20, None),
            (0x7E, None),
            (0x7F, Some(CharClass::Control)),
            (0x9F, Some(CharClass::Control)),
            (0xA0, None),
            (0xAD, Some(CharClass::Format)),
            (0x0605, Some(CharClass::Format)),
            (0x0606, None),
            (0x200A, None),
            (0x200B, Some(CharClass::Format)),
            (0x2010, None),
            (0x2028, None),
            (0x2065, None),
            (0x206F, Some(CharClass::Format)),
            (0xD7FF, None),
            (0xE000, Some(CharClass::PrivateUse)),
            (0xF8FF, Some(CharClass::PrivateUse)),
            (0xF900, None),
            (0xFDD0, Some(CharClass::Noncharacter)),
            (0xFDF0, None),
            (0xFEFF, Some(CharClass::Format)),
            (0xFFFD, None),
            (0xFFFE, Some(CharClass::Noncharacter)),
            (0x1_FFFF, Some(CharClass::Noncharacter)),
            (0x1_F600, None),
            (0x2_FFFD, None),
            (0x3_0000, Some(CharClass::Reserved)),
            (0xE_0000, Some(CharClass::Reserved)),
            (0xE_0001, Some(CharClass::Format)),
            (0xE_0002, Some(CharClass::Reserved)),
            (0xE_0100, None),
            (0xE_01EF, None),
            (0xE_01F0, Some(CharClass::Reserved)),
            (0xF_FFFD, Some(CharClass::PrivateUse)),
            (0xF_FFFF, Some(CharClass::Noncharacter)),
            (0x10_FFFD, Some(CharClass::PrivateUse)),
        ] {
            assert_eq!(class(char::from_u32(code).unwrap()), expected, "{code:X}");
        }
    }

    #[test]
    fn the_shortcut_agrees_with_the_tables() {
        // Every code point of the shortcut, against the definition in words.
        for code in (0x20..=0x7E).chain(0xA0..=0x05FF).chain(0x2070..=0xD7FF) {
            let c = char::from_u32(code).unwrap();
            assert_eq!(class(c).is_none(), code != 0xAD, "{code:X}");
        }
    }

    #[test]
    fn every_sequence_that_is_not_utf8_is_described() {
        for a in 0x80..=0xFFu8 {
            for rest in [
                &b""[..],
                b"\x80",
                b"\xBF",
                b"\x80\x80",
                b"\x90\x80\x80",
                b"x",
                b"\n",
            ] {
                let mut sequence = vec![a];
                sequence.extend(rest);
                let Err(error) = std::str::from_utf8(&sequence) else {
                    continue;
                };
                if error.valid_up_to() > 0 {
                    continue;
                }
                let what = describe_bad_utf8(&sequence);
                assert_eq!(
                    what.contains("first byte") || what.contains("-byte length"),
                    fails_at_first_byte(&sequence),
                    "{sequence:X?}: {what}"
                );
            }
        }
    }
}
