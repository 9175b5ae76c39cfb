//! Any values that may be written read back, in every style; readers of 2017
//! read the old form.

#![no_main]

#[path = "../../manifest/reference.rs"]
mod reference;

use bbot_agent::manifest::{ParseLimits, Parser, SerializeError, Serializer, Style};
use libfuzzer_sys::fuzz_target;
use reference::{Era, Stream};

fn write(stream: &Stream, style: Style) -> Result<String, SerializeError> {
    let mut serializer = Serializer::new("", style);
    for manifest in stream {
        serializer.pair("", "1")?;
        for (name, value) in manifest {
            serializer.pair(name, value)?;
        }
        serializer.pair("", "")?;
    }
    Ok(serializer.into_text())
}

fn read(text: &str) -> Stream {
    let limits = ParseLimits {
        name: usize::MAX,
        ..ParseLimits::default()
    };
    let mut parser = Parser::with_limits(text.as_bytes(), "", limits);
    let mut stream = Stream::new();
    while let Some(pairs) = parser.next_manifest().unwrap() {
        let pairs = pairs.into_iter();
        stream.push(
            pairs
                .map(|p| (p.name.to_owned(), p.value.into_owned()))
                .collect(),
        );
    }
    stream
}

// NUL ends a name or a value, and SOH a manifest: neither may stand in one.
fuzz_target!(|text: &str| {
    // A CR is written as a newline, by design.
    let text = text.replace('\r', "");
    let manifest = |part: &str| {
        let mut texts = part.split('\0').map(str::to_owned);
        let mut manifest = Vec::new();
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            let name = if name.is_empty() {
                "empty".to_owned()
            } else {
                name
            };
            manifest.push((name, value));
        }
        manifest
    };
    let stream: Stream = text.split('\u{1}').map(manifest).collect();
    for (old_form, long_lines) in [(false, false), (true, false), (false, true), (true, true)] {
        let style = Style {
            old_form,
            long_lines,
        };
        let Ok(text) = write(&stream, style) else {
            return;
        };
        assert_eq!(read(&text), stream);
        if old_form {
            assert_eq!(
                reference::parse(text.as_bytes(), Era::In2017),
                Ok(stream.clone())
            );
        }
    }
});
