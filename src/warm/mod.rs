//! Warm starts: a guest begins where an earlier one asked for its task.
//!
//! The largest part of a short task is the boot of its guest. While there is no task the
//! agent boots the copy of a machine once, stops the guest at its first request for a
//! task, and keeps disks, memory and device state as a *template* beside the copy
//! (module `make`). A task starts in a snapshot of the template, and the request that the
//! guest waits with is answered ([`Template`]).
//!
//! A template is valid for one host and one way to run the guest, which is its *key*
//! (module `key`). A template that is not valid, or whose guest does not show that it runs,
//! costs time: the task starts cold.

mod contents;
mod key;
mod make;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::Space;
use crate::durable;
use crate::error::{Context as _, Error, Result};
use crate::guest::GuestSettings;
use crate::machine::Memory;
use crate::manifest::{BootstrappedMachine, TemplateContents, TemplateManifest, WaitingGuest};
use crate::network::Mac;
use crate::snapshot;
use crate::status;
use crate::tftp::DeferredRequest;
use crate::watch::moment;

pub use key::TemplateKey;
pub use make::{Made, make};

/// The part of a template's name behind that of the copy. Names of toolchains cannot
/// contain it.
const MARK: &str = "-@warm.";

/// The name of the manifest in a template.
const MANIFEST: &str = "warm.manifest";

/// The maximum size of the manifest, in bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The settings of templates.
#[derive(Clone, Debug)]
pub struct WarmSettings {
    /// Settings of all guests.
    pub guest: GuestSettings,
    /// The time for a guest to ask for its task.
    pub startup: Duration,
    /// The age at which a template is made anew.
    pub age: Duration,
}

/// A guest that waits for its task.
#[derive(Debug)]
pub struct Template {
    /// Its subvolume.
    pub path: PathBuf,
    guest: WaitingGuest,
}

/// The state of the template of a machine.
#[derive(Debug)]
pub enum TemplateState {
    /// There is none.
    Missing,
    /// It is not valid; why, as in "is too old".
    Stale(String),
    /// The machine cannot have one.
    Unable,
    /// It can be used.
    Ready(Template),
}

/// The path of the template of a copy for an instance of the agent.
pub fn path(copy: &Path, instance: u16) -> PathBuf {
    let mut path = copy.as_os_str().to_owned();
    path.push(format!("{MARK}{instance}"));
    path.into()
}

/// The copy that a template in the same directory belongs to, and the instance, if
/// `path` is that of a template.
pub fn copy_of(path: &Path) -> Option<(PathBuf, u16)> {
    let name = path.file_name()?.to_str()?;
    let (copy, instance) = name.rsplit_once(MARK)?;
    Some((path.with_file_name(copy), instance.parse().ok()?))
}

/// Whether one of the patterns is for the machine `name`. `*` is any text, `?` any
/// character.
pub fn covers(patterns: &[String], name: &str) -> bool {
    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| matches(rest, &name[at..])),
            ([b'?', pattern @ ..], [_, name @ ..]) => matches(pattern, name),
            ([a, pattern @ ..], [b, name @ ..]) => a == b && matches(pattern, name),
            _ => false,
        }
    }
    let mut patterns = patterns.iter();
    patterns.any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
}

/// The manifest of the template at `path`, if there is one.
pub fn read(path: &Path) -> Result<Option<TemplateManifest>> {
    if !path.exists() {
        return Ok(None);
    }
    let file = path.join(MANIFEST);
    let text = durable::read(&file, MAX_MANIFEST_BYTES)
        .context(|| format!("unable to read {}", file.display()))?;
    TemplateManifest::parse(&text, &file.to_string_lossy())
        .map(Some)
        .map_err(|error| Error::new(error.to_string()))
}

