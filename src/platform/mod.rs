//! Whatever follows from the architecture of a guest. No other module names one.

mod probe;

use std::path::Path;

pub use probe::ProbeGuest;

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

/// The program that runs guests of this host's architecture.
pub const HOST_QEMU: &str = match Architecture::HOST {
    Architecture::X86_64 => "qemu-system-x86_64",
    Architecture::Aarch64 => "qemu-system-aarch64",
};

/// The machine type in the `options` of a machine.
fn machine_type(options: &[String]) -> Option<&str> {
    let mut pairs = options.windows(2);
    let pair = pairs.find(|pair| pair[0] == "-machine" || pair[0] == "-M")?;
    let given = pair[1].split(',').next()?;
    let given = given.strip_prefix("type=").unwrap_or(given);
    // Else it is a property.
    Some(given).filter(|given| !given.contains('='))
}

impl Architecture {
    /// All of them.
    pub const ALL: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];

    /// The architecture of this host.
    pub const HOST: Architecture = match cfg!(target_arch = "aarch64") {
        true => Architecture::Aarch64,
        false => Architecture::X86_64,
    };

    /// The architecture of a machine's guest: that of the machine type in its `options`,
    /// else that which its name begins with, else that in the name of the program `qemu`,
    /// else that of this host.
    pub fn of(machine: &str, options: Option<&[String]>, qemu: &Path) -> Architecture {
        let has_type = |given| Self::ALL.into_iter().find(|a| a.has_machine_type(given));
        options
            .and_then(machine_type)
            .and_then(has_type)
            .or_else(|| Architecture::named(machine.split('-').next()?))
            .unwrap_or_else(|| Architecture::of_qemu(qemu))
    }

    /// The architecture of the guests of a program, if its name tells.
    pub fn of_program(qemu: &Path) -> Option<Architecture> {
        Architecture::named(qemu.file_name()?.to_str()?.strip_prefix(PROGRAM)?)
    }

    /// The same, of a program whose name does not tell: that of this host.
    pub fn of_qemu(qemu: &Path) -> Architecture {
        Architecture::of_program(qemu).unwrap_or(Architecture::HOST)
    }

    /// The architecture of this name.
    #[must_use]
    pub fn named(text: &str) -> Option<Architecture> {
        Self::ALL.into_iter().find(|a| a.name() == text)
    }

    /// Whether it has a machine type: alone there are aliases, and with the version of
    /// QEMU in them.
    fn has_machine_type(self, given: &str) -> bool {
        let is = |family: &&str| given == *family || given.starts_with(&format!("{family}-"));
        self.machine_types().iter().any(is)
    }

    /// QEMU's `-machine` for a machine with these `options`, which may name another one.
    pub fn machine(self, options: Option<&[String]>) -> &'static str {
        match self {
            // PCI Express, and what today's installers know.
            Architecture::X86_64 => "q35",
            // The interrupt controller of the host, or the best one that is emulated.
            // Machine types of other families have no such property.
            Architecture::Aarch64 => match options.and_then(machine_type) {
                Some(given) if !self.has_machine_type(given) => "virt",
                _ => "virt,gic-version=max",
            },
        }
    }

    /// QEMU's `-cpu` for emulated guests: every feature, which was measured on x86-64 to be
    /// faster than QEMU's default. Pointer authentication of aarch64 has QEMU's algorithm,
    /// because that of the architecture is slow to emulate (QEMU's arm/cpu-features).
    pub fn emulated_processor(self) -> &'static str {
        match self {
            Architecture::X86_64 => "max",
            Architecture::Aarch64 => "max,pauth-impdef=on",
        }
    }

    /// QEMU's options for a screen and, where the machine type has none, a keyboard.
    pub fn screen(self) -> &'static [&'static str] {
        match self {
            Architecture::X86_64 => &["-vga", "std"],
            Architecture::Aarch64 => &[
                "-device",
                "virtio-gpu-pci",
                "-device",
                "qemu-xhci",
                "-device",
                "usb-kbd",
                "-device",
                "usb-tablet",
            ],
        }
    }

    /// Whether QEMU has a device that tells its guests that they were restored.
    pub fn has_generation_id(self) -> bool {
        self == Architecture::X86_64
    }

    /// Debian's package of QEMU.
    pub fn qemu_package(self) -> &'static str {
        match self {
            Architecture::X86_64 => "qemu-system-x86",
            Architecture::Aarch64 => "qemu-system-arm",
        }
    }

    /// The remedy for a host of this architecture without KVM.
    pub fn kvm_remedy(self) -> &'static str {
        match self {
            Architecture::X86_64 => {
                "turn virtualization on in the firmware, then: modprobe kvm_intel or kvm_amd"
            }
            Architecture::Aarch64 => "the firmware of this host has to start Linux in EL2",
        }
    }

    /// The names of the lines of /proc/cpuinfo that tell one processor from another.
    pub fn processor_identity(self) -> &'static [&'static str] {
        match self {
            Architecture::X86_64 => &[
                "vendor_id",
                "cpu family",
                "model",
                "model name",
                "stepping",
                "microcode",
                "flags",
            ],
            Architecture::Aarch64 => &[
                "Features",
                "CPU implementer",
                "CPU architecture",
                "CPU variant",
                "CPU part",
                "CPU revision",
            ],
        }
    }

    /// Its name in names of machines, of programs, and in descriptors of firmware.
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
    pub fn boots_by_uefi(self) -> bool {
        self == Architecture::Aarch64
    }

    /// The start of the patterns for the machine type of guests in descriptors of firmware.
    pub fn firmware_target(self) -> &'static str {
        match self {
            Architecture::X86_64 => "pc-q35-",
            Architecture::Aarch64 => "virt-",
        }
    }

    /// QEMU's device for a TPM.
    pub fn tpm_device(self) -> &'static str {
        match self {
            Architecture::X86_64 => "tpm-crb",
            Architecture::Aarch64 => "tpm-tis-device",
        }
    }

    /// The packages of its UEFI firmware: of Debian, of Fedora, and of Arch.
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
        assert_eq!(of("aarch64-x", "-machine usb=on", "qemu"), "aarch64");
        assert_eq!(of("linux", "-M virtual", "qemu-system-x86_64"), "x86_64");
    }

    #[test]
    fn only_machine_types_with_an_interrupt_controller_of_choice_get_one() {
        let machine = |options: &str| {
            let options: Vec<String> = options.split(' ').map(str::to_owned).collect();
            Architecture::Aarch64.machine(Some(&options))
        };
        assert_eq!(machine("-M virt-9.0,secure=on"), "virt,gic-version=max");
        assert_eq!(machine("-machine secure=on"), "virt,gic-version=max");
        assert_eq!(machine("-M sbsa-ref"), "virt");
    }
}
