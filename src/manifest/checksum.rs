//! Our checksum of what affects results on our side, and what follows from it.
//!
//! Three checksums decide whether a package has to be built again: the agent's,
//! the worker's and that of the dependencies. Each vouches for those below it.

use ring::digest::{Context, SHA256};

use super::task::TaskManifest;

/// Counts changes of ours that make earlier results doubtful.
const LOGIC: &str = "1";

/// The checksum over our logic and these inputs, names and values: what a
/// worker is run with that could change a result.
pub fn agent_checksum<'a>(inputs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut context = Context::new(&SHA256);
    let mut update = |text: &str| {
        // With its length, so that no two lists of texts are the same bytes.
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    };
    update(LOGIC);
    for (name, value) in inputs {
        update(name);
        update(value);
    }
    hex(context.finish().as_ref())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 0xF)]);
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(*b)])
        .collect()
}

/// Drops the worker's and the dependencies' checksums from the task unless the
/// controller's agent checksum is ours: whether they stand.
pub fn accept_checksums(task: &mut TaskManifest, theirs: Option<&str>, ours: &str) -> bool {
    let same = theirs == Some(ours);
    if !same {
        task.drop_checksums();
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_two_digits_a_byte() {
        assert_eq!(hex(&[0x00, 0x0F, 0xA5, 0xFF]), "000fa5ff");
    }

    #[test]
    fn every_input_matters() {
        let sum = agent_checksum([("toolchain", "a"), ("x", "")]);
        assert_eq!(sum.len(), 64);
        assert_eq!(sum, agent_checksum([("toolchain", "a"), ("x", "")]));
        for other in [
            agent_checksum([("toolchain", "a")]),
            agent_checksum([("toolchain", "ax"), ("", "")]),
            agent_checksum([("toolchain", "b"), ("x", "")]),
            agent_checksum([("x", ""), ("toolchain", "a")]),
        ] {
            assert_ne!(sum, other);
        }
    }

    #[test]
    fn checksums_of_the_task_stand_only_with_ours() {
        let text =
            b": 1\nname: x\nversion: 1\ndependency-checksum: d\nmachine: m\nworker-checksum: w\n";
        let task = TaskManifest::parse(text, "").unwrap();
        for (theirs, stands) in [(Some("1"), true), (Some("2"), false), (None, false)] {
            let mut task = task.clone();
            assert_eq!(accept_checksums(&mut task, theirs, "1"), stands);
            assert_eq!(task.worker_checksum().is_some(), stands);
            assert_eq!(task.dependency_checksum().is_some(), stands);
        }
    }
}
