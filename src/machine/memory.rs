//! The memory of a guest: of QEMU's process, or in a file of the machine.
//!
//! A *template* is a machine that was stopped while it ran: its disks, its memory in
//! the file [`RAM`], and the state of its devices in the file [`STATE`], of one
//! instant. QEMU leaves memory out of the state if it is shared with a file
//! (`x-ignore-shared`, qapi `migration.json`), so that a state has less than a
//! megabyte and a guest is restored without reading its memory.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::clock::PORT;
use super::devices::{value, words};
use crate::error::{Context as _, Result};
use crate::json::Value;
use crate::platform::Architecture;

/// The name of the file with the guest's memory, in the directory of the machine.
pub const RAM: &str = "warm.ram";

/// The name of the file with the state of the devices.
pub const STATE: &str = "warm.state";

/// The name of the file with the state of the devices and the memory of a guest that
/// failed.
pub const FAILED: &str = "failed.state";

/// The place of a guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Memory of QEMU's process.
    Anonymous,
    /// The file [`RAM`], which is made: the guest is going to be a template.
    Saved,
    /// The guest is that of a template. It does not change the files.
    Restored {
        /// The subvolume of the template, which is read-only.
        template: PathBuf,
        /// Its memory is mapped, so that all its guests share what they do not change.
        /// Else QEMU maps the file in the directory of the machine.
        is_shared: bool,
    },
    /// Memory of QEMU's process, which is in the file [`FAILED`] of the machine with the
    /// state of the devices: a guest that failed, and is started again.
    Loaded {
        /// It was started from a template, and has its devices.
        is_warm: bool,
    },
}

/// Whether a QEMU of this version maps the memory of a guest from a file that it cannot
/// write to: the option `rom` of `memory-backend-file` is there from 8.2 on (qom.json).
pub(super) fn maps_read_only(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let number = numbers.next().zip(numbers.next());
    number.is_some_and(|number| number >= (8_u32, 2))
}

impl Memory {
    /// Whether a guest has the devices of a template.
    pub(super) fn is_warm(&self) -> bool {
        !matches!(self, Memory::Anonymous | Memory::Loaded { is_warm: false })
    }

    /// Makes or opens the files in `directory`. Returns that of the devices' state.
    pub(super) fn prepare(&self, directory: &Path, ram_kb: u64) -> Result<Option<File>> {
        let open = |directory: &Path, name: &str, options: &mut OpenOptions| {
            let path = directory.join(name);
            let file = options.open(&path);
            file.context(|| format!("unable to open {}", path.display()))
        };
        match self {
            Memory::Anonymous => Ok(None),
            Memory::Saved => {
                let mut new = OpenOptions::new();
                new.read(true).write(true).create_new(true);
                open(directory, RAM, &mut new)?
                    .set_len(ram_kb * 1024)
                    .context(|| "unable to make a file for the guest's memory")?;
                open(directory, STATE, &mut new).map(Some)
            }
            Memory::Restored { template, .. } => {
                open(template, STATE, OpenOptions::new().read(true)).map(Some)
            }
            Memory::Loaded { .. } => {
                open(directory, FAILED, OpenOptions::new().read(true)).map(Some)
            }
        }
    }

    /// The options of QEMU for the memory, and for devices that tell a guest that it was
    /// restored. `-m` is there for the size of the machine.
    pub(super) fn argv(
        &self,
        architecture: Architecture,
        ram_kb: u64,
        agent: RawFd,
    ) -> Vec<OsString> {
        let file = |how: &str, path: &Path| {
            let object = format!("memory-backend-file,id=warm-ram,size={ram_kb}k,{how},mem-path=");
            value(&object, path.as_os_str())
        };
        let object = match self {
            Memory::Anonymous | Memory::Loaded { is_warm: false } => return Vec::new(),
            Memory::Loaded { is_warm: true } => {
                format!("memory-backend-ram,id=warm-ram,size={ram_kb}k").into()
            }
            Memory::Saved => file("share=on", RAM.as_ref()),
            Memory::Restored {
                template,
                is_shared: true,
            } => file("share=off,readonly=on,rom=off", &template.join(RAM)),
            Memory::Restored { .. } => file("share=off", RAM.as_ref()),
        };
        let mut argv = vec![
            "-machine".into(),
            "memory-backend=warm-ram".into(),
            "-object".into(),
            object,
            "-device".into(),
            "virtio-serial-pci".into(),
            "-chardev".into(),
            format!("socket,id=guest-agent,fd={agent}").into(),
            "-device".into(),
            format!("virtserialport,id=agent,chardev=guest-agent,name={PORT}").into(),
        ];
        if architecture.has_generation_id() {
            // A new identity at each start, from which the guest's random numbers differ.
            argv.extend(words(["-device", "vmgenid"]));
        }
        argv
    }

    /// The options of QEMU for the state: a guest that is restored waits for it.
    pub(super) fn incoming(&self) -> Vec<OsString> {
        match self {
            Memory::Anonymous | Memory::Saved => Vec::new(),
            Memory::Restored { .. } | Memory::Loaded { .. } => {
                vec!["-incoming".into(), "defer".into()]
            }
        }
    }
}

/// The arguments of `migrate-set-capabilities`, for a state with the memory or without it.
pub(super) fn capabilities(with_memory: bool) -> Value {
    let set = |name: &str, is_on: bool| {
        let state = ("state", Value::Bool(is_on));
        Value::object([("capability", Value::from(name)), state])
    };
    let all = vec![set("x-ignore-shared", !with_memory), set("events", true)];
    Value::object([("capabilities", Value::Array(all))])
}

/// The arguments of `migrate-set-parameters`: as fast as the disk, in bytes a second.
pub(super) fn unlimited() -> Value {
    Value::object([("max-bandwidth", Value::from(1_u64 << 36))])
}

/// The name of the descriptor of the state in QEMU.
pub(super) const STREAM: &str = "warm";

/// The arguments of `migrate` and `migrate-incoming`.
pub(super) fn stream() -> Value {
    Value::object([("uri", Value::from(&*format!("fd:{STREAM}")))])
}

/// The end of a migration that an event tells: whether it succeeded.
pub(super) fn migrated(name: &str, data: &Value) -> Option<bool> {
    let status = data.get("status").and_then(Value::as_str);
    match status.filter(|_| name == "MIGRATION")? {
        "completed" => Some(true),
        "failed" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_of_a_template_share_its_memory_from_qemu_8_2_on() {
        for (version, is_shared) in [
            ("10.0.13", true),
            ("8.2.0", true),
            ("9.0", true),
            ("8.1.5", false),
            ("7.2.22", false),
            ("10", false),
            ("", false),
        ] {
            assert_eq!(maps_read_only(version), is_shared, "{version}");
        }
    }

    #[test]
    fn only_the_guest_of_a_new_template_writes_to_its_memory_file() {
        let backend = |memory: Memory| memory.argv(Architecture::HOST, 2048, 3)[3].clone();
        let restored = |is_shared| Memory::Restored {
            template: "/m,1".into(),
            is_shared,
        };
        let loaded = backend(Memory::Loaded { is_warm: true });
        assert_eq!(loaded, *"memory-backend-ram,id=warm-ram,size=2048k");
        for (memory, how) in [
            (Memory::Saved, "share=on,mem-path=warm.ram"),
            (restored(false), "share=off,mem-path=warm.ram"),
            (
                restored(true),
                "share=off,readonly=on,rom=off,mem-path=/m,,1/warm.ram",
            ),
        ] {
            let all = format!("memory-backend-file,id=warm-ram,size=2048k,{how}");
            assert_eq!(backend(memory), *all);
        }
    }
}
