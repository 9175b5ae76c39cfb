//! The agent checksum: a digest of everything on the agent's side that can change
//! a result.
//!
//! Three checksums decide whether a package has to be built again: the agent's,
//! the worker's and the dependencies'. Each is valid only if the one before it
//! matches.

use ring::digest::{Context, SHA256};

use super::task::TaskManifest;

/// Version of the agent's logic; a change makes all earlier results obsolete.
const LOGIC: &str = "1";

/// The checksum over the agent's logic and these inputs, each a name and a value:
/// the settings of a worker that can change its result.
pub fn agent_checksum<'a>(inputs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut context = Context::new(&SHA256);
    let mut update = |text: &str| {
        // The length keeps two different lists from being the same bytes.
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

/// Compares the controller's agent checksum with the agent's own. If they differ,
/// drops the worker's and the dependencies' checksums from the task, so that the
/// worker builds. Returns whether they match.
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
