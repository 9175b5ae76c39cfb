//! UEFI firmware of this host, and the variable store of a machine.
//!
//! A machine boots by UEFI if its subvolume has a variable store `efi-vars.fd`, if its
//! `options` have `-bios uefi`, or if its architecture has no other way. Firmware is
//! found by descriptors (docs/interop/firmware.json of QEMU), which distributions install
//! with it: the one that is first by name and suits the architecture, the machine type
//! and the size of the store. Firmware with Secure Boot or for SMM is left out: guests
//! have no SMM. Only raw images are used, because a guest can write what it wants into
//! its store, and no file of a guest is examined for its format.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::options::UEFI;
use crate::error::{Class, Context as _, Error, Result, word};
use crate::json::Value;
use crate::manifest::MachineManifest;
use crate::platform::Architecture;
use crate::sys::file::read_at_most;

/// The name of the variable store in a machine's subvolume. An empty one, and one that
/// is missing, is filled from the template of the firmware when the machine starts.
pub const STORE: &str = "efi-vars.fd";

/// The directories of descriptors. A file hides those of its name in directories before.
const DIRECTORIES: [&str; 2] = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];

/// The most descriptors that are read, and their largest size in bytes.
const MAX_DESCRIPTORS: usize = 256;
const MAX_DESCRIPTOR_BYTES: u64 = 64 * 1024;

/// UEFI firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The file of its code.
    pub code: PathBuf,
    /// The file that an empty variable store is a copy of.
    pub template: PathBuf,
}

impl Firmware {
    /// Fills the variable store in `directory` if it is empty or missing.
    pub(super) fn prepare(&self, directory: &Path) -> Result<()> {
        let store = directory.join(STORE);
        if size_of_store(&store)? != 0 {
            return Ok(());
        }
        fs::copy(&self.template, &store)
            // The template may be read-only.
            .and_then(|_| fs::set_permissions(&store, Permissions::from_mode(0o644)))
            .context(|| {
                let (template, store) = (self.template.display(), store.display());
                format!("unable to copy variable store {template} to {store}")
            })
    }
}

/// The UEFI firmware for the machine in `subvolume`; `None` if it does not boot by UEFI,
/// or has firmware of its own in its `options`.
pub fn of(machine: &MachineManifest, subvolume: &Path, qemu: &Path) -> Result<Option<Firmware>> {
    let given = machine.options();
    let options = given.as_deref().unwrap_or_default();
    let architecture = Architecture::of(machine.name(), given.as_deref(), qemu);
    let is_asked = options.windows(2).any(|pair| pair == UEFI);
    let has = |word: &str| options.iter().any(|option| option == word);
    let brings_own = has("-bios") || options.iter().any(|option| option.contains("pflash"));
    if brings_own && !is_asked {
        return Ok(None);
    }
    let store = subvolume.join(STORE);
    let is_usual = architecture.boots_by_uefi() && !has("-kernel");
    if !is_asked && !is_usual && fs::symlink_metadata(&store).is_err() {
        return Ok(None);
    }
    let found = candidates(&DIRECTORIES.map(Path::new), architecture);
    choose(&found, &store, architecture)
        .map(Some)
        .context(|| format!("unable to use machine {}", machine.name()))
}

/// The first of `found` whose template is as large as the store.
fn choose(found: &[Firmware], store: &Path, architecture: Architecture) -> Result<Firmware> {
    let Some(first) = found.first() else {
        let [debian, fedora, arch] = architecture.firmware_packages();
        let [usr, etc] = DIRECTORIES;
        let name = architecture.name();
        let text = format!("no UEFI firmware for {name} is described in {usr} or {etc}");
        return Err(Error::new(text).with_class(Class::Config).hint(format!(
            "install it: apt-get install --no-install-recommends {debian} \
             (Fedora: {fedora}, Arch: {arch})"
        )));
    };
    let size = size_of_store(store)?;
    let fits = |firmware: &&Firmware| {
        let template = fs::metadata(&firmware.template);
        size == 0 || template.is_ok_and(|template| template.len() == size)
    };
    if let Some(firmware) = found.iter().find(fits) {
        return Ok(firmware.clone());
    }
    let (template, operand) = (first.template.display(), word(store));
    let text = format!(
        "{} has {size} bytes, and no UEFI firmware of this host has a variable store of \
         that size",
        store.display()
    );
    Err(Error::new(text)
        .hint(format!(
            "install the firmware that it was made with, or start with an empty one: \
             truncate -s 0 {operand}"
        ))
        .hint(format!("that of this host: {template}")))
}

/// The size of a variable store in bytes; 0 if there is none.
fn size_of_store(store: &Path) -> Result<u64> {
    match fs::symlink_metadata(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Ok(metadata) if !metadata.is_file() => {
            Err(Error::new(format!("not a file: {}", store.display())))
        }
        metadata => metadata
            .map(|metadata| metadata.len())
            .context(|| format!("unable to examine {}", store.display())),
    }
}

/// The firmware that descriptors name for `architecture`, in the order of their names.
/// Those that cannot be read, and those whose files are missing, are left out.
fn candidates(directories: &[&Path], architecture: Architecture) -> Vec<Firmware> {
    let mut descriptors: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in directories {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries.take(MAX_DESCRIPTORS) {
            if entry.path().extension().is_some_and(|end| end == "json") {
                descriptors.insert(entry.file_name(), entry.path());
            }
        }
    }
    let suitable = |path: PathBuf| {
        let mut file = File::open(path).ok()?;
        let text = read_at_most(&mut file, MAX_DESCRIPTOR_BYTES).ok()?;
        let descriptor = Value::parse(std::str::from_utf8(&text).ok()?).ok()?;
        described(&descriptor, architecture)
            .filter(|found| found.code.is_file() && found.template.is_file())
    };
    descriptors.into_values().filter_map(suitable).collect()
}

