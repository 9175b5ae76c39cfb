//! The version of the toolchain, where the operator does not name one: what the workers
//! of the bootstrapped machines report as their bbot.
//!
//! It is a part of a build's identity for controllers, so all offered machines have the
//! same one.

use crate::manifest::BootstrapManifest;
use crate::manifest::value::StandardVersion;

/// The package whose version is that of the toolchain.
const PACKAGE: &str = "bbot";

/// A machine's name and the report of its worker.
pub type Reported<'a> = (&'a str, &'a BootstrapManifest);

/// The newest version among the machines, if any has one that controllers take.
pub fn newest<'a>(machines: &[Reported<'a>]) -> Option<&'a str> {
    let versions = machines.iter().filter_map(|(_, report)| {
        let text = report.version(PACKAGE)?;
        Some((StandardVersion::parse(text).ok()?, text))
    });
    let newest = versions.max_by(|(a, _), (b, _)| a.cmp(b));
    newest.map(|(_, text)| text)
}

/// Whether a machine has this version.
pub fn has(report: &BootstrapManifest, version: &str) -> bool {
    report.version(PACKAGE) == Some(version)
}

/// The machines without `version`, in a sentence; `None` if all have it.
pub fn difference(version: &str, machines: &[Reported<'_>]) -> Option<String> {
    let others = machines.iter().filter(|(_, report)| !has(report, version));
    let names: Vec<&str> = others.map(|(name, _)| *name).collect();
    let names = (!names.is_empty()).then(|| names.join(", "))?;
    Some(format!(
        "not offered: {names}, without the {PACKAGE} {version} of other machines"
    ))
}
