//! JSON (RFC 8259): a strict reader and a compact writer.
//!
//! QEMU's monitor (QMP), the files of the agent's state and its machine-readable
//! output use it. The caller bounds the length of a text; the reader bounds the
//! nesting, so that no input can exhaust the stack.

mod reader;

use std::fmt;

/// The maximum nesting of arrays and objects.
pub const MAX_DEPTH: usize = 64;

/// One JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it is written; nothing is rounded before a caller reads it as a
    /// type.
    Number(String),
    /// A string, without its quotes and escapes.
    String(String),
    /// `[...]`
    Array(Vec<Value>),
    /// `{...}`, members in their order. Duplicate names are kept;
    /// [`Value::get`] finds the first.
    Object(Vec<(String, Value)>),
}

/// The place at which a text stops being JSON, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Offset in bytes from the start of the text.
    pub offset: usize,
    /// The reason.
    pub what: &'static str,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.what, self.offset)
    }
}

impl std::error::Error for SyntaxError {}

impl Value {
    /// Reads a text of exactly one value with blank space around it.
    pub fn parse(text: &str) -> Result<Value, SyntaxError> {
        reader::read(text)
    }

    /// An object of these members.
    pub fn object<N: Into<String>>(members: impl IntoIterator<Item = (N, Value)>) -> Value {
        let members = members.into_iter();
        Value::Object(members.map(|(name, value)| (name.into(), value)).collect())
    }

