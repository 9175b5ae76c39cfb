//! What reading and writing manifests costs: a result of 15 MB, and inputs made
//! to hurt. Next to each, two yardsticks over the same bytes in the same run: a
//! copy (memory bandwidth, the limit) and a plain loop that counts newlines (a
//! byte at a time as far as the compiler leaves it).
//!
//! Prints a table of medians, and appends lines of JSON to `target/bench.jsonl`.
//! With `--allocations`, prints nothing but how often each case allocates, which
//! does not depend on the machine. With `--only <case>`, does just that, a
//! hundred times, for a profiler.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

#[path = "../support/allocations.rs"]
mod allocations;
mod record;

use std::hint::black_box;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use bbot_agent::json::Value;
use bbot_agent::manifest::{
    OperationResult, ParseLimits, Parser, ResultManifest, ResultRequest, ResultStatus, Serializer,
    Style, fit, sanitize,
};

const ROUNDS: usize = 21;

/// Processor time, as there may be others who use the machine.
fn now() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    now.unwrap().into()
}

fn median(mut body: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = now();
            body();
            now() - start
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

type Work = Box<dyn Fn(&[u8])>;

/// What is measured, over how many bytes.
struct Case {
    name: &'static str,
    /// The bytes that count: those of the text.
    text: Vec<u8>,
    work: Work,
}

impl Case {
    fn new(name: &'static str, text: impl Into<Vec<u8>>, work: impl Fn(&[u8]) + 'static) -> Case {
        Case {
            name,
            text: text.into(),
            work: Box::new(work),
        }
    }
}

/// What a compiler prints: lines of all lengths, some wrapped when written,
/// with the quotes of gcc in them if `unicode`.
fn log(bytes: usize, unicode: bool) -> String {
    let mut log = String::new();
    let quotes = if unicode {
        ("\u{2018}", "\u{2019}")
    } else {
        ("'", "'")
    };
    let mut n = 0u64;
    while log.len() < bytes {
        n += 1;
        match n % 5 {
            0 => log.push_str("ld libs{foo}\n"),
            1 => log.push_str(&format!("c++ libfoo-1.2.3/foo/cxx{{source-{n}}}@foo/obje{{s{n}}}\n")),
            2 => log.push_str(&format!(
                "libfoo-1.2.3/foo/source-{n}.cxx:{n}:17: warning: unused variable {}value_{n}{} [-Wunused-variable]\n",
                quotes.0, quotes.1
            )),
            3 => log.push_str(&format!("  {n} |   const std::size_t value_{n} = some_function (first, second) + {n};\n")),
            _ => log.push_str("      |                     ^~~~~~~\n"),
        }
    }
    log
}

fn request(log: &str) -> ResultRequest {
    let mut result = ResultManifest::new("libfoo", "1.2.3", ResultStatus::Warning);
    let half = log.len() / 2;
    let half = (half..).find(|at| log.is_char_boundary(*at)).unwrap();
    let (update, test) = log.split_at(half);
    for (operation, log) in [("configure", ""), ("update", update), ("test", test)] {
        result.results.push(OperationResult {
            operation: operation.to_owned(),
            status: ResultStatus::Warning,
            log: log.to_owned(),
        });
    }
    ResultRequest {
        session: "s".to_owned(),
        challenge: None,
        agent_checksum: None,
        result,
    }
}

/// Reads all pairs.
fn parse(text: &[u8]) {
    let limits = ParseLimits {
        pairs: usize::MAX,
        name: usize::MAX,
        ..ParseLimits::default()
    };
    let mut parser = Parser::with_limits(text, "input", limits);
    while let Some(manifest) = parser.next_manifest().unwrap() {
        black_box(manifest);
    }
}

fn write_value(value: &[u8]) {
    let value = std::str::from_utf8(value).unwrap();
    let mut serializer = Serializer::new("output", Style::TODAY);
    serializer.pair("", "1").unwrap();
    serializer.pair("log", value).unwrap();
    black_box(serializer.into_text());
}

fn pairs(count: usize) -> String {
    let pairs = (0..count).map(|n| format!("name-{n}: value {n}\n"));
    ": 1\n".to_owned() + &pairs.collect::<String>()
}

fn cases() -> Vec<Case> {
    const SIZE: usize = 15_000_000;
    let plain = request(&log(SIZE, false));
    let quoted = request(&log(SIZE, true));
    let long_lines = Style {
        long_lines: true,
        ..Style::TODAY
    };
    let text = plain.to_text(Style::TODAY).unwrap();
    let unwrapped = plain.to_text(long_lines).unwrap();
    let quoted_text = quoted.to_text(Style::TODAY).unwrap();
    let one_line = format!(": 1\na: {}\n", "x".repeat(1 << 20));
    let wrapped_line = {
        let mut serializer = Serializer::new("", Style::TODAY);
        serializer.pair("", "1").unwrap();
        serializer.pair("a", &"word ".repeat(200_000)).unwrap();
        serializer.into_text()
    };
    let short_lines = format!(": 1\na:\n\\\n{}\n\\\n", "x\n".repeat(1 << 16));
    let crlf = text.replace('\n', "\r\n");
    let serialize = |request: ResultRequest, style| {
        move |_: &[u8]| drop(black_box(request.to_text(style).unwrap()))
    };
    let over = request(&log(2 * SIZE, false));
    let over_text = over.to_text(Style::TODAY).unwrap();
    vec![
        Case::new("parse, 15 MB result", text.clone(), parse),
        Case::new("parse, the same without wrapping", unwrapped, parse),
        Case::new(
            "parse, the same with typographic quotes",
            quoted_text.clone(),
            parse,
        ),
        Case::new("parse, the same with CRLF", crlf, parse),
        Case::new("parse to a result request", text.clone(), |text| {
            drop(black_box(ResultRequest::parse(text, "input").unwrap()));
        }),
        Case::new("parse, 64k pairs", pairs(1 << 16), parse),
        Case::new("parse, 64k manifests", ": 1\n".repeat(1 << 16), parse),
        Case::new("parse, value of 64k lines", short_lines, parse),
        Case::new("parse, line of 1 MB", one_line, parse),
        Case::new("parse, line of 1 MB, wrapped", wrapped_line, parse),
        Case::new(
            "parse, 1 MB of backslashes",
            format!(": 1\na: {}", "\\".repeat(1 << 20)),
            parse,
        ),
        Case::new(
            "parse, 1 MB of CRs",
            format!(": 1\na:\\\n{}", "\r".repeat(1 << 20)),
            parse,
        ),
        Case::new("parse, 1 MB of blank lines", " \n".repeat(1 << 19), parse),
        Case::new(
            "serialize, 15 MB result",
            text.clone(),
            serialize(plain.clone(), Style::TODAY),
        ),
        Case::new(
            "serialize, without wrapping",
            text,
            serialize(plain, long_lines),
        ),
        Case::new(
            "serialize, with typographic quotes",
            quoted_text,
            serialize(quoted, Style::TODAY),
        ),
        Case::new(
            "serialize, line of 1 MB",
            "word ".repeat(200_000),
            write_value,
        ),
        Case::new(
            "serialize, line of 1 MB, no blanks",
            "x".repeat(1 << 20),
            write_value,
        ),
        Case::new("serialize, 64k lines", "x\n".repeat(1 << 16), write_value),
        Case::new("fit, 30 MB into 14 MiB", over_text, move |_| {
            drop(black_box(fit(&over, 14 << 20, Style::TODAY).unwrap()));
        }),
        Case::new("sanitize, clean log", log(SIZE, true), |log| {
            drop(black_box(sanitize(log)));
        }),
        Case::new(
            "sanitize, coloured log",
            log(SIZE, true).replace("warning", "\u{1B}[35mwarning\u{1B}[m"),
            |log| {
                drop(black_box(sanitize(log)));
            },
        ),
    ]
}

fn main() {
    let mut cases = cases();
    let mut args = std::env::args();
    if let (Some(_), Some(name)) = (args.find(|arg| arg == "--only"), args.next()) {
        cases.retain(|case| case.name == name);
        for Case { text, work, .. } in &cases {
            (0..100).for_each(|_| work(text));
        }
        return;
    }
    if std::env::args().any(|arg| arg == "--allocations") {
        for Case { name, text, work } in &cases {
            println!("{}\t{name}", allocations::during(|| work(text)));
        }
        return;
    }
    println!(
        "manifests, medians of {ROUNDS}; times are those of the yardsticks over the same bytes"
    );
    println!(
        "{:<42} {:>6} {:>8} {:>8} {:>8} {:>7}",
        "", "MB", "MB/s", "x copy", "x scan", "allocs"
    );
    let mut lines = String::new();
    for Case { name, text, work } in &cases {
        let ours = median(|| work(black_box(text)));
        let copy = median(|| drop(black_box(black_box(text).clone())));
        let scan = median(|| {
            black_box(black_box(text).iter().filter(|b| **b == b'\n').count());
        });
        let allocations = allocations::during(|| work(text));
        let ratio = |other: Duration| ours.as_secs_f64() / other.as_secs_f64();
        #[allow(clippy::cast_precision_loss)]
        let megabytes = text.len() as f64 / 1e6;
        let speed = megabytes / ours.as_secs_f64();
        println!(
            "{name:<42} {megabytes:>6.1} {speed:>8.0} {:>8.2} {:>8.2} {allocations:>7}",
            ratio(copy),
            ratio(scan)
        );
        let number = |n: f64| Value::Number(format!("{n:.3}"));
        let line = Value::object([
            ("bench", Value::from("manifest")),
            ("case", Value::from(*name)),
            ("megabytes", number(megabytes)),
            ("megabytes_per_second", number(speed)),
            ("times_copy", number(ratio(copy))),
            ("times_scan", number(ratio(scan))),
            ("allocations", Value::from(allocations)),
        ]);
        lines.push_str(&format!("{line}\n"));
    }
    record::append(&lines);
}
