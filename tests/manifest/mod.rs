//! The manifest format against what build2's own parser and serializer do
//! (`data/*-cases.json` were produced by running those), and against a second,
//! simple-minded reading of the same rules.

use std::borrow::Cow;

use bbot_agent::json::Value;
use bbot_agent::manifest::{ParseLimits, Parser, Serializer, Style};

use reference::{Era, Stream};

pub mod allocations;
mod auxiliary;
mod reference;
mod results;
mod typed;
mod values;

/// A file under `data`.
fn file(name: &str) -> Value {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    Value::parse(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

/// The cases of a file that is a list of them.
fn cases(name: &str) -> Vec<Value> {
    match file(name) {
        Value::Array(cases) => cases,
        other => panic!("{name} is not a list: {other}"),
    }
}

fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

fn text<'a>(case: &'a Value, member: &str) -> Option<&'a str> {
    case.get(member).and_then(Value::as_str)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// `[[name, value], ...]`
fn pairs(value: &Value) -> Vec<(String, String)> {
    let pairs = value.as_array().unwrap().iter();
    pairs
        .map(|pair| {
            let pair = pair.as_array().unwrap();
            let string = |at: usize| pair[at].as_str().unwrap().to_owned();
            (string(0), string(1))
        })
        .collect()
}

fn manifests(value: &Value) -> Vec<Vec<(String, String)>> {
    value.as_array().unwrap().iter().map(pairs).collect()
}

fn input(case: &Value) -> Vec<u8> {
    if let Some(input) = text(case, "input") {
        return input.as_bytes().to_vec();
    }
    hex(text(case, "input_hex").unwrap())
}

/// Name line, name column, value line, value column.
type Positions = Vec<Vec<[u64; 4]>>;

/// All of a stream, as the parser reads it.
fn parse(input: &[u8], source: &str) -> Result<(Stream, Positions), String> {
    let mut parser = Parser::new(input, source);
    let (mut stream, mut positions) = (Vec::new(), Vec::new());
    let mut next = || parser.next_manifest().map_err(|e| e.to_string());
    while let Some(pairs) = next()? {
        positions.push(pairs.iter().map(|p| (p.name_at, p.value_at)).collect());
        let owned = |c: Cow<'_, str>| c.into_owned();
        let pairs = pairs.into_iter();
        stream.push(pairs.map(|p| (p.name.to_owned(), owned(p.value))).collect());
    }
    let at = |offset| parser.position(offset);
    let positions = positions.into_iter().map(|offsets: Vec<(usize, usize)>| {
        let offsets = offsets.into_iter();
        let lines = |(n, v)| [at(n).line, at(n).column, at(v).line, at(v).column];
        offsets.map(lines).collect()
    });
    let positions = positions.collect();
    Ok((stream, positions))
}

/// The text of these calls.
fn serialize(calls: &[(String, String)], target: &str, style: Style) -> Result<String, String> {
    let mut serializer = Serializer::new(target, style);
    for (name, value) in calls {
        serializer.pair(name, value).map_err(|e| e.to_string())?;
    }
    Ok(serializer.into_text())
}

/// The calls that write a stream.
fn calls(stream: &Stream) -> Vec<(String, String)> {
    let special = |version: &str| (String::new(), version.to_owned());
    let mut calls = Vec::new();
    for manifest in stream {
        calls.push(special("1"));
        calls.extend(manifest.iter().cloned());
        calls.push(special(""));
    }
    calls.push(special(""));
    calls
}

#[test]
fn every_parser_case_gives_its_pairs_positions_or_error() {
    let cases = cases("manifest-cases.json");
    assert_eq!(cases.len(), 140);
    for case in &cases {
        let id = text(case, "id").unwrap();
        let result = parse(&input(case), "input");
        if let Some(error) = text(case, "error") {
            assert_eq!(result.as_ref().unwrap_err(), error, "{id}");
            continue;
        }
        let (stream, positions) = result.unwrap_or_else(|e| panic!("{id}: {e}"));
        assert_eq!(stream, manifests(case.get("manifests").unwrap()), "{id}");
        let expected: Positions = case
            .get("positions")
            .unwrap()
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                let pairs = m.as_array().unwrap().iter();
                pairs
                    .map(|p| {
                        let p = p.as_array().unwrap();
                        [number(&p[0]), number(&p[1]), number(&p[2]), number(&p[3])]
                    })
                    .collect()
            })
            .collect();
        assert_eq!(positions, expected, "{id}");
    }
}

