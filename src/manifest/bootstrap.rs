//! Manifests of bootstrapped machines.

use super::machine::MachineManifest;
use super::syntax::{ParseError, SerializeError, Serializer, Style};
use super::values::{Section, Stream, Values, single};

/// The toolchain a machine was bootstrapped with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolchainManifest(Values);

impl ToolchainManifest {
    const KIND: &str = "toolchain";

    /// The id that bbot's agent records when it has none.
    pub const NO_ID: &str = "bogus";

    /// A manifest of this toolchain id, which may be empty.
    pub fn new(id: &str) -> ToolchainManifest {
        let id = if id.is_empty() { Self::NO_ID } else { id };
        ToolchainManifest([("id", id)].into_iter().collect())
    }

    fn read(section: Section<'_>) -> Result<ToolchainManifest, ParseError> {
        section.required("id")?;
        Ok(ToolchainManifest(section.into_values()))
    }

    /// The id.
    pub fn id(&self) -> &str {
        self.0.get("id").unwrap_or_default()
    }
}

/// The worker's report of a bootstrap: versions of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrapManifest(Values);

impl BootstrapManifest {
    const KIND: &str = "bootstrap";

    /// A manifest of these packages and their versions.
    pub fn new<'a>(versions: impl IntoIterator<Item = (&'a str, &'a str)>) -> BootstrapManifest {
        let versions = versions.into_iter();
        BootstrapManifest(versions.map(|(p, v)| (format!("{p}-version"), v)).collect())
    }

    /// Reads a bootstrap result manifest. Versions are checked only when they are
    /// compared; the first version of a package counts. A manifest without any version
    /// is one of another kind, unless it is empty.
    pub fn parse(text: &[u8], source: &str) -> Result<BootstrapManifest, ParseError> {
        let section = single(text, source, Self::KIND)?;
        let mut pairs = section.pairs().iter();
        if !section.pairs().is_empty() && !pairs.any(|pair| pair.name.ends_with("-version")) {
            return Err(section.missing("<package>-version"));
        }
        Ok(BootstrapManifest(section.into_values()))
    }

    /// The version of this package.
    pub fn version(&self, package: &str) -> Option<&str> {
        let mut values = self.0.iter();
        let version = values.find(|(n, _)| n.strip_suffix("-version") == Some(package));
        version.map(|(_, v)| v)
    }
}

/// The `manifest` of a bootstrapped subvolume: an empty manifest, then one of
/// each of these kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrappedMachine {
    /// The machine, with the MAC address it had.
    pub machine: MachineManifest,
    /// The toolchain it was bootstrapped with.
    pub toolchain: ToolchainManifest,
    /// The worker's report.
    pub bootstrap: BootstrapManifest,
}

impl BootstrappedMachine {
    const KIND: &str = "bootstrapped machine";

    /// Reads a bootstrapped machine manifest, with or without the leading empty
    /// one.
    pub fn parse(text: &[u8], source: &str) -> Result<BootstrappedMachine, ParseError> {
        let mut stream = Stream::new(text, source, Self::KIND);
        let mut section = stream.expect(Self::KIND)?;
        if section.pairs().is_empty() {
            section = stream.expect(MachineManifest::KIND)?;
        }
        let section = section.of_kind(MachineManifest::KIND);
        if !section.has("mac") {
            return Err(section.missing("mac"));
        }
        let machine = MachineManifest::read(section)?;
        let toolchain = ToolchainManifest::read(stream.expect(ToolchainManifest::KIND)?)?;
        let bootstrap = stream.expect(BootstrapManifest::KIND)?.into_values();
        stream.finish()?;
        Ok(BootstrappedMachine {
            machine,
            toolchain,
            bootstrap: BootstrapManifest(bootstrap),
        })
    }

    /// The text.
    pub fn to_text(&self, style: Style) -> Result<String, SerializeError> {
        let mut serializer = Serializer::new("bootstrapped machine manifest", style);
        Values::default().write(&mut serializer)?;
        self.machine.values().write(&mut serializer)?;
        self.toolchain.0.write(&mut serializer)?;
        self.bootstrap.0.write(&mut serializer)?;
        Ok(serializer.into_text())
    }
}
