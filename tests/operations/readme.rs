//! README's code blocks and tables, for the tests that type what stands there.

use std::sync::LazyLock;

static README: LazyLock<String> = LazyLock::new(|| {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
});

/// The lines below a heading, up to the next one.
pub fn section(heading: &str) -> Vec<&'static str> {
    let mut lines = README.lines().skip_while(|line| *line != heading);
    assert_eq!(lines.next(), Some(heading));
    let mut code = false;
    lines
        .take_while(|line| {
            code ^= line.starts_with("```");
            code || !line.starts_with('#')
        })
        .collect()
}

/// The blocks of code in a section.
pub fn blocks(heading: &str) -> Vec<Vec<&'static str>> {
    section(heading)
        .split(|line| line.starts_with("```"))
        .skip(1)
        .step_by(2)
        .map(<[_]>::to_vec)
        .collect()
}

/// The block of a section in which a line begins so.
pub fn block(heading: &str, beginning: &str) -> Vec<&'static str> {
    blocks(heading)
        .into_iter()
        .find(|block| block.iter().any(|line| line.starts_with(beginning)))
        .expect(beginning)
}

/// The commands in a block: the lines with root's prompt, with their here-documents.
pub fn typed(block: &[&'static str]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut end = None;
    for line in block {
        if let Some(word) = end {
            found.push(*line);
            end = (*line != word).then_some(word);
        } else if let Some(command) = line.strip_prefix("# ") {
            found.push(command);
            end = command
                .split_once("<<")
                .map(|(_, word)| word.trim_matches('\''));
        }
    }
    found
}

/// The first command in code font that begins so.
pub fn quoted(heading: &str, beginning: &str) -> String {
    let text = section(heading).join(" ");
    let found = text.split('`').find(|part| part.starts_with(beginning));
    found.expect(beginning).to_owned()
}