#[test]
fn every_serializer_case_gives_its_text_or_error() {
    let cases = cases("manifest-serialize-cases.json");
    assert_eq!(cases.len(), 90);
    for case in &cases {
        let id = text(case, "id").unwrap();
        let calls = pairs(case.get("pairs").unwrap());
        let style = Style {
            old_form: false,
            long_lines: case.get("long_lines").and_then(Value::as_bool).unwrap(),
        };
        // The error cases were made with and without a name.
        let error = text(case, "error");
        let target = if error.is_some_and(|e| e.starts_with("error:")) {
            ""
        } else {
            "output"
        };
        let result = serialize(&calls, target, style);
        if let Some(error) = error {
            assert_eq!(result.as_ref().unwrap_err(), error, "{id}");
            continue;
        }
        let output = result.unwrap_or_else(|e| panic!("{id}: {e}"));
        assert_eq!(output, text(case, "output").unwrap(), "{id}");
        let stream = || {
            let mut stream: Stream = Vec::new();
            for (name, value) in calls
                .iter()
                .filter(|(n, v)| !(n.is_empty() && v.is_empty()))
            {
                if name.is_empty() {
                    stream.push(Vec::new());
                } else {
                    stream
                        .last_mut()
                        .unwrap()
                        .push((name.clone(), value.clone()));
                }
            }
            stream
        };
        if case.get("roundtrip").and_then(Value::as_bool) == Some(true) {
            assert_eq!(parse(output.as_bytes(), "").unwrap().0, stream(), "{id}");
            // What the old form is for: readers of that time.
            let old = serialize(
                &calls,
                "",
                Style {
                    old_form: true,
                    ..style
                },
            )
            .unwrap();
            assert_eq!(parse(old.as_bytes(), "").unwrap().0, stream(), "{id}");
            assert_eq!(
                reference::parse(old.as_bytes(), Era::In2017).unwrap(),
                stream(),
                "{id}"
            );
        }
        if case.get("readable_by_2017").and_then(Value::as_bool) == Some(true) {
            assert_eq!(
                reference::parse(output.as_bytes(), Era::In2017).unwrap(),
                stream(),
                "{id}"
            );
        }
    }
}

#[test]
fn the_reference_reads_as_both_eras_do() {
    for case in &cases("manifest-cases.json") {
        let id = text(case, "id").unwrap();
        let input = input(case);
        let expected = |value: &Value| match value.get("manifests") {
            Some(Value::Array(_)) => Some(manifests(value.get("manifests").unwrap())),
            _ => None,
        };
        let today = reference::parse(&input, Era::Today).ok();
        assert_eq!(today, expected(case), "{id}");
        let (old, stream_error) = match case.get("libbutl_2017_04") {
            Some(old) => (
                expected(old),
                text(old, "error").is_some_and(|e| e.contains("UNEXPECTED")),
            ),
            None => (expected(case), false),
        };
        // That parser had no rule for a lone CR, nor one for bytes that are not
        // UTF-8; we write neither.
        if !stream_error && !input.contains(&b'\r') && std::str::from_utf8(&input).is_ok() {
            assert_eq!(reference::parse(&input, Era::In2017).ok(), old, "{id}");
        }
    }
}

/// Numbers that look random and are the same in every run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        // Knuth's MMIX constants; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn text(&mut self, from: &[&str], pieces: usize) -> String {
        (0..self.below(pieces)).map(|_| self.pick(from)).collect()
    }
}

const SYNTAX: [&str; 24] = [
    ":",
    ": 1\n",
    "\n",
    "\r",
    "\r\n",
    "\\",
    "\\\n",
    "\n\\\n",
    "a: \\\n",
    "a:\n\\\n",
    "\\\\\n",
    " ",
    "\t",
    "#",
    "a",
    "b: c\n",
    "é",
    "€",
    "😀",
    "\u{200B}",
    "\u{1}",
    "x y ",
    "\u{85}",
    "a line that is longer than a block of the scanner",
];

#[test]
fn any_text_is_read_as_the_reference_reads_it() {
    let mut rng = Rng(1);
    let mut read = 0;
    for _ in 0..100_000 {
        let start = rng.pick(&[": 1\n", ": 1\na:\n\\\n", ": 1\na: \\\n", ": 1\na: ", ""]);
        let input = start.to_owned() + &rng.text(&SYNTAX, 24);
        let result = parse(input.as_bytes(), "");
        let expected = reference::parse(input.as_bytes(), Era::Today);
        assert_eq!(
            result.as_ref().ok().map(|r| &r.0),
            expected.as_ref().ok(),
            "{input:?}"
        );
        read += usize::from(result.is_ok());
    }
    assert!(read > 10_000, "only {read} inputs were manifests");
}