    /// The member `name` of an object: the first of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let members = self.as_object()?;
        members.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number written as an integer that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The truth of a `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&[(String, Value)]> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Bool(truth)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number.to_string())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number.to_string())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl From<Vec<Value>> for Value {
    fn from(elements: Vec<Value>) -> Value {
        Value::Array(elements)
    }
}

/// The compact form: one line, no blank space.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(truth) => write!(f, "{truth}"),
            Value::Number(text) => f.write_str(text),
            Value::String(text) => quote(f, text),
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    f.write_str(if index == 0 { "[" } else { "," })?;
                    element.fmt(f)?;
                }
                f.write_str(if elements.is_empty() { "[]" } else { "]" })
            }
            Value::Object(members) => {
                for (index, (name, value)) in members.iter().enumerate() {
                    f.write_str(if index == 0 { "{" } else { "," })?;
                    quote(f, name)?;
                    f.write_str(":")?;
                    value.fmt(f)?;
                }
                f.write_str(if members.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    let mut done = 0;
    for (at, byte) in text.bytes().enumerate() {
        // DEL needs no escape by the RFC, but a terminal acts on it.
        if !matches!(byte, 0..0x20 | b'"' | b'\\' | 0x7F) {
            continue;
        }
        f.write_str(&text[done..at])?;
        done = at + 1;
        match byte {
            b'"' => f.write_str("\\\""),
            b'\\' => f.write_str("\\\\"),
            b'\n' => f.write_str("\\n"),
            b'\r' => f.write_str("\\r"),
            b'\t' => f.write_str("\\t"),
            _ => write!(f, "\\u{byte:04x}"),
        }?;
    }
    f.write_str(&text[done..])?;
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::from(value)
    }

    fn error(input: &str) -> String {
        Value::parse(input).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let value =
            Value::parse(" {\"a\" : [ 1 , -2.5e+3, true,false , null ] , \"b\":{} ,\"c\":\"x\"}\n")
                .unwrap();
        let a = value.get("a").unwrap().as_array().unwrap();
        assert_eq!(a[0].as_u64(), Some(1));
        assert_eq!(a[1], Value::Number("-2.5e+3".to_owned()));
        assert_eq!(a[2].as_bool(), Some(true));
        assert_eq!(a[3].as_bool(), Some(false));
        assert_eq!(a[4], Value::Null);
        assert_eq!(value.get("b"), Some(&Value::Object(Vec::new())));
        assert_eq!(value.get("c").and_then(Value::as_str), Some("x"));
        assert_eq!(value.get("d"), None);
        assert_eq!(Value::Null.get("d"), None);
    }

    #[test]
    fn a_greeting_of_qemu_is_read() {
        let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian 1:10.0.2+ds-2"}, "capabilities": ["oob"]}}"#;
        let value = Value::parse(greeting).unwrap();
        let qemu = value.get("QMP").and_then(|v| v.get("version"));
        let major = qemu
            .and_then(|v| v.get("qemu"))
            .and_then(|v| v.get("major"));
        assert_eq!(major.and_then(Value::as_u64), Some(10));
    }

    #[test]
    fn escapes_and_surrogate_pairs_are_decoded() {
        assert_eq!(
            Value::parse(r#""\"\\\/\b\f\n\r\t\u0041\u20AC\ud83d\ude00 \u0000""#),
            Ok(text("\"\\/\u{8}\u{C}\n\r\tA€😀 \0"))
        );
        assert_eq!(Value::parse("\"é\u{7F}\""), Ok(text("é\u{7F}")));
    }

    #[test]
    fn an_error_says_where_and_what() {
        for (input, expected) in [
            ("", "value expected instead of the end at offset 0"),
            ("  ", "value expected instead of the end at offset 2"),
            ("[1,]", "value expected at offset 3"),
            ("[1 2]", "',' or ']' expected at offset 3"),
            ("{\"a\"}", "':' expected after the member name at offset 4"),
            ("{\"a\":1,}", "member name expected at offset 7"),
            ("{\"a\":1 \"b\"", "',' or '}' expected at offset 7"),
            ("{a:1}", "member name expected at offset 1"),
            ("1 1", "unexpected text after the value at offset 2"),
            ("01", "leading zero at offset 1"),
            ("-", "digit expected at offset 1"),
            ("1.", "digit expected at offset 2"),
            (".5", "value expected at offset 0"),
            ("1e", "digit expected at offset 2"),
            ("+1", "value expected at offset 0"),
            ("tru", "value expected at offset 0"),
            ("truex", "unexpected text after the value at offset 4"),
            ("NaN", "value expected at offset 0"),
            ("'a'", "value expected at offset 0"),
            ("\"a", "unterminated string at offset 2"),
            ("\"a\n\"", "control character in a string at offset 2"),
            ("\"\\x\"", "unknown escape at offset 2"),
            ("\"\\", "unknown escape at offset 2"),
            ("\"\\u12\"", "four hexadecimal digits expected at offset 3"),
            (
                "\"\\u+123\"",
                "four hexadecimal digits expected at offset 3",
            ),
            ("\"\\u12é\"", "four hexadecimal digits expected at offset 3"),
            ("\"\\ud800\"", "lone surrogate at offset 1"),
            ("\"\\ud800\\u0041\"", "lone surrogate at offset 1"),
            ("\"\\udc00\"", "lone surrogate at offset 1"),
            ("\u{FEFF}1", "value expected at offset 0"),
        ] {
            assert_eq!(error(input), expected, "{input:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Value::parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(
            error(&nested(MAX_DEPTH + 1)),
            "nested too deep at offset 64"
        );
        assert_eq!(
            error(&"{\"a\":".repeat(1_000_000)),
            "nested too deep at offset 320"
        );
    }

    #[test]
    fn integers_are_read_only_where_they_fit() {
        let number = |text: &str| Value::parse(text).unwrap();
        assert_eq!(number("18446744073709551615").as_u64(), Some(u64::MAX));
        assert_eq!(number("18446744073709551616").as_u64(), None);
        assert_eq!(number("-1").as_u64(), None);
        assert_eq!(number("1.0").as_u64(), None);
        assert_eq!(number("true").as_u64(), None);
    }

    #[test]
    fn the_written_form_is_compact_and_reads_back() {
        let value = Value::object([
            ("execute", text("x\"\\\n\r\t\u{1}\u{7F}é")),
            ("n", Value::from(7u64)),
            ("i", Value::from(-7i64)),
            ("list", Value::from(vec![Value::Null, Value::from(true)])),
            ("none", Value::from(None::<bool>)),
            ("empty", Value::Array(Vec::new())),
            ("nothing", Value::Object(Vec::new())),
        ]);
        let written = value.to_string();
        assert_eq!(
            written,
            "{\"execute\":\"x\\\"\\\\\\n\\r\\t\\u0001\\u007fé\",\"n\":7,\"i\":-7,\
             \"list\":[null,true],\"none\":null,\"empty\":[],\"nothing\":{}}"
        );
        assert_eq!(Value::parse(&written), Ok(value));
    }

    #[test]
    fn any_text_is_read_or_refused_and_what_is_read_reads_back() {
        const PIECES: [&str; 24] = [
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "d83d", "\\ude00", "0", "1", "-", ".",
            "e", "true", "null", " ", "\n", "é", "\"a\"", "\"a\":", "\u{0}",
        ];
        let mut state = 1u64;
        let mut read = 0;
        for _ in 0..100_000 {
            let mut input = String::new();
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            for _ in 0..(state >> 60) {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                input.push_str(PIECES[usize::try_from(state >> 33).unwrap() % PIECES.len()]);
            }
            if let Ok(value) = Value::parse(&input) {
                read += 1;
                assert_eq!(Value::parse(&value.to_string()), Ok(value), "{input:?}");
            }
        }
        assert!(read > 1_000, "only {read} inputs were JSON");
    }
}
