//! The key of a template: the host and the way to run the guest that it is valid for.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Context as _, Error, Result};
use crate::guest::{GuestSettings, command_line};
use crate::machine::accel::host_processor;
use crate::machine::{firmware, program, record};
use crate::manifest::{BootstrappedMachine, Values};
use crate::network::Bridge;

/// Named values that are the same when a template is made and when it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateKey(Values);

impl TemplateKey {
    /// The key for the guests of `machine` as they are run now.
    pub fn of(
        settings: &GuestSettings,
        machine: &BootstrappedMachine,
        copy: &Path,
    ) -> Result<TemplateKey> {
        let bridge = Bridge::probe(&settings.bridge)?;
        let host = nix::sys::utsname::uname().context(|| "unable to get the host's kernel")?;
        let kernel = [host.release(), host.version()].map(|text| text.to_string_lossy());
        let user = settings.user.as_ref().map(|user| user.uid);
        let mut key = Values::default();
        key.push("agent", env!("CARGO_PKG_VERSION"));
        key.push("machine", machine.machine.id());
        key.push("toolchain", machine.toolchain.id());
        key.push("copy", file(&copy.join("manifest"))?);
        key.push("instance", settings.instance.to_string());
        key.push("qemu", qemu(&settings.qemu)?);
        let command = command_line(settings, &machine.machine, copy)?;
        key.push("command", command);
        if let Some(firmware) = firmware::of(&machine.machine, copy, &settings.qemu)? {
            key.push("firmware", file(&firmware.code)?);
        }
        key.push("user", format!("{user:?}"));
        key.push("processor", host_processor()?);
        key.push("kernel", kernel.join(" "));
        let mut addresses = bridge.name.to_string();
        for network in &bridge.networks {
            addresses += &format!(" {}/{}", network.address, network.prefix);
        }
        key.push("bridge", addresses);
        Ok(TemplateKey(key))
    }

    /// The values.
    pub fn values(&self) -> &Values {
        &self.0
    }

    /// The difference of a template's key from this one, as in "is for another qemu".
    pub fn difference(&self, template: &Values) -> Option<String> {
        if *template == self.0 {
            return None;
        }
        let differs = |(name, value): &(&str, &str)| template.get(name) != Some(value);
        let (name, is) = self.0.iter().find(differs).unwrap_or(("agent", ""));
        let was = template.get(name).unwrap_or_default();
        let how = match name {
            "command" => record::changed_option(was, is),
            "bridge" => Some(format!("it was {was}, and is {is}")),
            _ => None,
        };
        let how = how.map(|how| format!(": {how}")).unwrap_or_default();
        Some(format!("is for another {name}{how}"))
    }
}

fn qemu(program: &Path) -> Result<String> {
    let found = program::find(program)
        .ok_or_else(|| Error::new(format!("no program {}", program.display())))?;
    // A name may be a link that an upgrade changes.
    let found =
        fs::canonicalize(&found).context(|| format!("unable to examine {}", found.display()))?;
    Ok(format!("{} {}", found.display(), file(&found)?))
}

/// The identity of a file: number, size, and time of its last change.
fn file(path: &Path) -> Result<String> {
    let metadata = fs::metadata(path);
    let metadata = metadata.context(|| format!("unable to examine {}", path.display()))?;
    Ok(format!(
        "{} {} {}.{:09}",
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_of_a_key_is_the_reason() {
        let key = |qemu: &str, kernel: &str| -> Values {
            let all = [("machine", "x-1.0"), ("qemu", qemu), ("kernel", kernel)];
            all.into_iter().collect()
        };
        let now = TemplateKey(key("a", "b"));
        assert_eq!(now.difference(&key("a", "b")), None);
        let differs = |template: Values| now.difference(&template).unwrap();
        assert_eq!(differs(key("x", "y")), "is for another qemu");
        assert_eq!(differs(key("a", "y")), "is for another kernel");
        assert_eq!(differs(Values::default()), "is for another machine");
        let mut more = key("a", "b");
        more.push("future", "x");
        assert_eq!(differs(more), "is for another agent");

        let differs = |name: &str, was: &str, is: &str| {
            let key = |value| [(name, value)].into_iter().collect::<Values>();
            TemplateKey(key(is)).difference(&key(was)).unwrap()
        };
        assert_eq!(
            differs("command", "-m 1 -smp 2", "-m 1 -smp 4"),
            "is for another command: QEMU's option -smp was 2, and is 4"
        );
    }

    #[test]
    fn a_qemu_that_is_replaced_under_its_name_is_another() {
        let dir = std::env::temp_dir().join(format!("bbot-key-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (program, new) = (dir.join("qemu"), dir.join("new"));
        for file in [&program, &new] {
            fs::write(file, "qemu").unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(file, mode).unwrap();
        }
        let old = qemu(&program).unwrap();
        assert_eq!(qemu(&program).unwrap(), old);
        fs::rename(new, &program).unwrap();
        assert_ne!(qemu(&program).unwrap(), old);
        fs::remove_dir_all(&dir).unwrap();
    }
}