#[test]
fn any_bytes_are_read_or_refused() {
    let mut rng = Rng(2);
    let mut bytes = Vec::new();
    for _ in 0..100_000 {
        bytes.clear();
        bytes.extend_from_slice(b": 1\na: ");
        bytes.extend(rng.text(&SYNTAX, 12).bytes());
        for _ in 0..rng.below(4) {
            let at = rng.below(bytes.len());
            bytes[at] = u8::try_from(rng.below(256)).unwrap();
        }
        let end = rng.below(bytes.len() + 1).max(3);
        bytes.truncate(end);
        let result = parse(&bytes, "");
        if let Ok(expected) = reference::parse(&bytes, Era::Today) {
            assert_eq!(result.unwrap().0, expected);
        } else {
            result.unwrap_err();
        }
    }
}

const VALUES: [&str; 22] = [
    "\n",
    "\n\n",
    "\\",
    "\\\\",
    " ",
    "\t",
    "a",
    ":",
    "#",
    "\\\n",
    "\n\\\n",
    "é",
    "\u{A0}",
    "😀",
    "word ",
    "word word ",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "ééééééééééééééééééééééééééééééééééééééééé",
    "c:\\dir",
    "xxxxxxxxxxxxxxxxxx",
    "1",
];

#[test]
fn any_value_reads_back_and_lines_stay_short() {
    let mut rng = Rng(3);
    for _ in 0..100_000 {
        let mut stream: Stream = Vec::new();
        for _ in 0..1 + rng.below(2) {
            let mut manifest = Vec::new();
            for _ in 0..rng.below(4) {
                let name = rng.pick(&[
                    "a",
                    "update-log",
                    "é",
                    "\\",
                    "a-name-of-forty-characters-and-no-more-yet",
                    "a#",
                ]);
                manifest.push((name.to_owned(), rng.text(&VALUES, 12)));
            }
            stream.push(manifest);
        }
        let calls = calls(&stream);
        for (old_form, long_lines) in [(false, false), (true, false), (false, true), (true, true)] {
            let style = Style {
                old_form,
                long_lines,
            };
            let output = serialize(&calls, "", style).unwrap();
            assert_eq!(
                parse(output.as_bytes(), "").unwrap().0,
                stream,
                "{output:?}"
            );
            if old_form {
                let old = reference::parse(output.as_bytes(), Era::In2017);
                assert_eq!(old.as_ref(), Ok(&stream), "{output:?}");
            }
            for line in output.lines().filter(|_| !long_lines) {
                // A run of backslashes at the edge is not broken.
                let length = line.chars().filter(|&c| c != '\\').count();
                assert!(length <= 78, "{line:?}");
            }
        }
    }
}

#[test]
fn values_are_borrowed_unless_they_have_escapes() {
    let text = b": 1\na: plain \nb:\n\\\nsome\nlines: \\x\n\\\nc: wrap\\\nped\n";
    let mut parser = Parser::new(text, "");
    let manifest = parser.next_manifest().unwrap().unwrap();
    let is_borrowed = |at: usize| matches!(manifest[at].value, Cow::Borrowed(_));
    assert!(is_borrowed(0) && is_borrowed(1) && !is_borrowed(2));
}

#[test]
fn an_error_does_not_quote_megabytes() {
    let text = format!(": 1{}\n", "é".repeat(1 << 20));
    let error = parse(text.as_bytes(), "").unwrap_err();
    assert!(error.len() < 600 && error.ends_with("éé..."), "{error}");
}

#[test]
fn limits_are_errors_with_a_position() {
    let limits = ParseLimits {
        size: 64,
        pairs: 3,
        name: 5,
    };
    let read = |text: &str| {
        let mut parser = Parser::with_limits(text.as_bytes(), "f", limits);
        loop {
            match parser.next_manifest() {
                Ok(Some(_)) => {}
                Ok(None) => return "fine".to_owned(),
                Err(e) => return e.to_string(),
            }
        }
    };
    assert_eq!(read(": 1\na: b\nabcde: d\n"), "fine");
    assert_eq!(
        read(": 1\na: b\n:\nc: d\n"),
        "f:4:1: error: more than 3 values"
    );
    assert_eq!(
        read(": 1\nabcdef: 1\n"),
        "f:2:1: error: name of more than 5 bytes"
    );
    let long = ": 1\n#".to_owned() + &"x".repeat(60);
    assert_eq!(read(&long), "f:1:1: error: 65 bytes, over the limit of 64");
}
