//! Whatever follows from the architecture of a guest. No other module names one.

use std::path::Path;

/// The architecture of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

/// The start of the names of QEMU's programs. The rest is an architecture.
const PROGRAM: &str = "qemu-system-";

impl Architecture {
    const ALL: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];

    /// The architecture of this host.
    pub const HOST: Architecture = match cfg!(target_arch = "aarch64") {
        true => Architecture::Aarch64,
        false => Architecture::X86_64,
    };

    /// The architecture of a machine's guest: that of the machine type in its `options`,
    /// else that which its name begins with, else that in the name of the program `qemu`,
    /// else that of this host.
    #[must_use]
    pub fn of(machine: &str, options: Option<&[String]>, qemu: &Path) -> Architecture {
        let named = |text: &str| Self::ALL.into_iter().find(|a| a.name() == text);
        let by_program = || named(qemu.file_name()?.to_str()?.strip_prefix(PROGRAM)?);
        options
            .and_then(Architecture::by_machine_type)
            .or_else(|| named(machine.split('-').next()?))
            .or_else(by_program)
            .unwrap_or(Architecture::HOST)
    }

    fn by_machine_type(options: &[String]) -> Option<Architecture> {
        let mut pairs = options.windows(2);
        let pair = pairs.find(|pair| pair[0] == "-machine" || pair[0] == "-M")?;
        let given = pair[1].split(',').next()?;
        let given = given.strip_prefix("type=").unwrap_or(given);
        // Aliases, and those with the version of QEMU in them.
        let is =
            |family: &&'static str| given == *family || given.starts_with(&format!("{family}-"));
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.machine_types().iter().any(is))
    }

    /// Its name in names of machines, of programs, and in descriptors of firmware.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }

    /// Families of machine types that no other architecture has.
    fn machine_types(self) -> &'static [&'static str] {
        match self {
            Architecture::X86_64 => &["q35", "pc", "microvm"],
            Architecture::Aarch64 => &["virt"],
        }
    }

    /// Whether guests boot by UEFI unless their machine says otherwise: there is nothing
    /// else that boots a disk.
    #[must_use]
    pub fn boots_by_uefi(self) -> bool {
        self == Architecture::Aarch64
    }

    /// The start of the patterns for the machine type of guests in descriptors of firmware.
    #[must_use]
    pub fn firmware_target(self) -> &'static str {
        match self {
            Architecture::X86_64 => "pc-q35-",
            Architecture::Aarch64 => "virt-",
        }
    }

    /// QEMU's device for a TPM.
    #[must_use]
    pub fn tpm_device(self) -> &'static str {
        match self {
            Architecture::X86_64 => "tpm-crb",
            Architecture::Aarch64 => "tpm-tis-device",
        }
    }

    /// The packages of its UEFI firmware: of Debian, of Fedora, and of Arch.
    #[must_use]
    pub fn firmware_packages(self) -> [&'static str; 3] {
        match self {
            Architecture::X86_64 => ["ovmf", "edk2-ovmf", "edk2-ovmf"],
            Architecture::Aarch64 => ["qemu-efi-aarch64", "edk2-aarch64", "edk2-aarch64"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_then_the_name_then_the_program_tell_the_architecture() {
        let of = |machine, options: &str, qemu: &str| {
            let options: Vec<String> = options.split(' ').map(str::to_owned).collect();
            Architecture::of(machine, Some(&options), qemu.as_ref()).name()
        };
        assert_eq!(of("linux", "", "/opt/qemu-system-aarch64"), "aarch64");
        assert_eq!(of("x86_64-linux", "", "qemu-system-aarch64"), "x86_64");
        assert_eq!(of("aarch64-linux", "", "qemu"), "aarch64");
        assert_eq!(of("aarch64-x", "-machine q35,smm=on", "qemu"), "x86_64");
        assert_eq!(of("x86_64-x", "-snapshot -M type=virt-9.0", "q"), "aarch64");
        assert_eq!(of("linux", "-M", "q"), Architecture::HOST.name());
        assert_eq!(of("linux", "-M virtual", "qemu-system-x86_64"), "x86_64");
    }
}