/// The state of the template of `machine`, whose copy is `copy`.
pub fn look(
    settings: &WarmSettings,
    machine: &BootstrappedMachine,
    copy: &Path,
) -> Result<TemplateState> {
    let path = path(copy, settings.guest.instance);
    let manifest = match read(&path) {
        Ok(None) => return Ok(TemplateState::Missing),
        Ok(Some(manifest)) => manifest,
        Err(error) => return Ok(TemplateState::Stale(format!("cannot be read: {error}"))),
    };
    let key = TemplateKey::of(&settings.guest, machine, copy)?;
    if let Some(why) = key.difference(&manifest.key) {
        return Ok(TemplateState::Stale(why));
    }
    let now = moment().wall.as_secs();
    // A clock that was set back makes the age unknown.
    if now < manifest.made || now - manifest.made > settings.age.as_secs() {
        return Ok(TemplateState::Stale("is too old".to_owned()));
    }
    Ok(match manifest.contents {
        TemplateContents::Unable(_) => TemplateState::Unable,
        TemplateContents::Guest(guest) => TemplateState::Ready(Template { path, guest }),
    })
}

impl Template {
    /// The request that the guest waits with.
    pub fn request(&self) -> Result<DeferredRequest> {
        let invalid = || Error::new("the request in its manifest is invalid");
        let octets = contents::from_hex(&self.guest.request).ok_or_else(invalid)?;
        let peer = self.guest.peer.parse().map_err(|_| invalid())?;
        Ok(DeferredRequest { peer, octets })
    }

    /// Whether a guest agent runs in it.
    pub fn has_agent(&self) -> bool {
        self.guest.has_agent
    }

    /// The memory of the guests that are restored from it.
    pub fn memory(&self) -> Memory {
        Memory::Restored {
            template: self.path.clone(),
            is_shared: self.guest.is_shared,
        }
    }

    /// Makes sure that its files are as they were.
    pub fn verify(&self) -> Result<()> {
        match contents::checksum(&self.path)? == self.guest.checksum {
            true => Ok(()),
            false => Err(Error::new("its files have changed")),
        }
    }

    /// Makes sure that the guest has the gateway that it knows.
    pub fn verify_gateway(&self, gateway: Mac) -> Result<()> {
        match gateway.to_string() == self.guest.gateway {
            true => Ok(()),
            false => Err(Error::new(format!(
                "the bridge's hardware address was {}, and is {gateway}",
                self.guest.gateway
            ))),
        }
    }
}

/// The disk space that a template takes, in bytes: memory and device state.
pub fn size(template: &Path) -> u64 {
    contents::allocated(template)
}

/// Why there is no space for the template of a copy, if so. The memory of the guest, of
/// `ram_kb`, is on the disk, and all of it may be in use.
pub fn space_shortage(copy: &Path, min_free: Space, ram_kb: u64) -> Result<Option<String>> {
    let space = snapshot::space(copy)?;
    let least = min_free.of(space.total) + ram_kb * 1024;
    Ok((space.available < least).then(|| {
        let least = status::bytes(least);
        format!("less than {least} are free (--min-free and --ram)")
    }))
}

/// Deletes a template; one that is gone already is fine.
pub fn discard(path: &Path) -> Result<()> {
    snapshot::delete(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_names() {
        let covers = |pattern: &str, name| covers(&[pattern.to_owned()], name);
        assert!(covers("*", "") && covers("*", "linux") && covers("l*x", "linux"));
        assert!(covers("linux", "linux") && covers("l?nux", "linux"));
        assert!(covers("*-gcc-*", "linux-gcc-12"));
        assert!(!covers("linux", "linux-gcc") && !covers("?", "") && !covers("", "x"));
        assert!(!super::covers(&[], "x"));
    }

    #[test]
    fn a_template_lies_beside_its_copy() {
        let copy = Path::new("/m/v/linux/linux-default");
        let template = path(copy, 12);
        assert_eq!(template, Path::new("/m/v/linux/linux-default-@warm.12"));
        assert_eq!(copy_of(&template), Some((copy.to_owned(), 12)));
        assert!(!snapshot::is_scratch(
            template.file_name().unwrap(),
            copy.file_name().unwrap()
        ));
        for other in ["/m/v/linux/linux-default", "/m/x-@warm.", "/m/x-@1.2", "/"] {
            assert_eq!(copy_of(Path::new(other)), None, "{other}");
        }
    }
}
