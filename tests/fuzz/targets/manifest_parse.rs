//! Any bytes as a stream of manifests: the parser agrees with the plain reading
//! of the rules that the tests have, and every kind of manifest reads or refuses.

#![no_main]

#[path = "../../manifest/reference.rs"]
#[expect(dead_code, reason = "the rules of 2017 are for what is written")]
mod reference;

use bbot_agent::manifest::{
    BootstrappedMachine, ParseLimits, MachineManifest, Parser, Style, TaskManifest, TaskResponse,
};
use libfuzzer_sys::fuzz_target;
use reference::{Era, Stream};

fn parse(input: &[u8]) -> Result<Stream, String> {
    let limits = ParseLimits {
        name: usize::MAX,
        ..ParseLimits::default()
    };
    let mut parser = Parser::with_limits(input, "input", limits);
    let mut stream = Stream::new();
    while let Some(pairs) = parser.next_manifest().map_err(|e| e.to_string())? {
        for pair in &pairs {
            assert!(parser.position(pair.name_at).line <= parser.position(pair.value_at).line);
        }
        let pairs = pairs.into_iter();
        stream.push(
            pairs
                .map(|p| (p.name.to_owned(), p.value.into_owned()))
                .collect(),
        );
    }
    Ok(stream)
}

fuzz_target!(|input: &[u8]| {
    match (parse(input), reference::parse(input, Era::Today)) {
        (Ok(ours), Ok(plain)) => assert_eq!(ours, plain),
        (Err(error), Err(())) => assert!(error.starts_with("input:"), "{error}"),
        (ours, plain) => panic!("{ours:?}, but {plain:?}"),
    }
    if let Ok(task) = TaskManifest::parse(input, "") {
        let text = task.to_text(Style::TODAY).unwrap();
        assert_eq!(TaskManifest::parse(text.as_bytes(), ""), Ok(task));
    }
    let _ = MachineManifest::parse(input, "");
    if let Ok(machine) = BootstrappedMachine::parse(input, "") {
        let text = machine.to_text(Style::TODAY).unwrap();
        assert_eq!(BootstrappedMachine::parse(text.as_bytes(), ""), Ok(machine));
    }
    let _ = TaskResponse::parse(input, "");
});
