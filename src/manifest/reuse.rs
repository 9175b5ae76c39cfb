//! Whether a bootstrapped copy can be used: a pure comparison of manifests.

use std::cmp::Ordering;
use std::fmt;

use super::value::StandardVersion;
use super::{BootstrapManifest, BootstrappedMachine};

/// How the versions that a bootstrapped machine reports compare with those that
/// the operator expects (`--bootstrap-version`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Age {
    /// All as expected, or nothing is expected.
    Same,
    /// This package is older than expected, or missing.
    Older(String),
    /// This package is newer than expected: the agent is about to be upgraded.
    Newer(String),
}

/// Whether a copy can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It can.
    Yes,
    /// A bootstrap is needed, for this reason.
    No(BootstrapReason),
    /// Neither now: this package in it is newer than expected.
    Newer(String),
}

/// Why a machine needs a bootstrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapReason {
    /// There is no bootstrapped copy.
    Missing,
    /// There is one, but its manifest cannot be read.
    Unreadable(String),
    /// The machine id of the current revision is another one.
    NewMachine,
    /// The toolchain id is another one.
    NewToolchain,
    /// This package in the copy is older than expected.
    NewVersion(String),
}

impl fmt::Display for BootstrapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootstrapReason::Missing => f.write_str("not bootstrapped yet"),
            BootstrapReason::Unreadable(reason) => f.write_str(reason),
            BootstrapReason::NewMachine => f.write_str("new machine"),
            BootstrapReason::NewToolchain => f.write_str("new toolchain"),
            BootstrapReason::NewVersion(package) => write!(f, "new {package}"),
        }
    }
}

/// Judges a bootstrapped copy against the current revision with `machine_id`.
/// An empty `toolchain_id` matches any; `expected` names packages and versions.
///
/// A copy with a package that is newer than expected is left alone even if it is stale
/// otherwise: a newer agent made it.
pub fn judge(
    machine_id: &str,
    toolchain_id: &str,
    expected: &[(String, String)],
    copy: &BootstrappedMachine,
) -> Reuse {
    let version = match age(&copy.bootstrap, expected) {
        Age::Newer(package) => return Reuse::Newer(package),
        Age::Older(package) => Some(BootstrapReason::NewVersion(package)),
        Age::Same => None,
    };
    if copy.machine.id() != machine_id {
        Reuse::No(BootstrapReason::NewMachine)
    } else if !toolchain_id.is_empty() && copy.toolchain.id() != toolchain_id {
        Reuse::No(BootstrapReason::NewToolchain)
    } else {
        version.map_or(Reuse::Yes, Reuse::No)
    }
}

/// Compares the reported versions with the expected ones, package by package in
/// the order of `expected`; the first difference decides.
pub fn age(reported: &BootstrapManifest, expected: &[(String, String)]) -> Age {
    for (package, version) in expected {
        match reported
            .version(package)
            .map(|found| compare(found, version))
        {
            Some(Ordering::Equal) => {}
            Some(Ordering::Greater) => return Age::Newer(package.clone()),
            Some(Ordering::Less) | None => return Age::Older(package.clone()),
        }
    }
    Age::Same
}

/// Integers with integers, standard versions with standard versions; anything
/// else counts as older, so that the machine is bootstrapped again.
fn compare(found: &str, expected: &str) -> Ordering {
    if let (Some(found), Some(expected)) = (integer(found), integer(expected)) {
        return found.cmp(&expected);
    }
    match (
        StandardVersion::parse(found),
        StandardVersion::parse(expected),
    ) {
        (Ok(found), Ok(expected)) => found.cmp(&expected),
        _ if found == expected => Ordering::Equal,
        _ => Ordering::Less,
    }
}

fn integer(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{MachineManifest, ToolchainManifest};

    fn versions(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(p, v)| ((*p).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn judged(
        id: &str,
        toolchain: &str,
        reported: &[(&str, &str)],
        expected: &[(&str, &str)],
    ) -> Reuse {
        judge(
            "m-1.2",
            "t2",
            &versions(expected),
            &copy(id, toolchain, reported),
        )
    }

    fn copy(id: &str, toolchain: &str, reported: &[(&str, &str)]) -> BootstrappedMachine {
        let header = format!(": 1\nid: {id}\nname: m\nsummary: M\ntype: kvm\n");
        BootstrappedMachine {
            machine: MachineManifest::parse(header.as_bytes(), "").unwrap(),
            toolchain: ToolchainManifest::new(toolchain),
            bootstrap: BootstrapManifest::new(reported.iter().copied()),
        }
    }

    #[test]
    fn nothing_changed_means_reuse() {
        assert_eq!(judged("m-1.2", "t2", &[], &[]), Reuse::Yes);
        let same = [("bbot", "0.17.0")];
        assert_eq!(judged("m-1.2", "t2", &same, &same), Reuse::Yes);
    }

    #[test]
    fn an_empty_toolchain_id_matches_any() {
        assert_eq!(judge("m", "", &[], &copy("m", "bogus", &[])), Reuse::Yes);
    }

    #[test]
    fn machine_toolchain_and_version_each_make_it_stale() {
        let why = |verdict| match verdict {
            Reuse::No(why) => why.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(why(judged("m-1.1", "t2", &[], &[])), "new machine");
        assert_eq!(why(judged("m-1.2", "t1", &[], &[])), "new toolchain");
        assert_eq!(
            why(judged(
                "m-1.2",
                "t2",
                &[("bbot", "0.16.0")],
                &[("bbot", "0.17.0")]
            )),
            "new bbot"
        );
        assert_eq!(
            why(judged("m-1.2", "t2", &[], &[("bbot", "1.0.0")])),
            "new bbot"
        );
    }

    #[test]
    fn newer_than_expected_is_left_alone_even_if_otherwise_stale() {
        let newer = judged("m-1.1", "t1", &[("bbot", "0.18.0")], &[("bbot", "0.17.0")]);
        assert_eq!(newer, Reuse::Newer("bbot".to_owned()));
    }

    #[test]
    fn the_first_package_that_differs_decides() {
        let reported = BootstrapManifest::new([("libbutl", "3"), ("bbot", "1")]);
        let expected = versions(&[("bbot", "2"), ("libbutl", "2")]);
        assert_eq!(age(&reported, &expected), Age::Older("bbot".to_owned()));
    }

    #[test]
    fn integers_compare_as_integers_and_kinds_do_not_mix() {
        assert_eq!(compare("9", "10"), Ordering::Less);
        assert_eq!(compare("49990010", "49990010"), Ordering::Equal);
        assert_eq!(compare("0.10.0", "0.9.0"), Ordering::Greater);
        assert_eq!(compare("1.0.0-a.1", "1.0.0"), Ordering::Less);
        assert_eq!(compare("49990010", "0.17.0"), Ordering::Less);
        assert_eq!(compare("0.17.0", "49990010"), Ordering::Less);
        assert_eq!(compare("99999999999999999999999", "1"), Ordering::Less);
    }
}
