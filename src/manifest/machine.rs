//! Machine manifests: the header for controllers, and the manifest in a machine's
//! subvolume.

use super::syntax::{ParseError, SerializeError, Style};
use super::value;
use super::values::{Section, Values, single};

/// The role of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// A worker builds packages in it.
    #[default]
    Build,
    /// It serves a build machine, for instance as a database.
    Auxiliary,
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "build" => Ok(Role::Build),
        "auxiliary" => Ok(Role::Auxiliary),
        _ => Err(format!("unknown role '{text}'")),
    }
}

fn kilobytes(text: &str) -> Result<u64, &'static str> {
    // `parse` would accept a sign.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("unsigned integer expected");
    }
    text.parse().map_err(|_| "integer out of range")
}

const HEADER: [&str; 6] = [
    "id",
    "name",
    "summary",
    "role",
    "ram-minimum",
    "ram-maximum",
];

/// The part of a machine manifest that a controller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineHeader(Values);

impl MachineHeader {
    const KIND: &str = "machine header";

    /// Reads a machine header manifest.
    pub fn parse(text: &[u8], source: &str) -> Result<MachineHeader, ParseError> {
        MachineHeader::read(single(text, source, Self::KIND)?)
    }

    pub(super) fn read(section: Section<'_>) -> Result<MachineHeader, ParseError> {
        check_header(&section)?;
        Ok(MachineHeader(section.into_values()))
    }

    /// The text, unknown values included.
    pub fn to_text(&self, style: Style) -> Result<String, SerializeError> {
        self.0.to_text("machine header manifest", style)
    }

    /// The name of the machine, the same in all revisions.
    pub fn name(&self) -> &str {
        self.0.get("name").unwrap_or_default()
    }

    /// The role.
    pub fn role(&self) -> Role {
        role_of(&self.0)
    }

    /// All values.
    pub fn values(&self) -> &Values {
        &self.0
    }
}

fn role_of(values: &Values) -> Role {
    let role = values.get("role").map(role);
    role.and_then(Result::ok).unwrap_or_default()
}

fn check_header(section: &Section<'_>) -> Result<(), ParseError> {
    section.required("id")?;
    section.required("name")?;
    section.required("summary")?;
    section.read("role", role)?;
    section.read("ram-minimum", kilobytes)?;
    section.read("ram-maximum", kilobytes)?;
    Ok(())
}

/// How a machine is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKind {
    /// A virtual machine: `kvm`.
    Kvm,
    /// A container: `nspawn`.
    Nspawn,
}

fn machine_kind(text: &str) -> Result<MachineKind, String> {
    match text {
        "kvm" => Ok(MachineKind::Kvm),
        "nspawn" => Ok(MachineKind::Nspawn),
        _ => Err(format!("unknown type '{text}'")),
    }
}

fn check(section: &Section<'_>) -> Result<(), ParseError> {
    check_header(section)?;
    let kind = section.read("type", machine_kind)?;
    section.read("mac", value::check_mac)?;
    section.read("options", |text| value::quoted_list(text, true))?;
    kind.map(drop).ok_or_else(|| section.missing("type"))
}

/// The `manifest` of a machine subvolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineManifest(Values);

impl MachineManifest {
    pub(super) const KIND: &str = "machine";

    /// A manifest of the mandatory values.
    pub fn new(header: &MachineHeader, kind: MachineKind) -> MachineManifest {
        let mut values = header.0.clone();
        let kind = match kind {
            MachineKind::Kvm => "kvm",
            MachineKind::Nspawn => "nspawn",
        };
        values.replace("type", [kind], &HEADER);
        MachineManifest(values)
    }

    /// Reads a machine manifest.
    pub fn parse(text: &[u8], source: &str) -> Result<MachineManifest, ParseError> {
        MachineManifest::read(single(text, source, Self::KIND)?)
    }

    pub(super) fn read(section: Section<'_>) -> Result<MachineManifest, ParseError> {
        check(&section)?;
        Ok(MachineManifest(section.into_values()))
    }

    /// The header for a controller. Older controllers reject a role and memory, so only
    /// auxiliary machines have them.
    pub fn for_request(&self) -> MachineHeader {
        let names = match self.role() {
            Role::Build => &HEADER[..3],
            Role::Auxiliary => &HEADER[..],
        };
        MachineHeader(self.0.only(names))
    }

    /// The header part.
    pub fn header(&self) -> MachineHeader {
        MachineHeader(self.0.only(&HEADER))
    }

    /// The id of the machine's revision.
    pub fn id(&self) -> &str {
        self.0.get("id").unwrap_or_default()
    }

    /// The name of the machine, the same in all revisions.
    pub fn name(&self) -> &str {
        self.0.get("name").unwrap_or_default()
    }

    /// The role.
    pub fn role(&self) -> Role {
        role_of(&self.0)
    }

    /// The minimum memory in kB.
    pub fn ram_minimum(&self) -> Option<u64> {
        self.0.get("ram-minimum").and_then(|v| kilobytes(v).ok())
    }

    /// The maximum memory in kB.
    pub fn ram_maximum(&self) -> Option<u64> {
        self.0.get("ram-maximum").and_then(|v| kilobytes(v).ok())
    }

    /// How the machine is run.
    pub fn kind(&self) -> MachineKind {
        let kind = self.0.get("type").map(machine_kind);
        kind.and_then(Result::ok).unwrap_or(MachineKind::Kvm)
    }

    /// The MAC address of the guest: six octets in lower-case hexadecimal.
    pub fn mac(&self) -> Option<&str> {
        self.0.get("mac")
    }

    /// Records the MAC address.
    pub fn set_mac(&mut self, mac: &str) {
        self.0
            .replace("mac", [mac], &[&HEADER[..], &["type"]].concat());
    }

    /// QEMU options in place of the usual ones for network and disk, one level of
    /// quotes removed.
    pub fn options(&self) -> Option<Vec<String>> {
        let options = self.0.get("options")?;
        value::quoted_list(options, true).ok()
    }

    /// All values.
    pub fn values(&self) -> &Values {
        &self.0
    }
}