/// The firmware that a descriptor names, if it suits.
fn described(descriptor: &Value, architecture: Architecture) -> Option<Firmware> {
    let has = |list: &str, wanted: &str| {
        let list = descriptor.get(list).and_then(Value::as_array);
        let mut words = list.unwrap_or_default().iter().filter_map(Value::as_str);
        words.any(|word| word == wanted)
    };
    let is_target = |target: &Value| {
        let machines = target.get("machines").and_then(Value::as_array);
        let mut machines = machines
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str);
        target.get("architecture").and_then(Value::as_str) == Some(architecture.name())
            && machines.any(|machine| machine.starts_with(architecture.firmware_target()))
    };
    let targets = descriptor.get("targets")?.as_array()?;
    let mapping = descriptor.get("mapping")?;
    // "split" is the default: code and variables are two files.
    let mode = mapping.get("mode").and_then(Value::as_str);
    let suits = has("interface-types", "uefi")
        && targets.iter().any(is_target)
        && mapping.get("device")?.as_str()? == "flash"
        && mode.is_none_or(|mode| mode == "split")
        && !has("features", "requires-smm")
        && !has("features", "secure-boot");
    let raw = |part: &str| {
        let file = mapping.get(part)?;
        let is_raw = file.get("format")?.as_str()? == "raw";
        is_raw.then_some(PathBuf::from(file.get("filename")?.as_str()?))
    };
    suits.then_some(Firmware {
        code: raw("executable")?,
        template: raw("nvram-template")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(code: &str, features: &str, target: (&str, &str), format: &str) -> String {
        let (architecture, machine) = target;
        format!(
            r#"{{"interface-types": ["uefi"], "features": [{features}],
            "mapping": {{"device": "flash",
             "executable": {{"filename": "{code}", "format": "{format}"}},
             "nvram-template": {{"filename": "{code}.vars", "format": "raw"}}}},
            "targets": [{{"architecture": "{architecture}", "machines": ["{machine}"]}}]}}"#
        )
    }

    #[test]
    fn the_first_descriptor_that_suits_is_taken() {
        let dir = std::env::temp_dir().join(format!("firmware-{}", std::process::id()));
        let [usr, etc] = ["usr", "etc"].map(|name| dir.join(name));
        for directory in [&usr, &etc] {
            fs::create_dir_all(directory).unwrap();
        }
        let file = |name: &str, size: usize| {
            let path = dir.join(name);
            fs::write(&path, vec![0; size]).unwrap();
            path.display().to_string()
        };
        let [small, large] = [("small", 2), ("large", 4)].map(|(name, size)| {
            file(&format!("{name}.vars"), size);
            file(name, 8)
        });
        let q35 = ("x86_64", "pc-q35-*");
        let put = |at: &Path, name: &str, text: &str| fs::write(at.join(name), text).unwrap();
        put(
            &usr,
            "10-smm.json",
            &descriptor(&small, r#""requires-smm""#, q35, "raw"),
        );
        put(
            &usr,
            "20-keys.json",
            &descriptor(&small, r#""secure-boot""#, q35, "raw"),
        );
        put(
            &usr,
            "30-other.json",
            &descriptor(&small, "", ("aarch64", "virt-*"), "raw"),
        );
        put(
            &usr,
            "31-pc.json",
            &descriptor(&small, "", ("x86_64", "pc-i440fx-*"), "raw"),
        );
        put(&usr, "40-qcow2.json", &descriptor(&small, "", q35, "qcow2"));
        put(
            &usr,
            "41-gone.json",
            &descriptor("/nonexistent", "", q35, "raw"),
        );
        put(&usr, "42-broken.json", "{");
        put(&usr, "43-hidden.json", &descriptor(&small, "", q35, "raw"));
        put(&etc, "43-hidden.json", "");
        put(
            &usr,
            "60-large.json",
            &descriptor(&large, r#""acpi-s3""#, q35, "raw"),
        );
        put(&etc, "70-small.json", &descriptor(&small, "", q35, "raw"));
        put(&etc, "README", &descriptor(&small, "", q35, "raw"));

        let find = |architecture| candidates(&[&usr, &etc], architecture);
        let found = find(Architecture::X86_64);
        let codes: Vec<_> = found.iter().map(|f| f.code.display().to_string()).collect();
        assert_eq!(codes, [large.as_str(), small.as_str()]);
        assert_eq!(find(Architecture::Aarch64).len(), 1);

        let store = dir.join(STORE);
        let chosen = |size: Option<usize>| {
            if let Some(size) = size {
                fs::write(&store, vec![0; size]).unwrap();
            }
            choose(&found, &store, Architecture::X86_64)
        };
        assert_eq!(chosen(None).unwrap(), found[0]);
        assert_eq!(chosen(Some(0)).unwrap(), found[0]);
        assert_eq!(chosen(Some(2)).unwrap(), found[1]);
        let error = chosen(Some(3)).unwrap_err();
        assert!(error.to_string().contains("has 3 bytes"), "{error}");
        let error = choose(&[], &store, Architecture::Aarch64).unwrap_err();
        let hint = error.hints().next().unwrap().to_owned();
        assert!(hint.contains("qemu-efi-aarch64"), "{hint}");

        fs::write(&store, "").unwrap();
        found[0].prepare(&dir).unwrap();
        fs::write(&found[0].template, "later").unwrap();
        found[0].prepare(&dir).unwrap();
        assert_eq!(fs::read(&store).unwrap(), [0; 4]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
