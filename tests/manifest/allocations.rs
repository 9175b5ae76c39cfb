//! How often reading and writing a result allocates, held by the figures in
//! `data/ratchet`: a lower one is to be written there, a higher one mended.

use std::hint::black_box;

use bbot_agent::manifest::{
    OperationResult, Parser, ResultManifest, ResultRequest, ResultStatus, Style, sanitize,
};

use crate::support::allocations;

/// A result of three logs, one of them long, with lines that wrap.
fn request() -> ResultRequest {
    let mut result = ResultManifest::new("libfoo", "1.2.3", ResultStatus::Warning);
    let wide =
        "libfoo-1.2.3/foo/source.cxx:17:1: warning: unused variable 'value' [-Wunused-variable]";
    for (operation, lines) in [("configure", 0), ("update", 20_000), ("test", 10)] {
        result.results.push(OperationResult {
            operation: operation.to_owned(),
            status: ResultStatus::Warning,
            log: format!("c++ cxx{{source}}@foo/obje{{s}}\n{wide}\n").repeat(lines),
        });
    }
    ResultRequest {
        session: "s".to_owned(),
        challenge: None,
        agent_checksum: None,
        result,
    }
}

/// The figure `name` of the ratchet: lines of a name and a number.
pub fn held(name: &str) -> u64 {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ratchet");
    let text = std::fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in tests/data/ratchet"))
        .trim()
        .parse()
        .unwrap()
}

fn hold(name: &str, body: impl FnOnce()) {
    let now = allocations::during(body);
    let held = held(name);
    assert!(
        now <= held,
        "{name}: {now} allocations, {held} in tests/data/ratchet"
    );
    if now < held {
        eprintln!("{name}: {now} allocations, better than {held}: write it to tests/data/ratchet");
    }
}

#[test]
fn a_result_is_read_and_written_with_few_allocations() {
    let request = request();
    let wrapped = request.to_text(Style::TODAY).unwrap();
    let style = Style {
        long_lines: true,
        ..Style::TODAY
    };
    let unwrapped = request.to_text(style).unwrap();
    let parse = |text: &str| {
        let mut parser = Parser::new(text.as_bytes(), "");
        while let Some(manifest) = parser.next_manifest().unwrap() {
            black_box(manifest);
        }
    };
    hold("manifest-parse", || parse(&unwrapped));
    hold("manifest-parse-wrapped", || parse(&wrapped));
    hold("manifest-read-result", || {
        black_box(ResultRequest::parse(wrapped.as_bytes(), "").unwrap());
    });
    hold("manifest-write-result", || {
        black_box(request.to_text(Style::TODAY).unwrap());
    });
    hold("manifest-sanitize-clean", || {
        black_box(sanitize(wrapped.as_bytes()));
    });
}
