//! Making a template.

use std::fs;
use std::path::Path;

use super::{MANIFEST, TemplateKey, WarmSettings, contents, path};
use crate::error::{Class, Context as _, Error, Result};
use crate::guest::{Guest, GuestRun, Step, Why};
use crate::machine::{Memory, tpm};
use crate::manifest::{BootstrappedMachine, TemplateContents, TemplateManifest, WaitingGuest, hex};
use crate::snapshot::Snapshot;
use crate::status::Phase;
use crate::tftp::Map;
use crate::watch::{Watch, moment};

/// The outcome of the making of a template.
#[derive(Debug)]
pub enum Made {
    /// It is in place.
    Done,
    /// The machine cannot have one, for this reason, which is kept in its place.
    Unable(String),
    /// The agent was told to stop.
    Stopped,
}

/// The end of a guest that was to become a template.
enum Frozen {
    Waiting(WaitingGuest),
    Unable(String),
    Stopped,
}

/// Makes the template of `machine`, whose copy is `copy`, in place of a former one. The
/// guest asks for its task by one of `names`.
///
/// # Errors
///
/// Failures of the host that have nothing to do with the machine.
pub fn make(
    settings: &WarmSettings,
    machine: &BootstrappedMachine,
    copy: &Path,
    names: &[&str],
    watch: &Watch,
) -> Result<Made> {
    let key = TemplateKey::of(&settings.guest, machine, copy)?;
    let target = path(copy, settings.guest.instance);
    let rest = &mut |length| watch.rest(length);
    let Some(snapshot) = Snapshot::scratch_in_turn(copy, copy, rest)? else {
        return Ok(Made::Stopped);
    };
    watch.enter(Phase::Preparing, Some(settings.startup));
    let scratch = snapshot.path().to_owned();
    fill(settings, machine, copy, &scratch, names, watch, &key)
        .and_then(|made| match made {
            Made::Stopped => snapshot.close().map(|()| made),
            Made::Done | Made::Unable(_) => snapshot.keep(&target).map(|()| made),
        })
        .map_err(|error| renamed(&error, &scratch, &target))
}

/// Whether an error says nothing of the machine: the next attempt may find the host mended,
/// or less busy.
fn is_of_host(error: &Error) -> bool {
    error.errno().is_some() || matches!(error.class(), Class::Config | Class::Os)
}

/// The error with the name of the template for that of its snapshot: a reason that stays
/// the same is given once, and each attempt has another snapshot.
fn renamed(error: &Error, scratch: &Path, target: &Path) -> Error {
    let (from, to) = (scratch.to_string_lossy(), target.to_string_lossy());
    let text = |text: &str| text.replace(&*from, &to);
    let renamed = Error::new(text(&error.to_string())).with_class(error.class());
    error.hints().map(text).fold(renamed, Error::hint)
}

/// Makes the files of a template in `directory`.
fn fill(
    settings: &WarmSettings,
    machine: &BootstrappedMachine,
    copy: &Path,
    directory: &Path,
    names: &[&str],
    watch: &Watch,
    key: &TemplateKey,
) -> Result<Made> {
    let contents = match freeze(settings, machine, copy, directory, names, watch) {
        Err(error) if is_of_host(&error) => return Err(error),
        Ok(Frozen::Stopped) => return Ok(Made::Stopped),
        Ok(Frozen::Waiting(guest)) => TemplateContents::Guest(guest),
        Ok(Frozen::Unable(reason)) => unable(directory, reason),
        // QEMU's, about this machine.
        Err(error) => unable(directory, error.to_string()),
    };
    let made = match &contents {
        TemplateContents::Guest(_) => Made::Done,
        TemplateContents::Unable(reason) => Made::Unable(reason.clone()),
    };
    let manifest = TemplateManifest {
        made: moment().wall.as_secs(),
        key: key.values().clone(),
        contents,
    };
    let file = directory.join(MANIFEST);
    let text = manifest
        .to_text()
        .context(|| "unable to compose the manifest of a template")?;
    fs::write(&file, text).context(|| format!("unable to write {}", file.display()))?;
    Ok(made)
}

/// The contents for a machine that cannot have a template. Its files go: the guest may have
/// written much to its disk.
fn unable(directory: &Path, reason: String) -> TemplateContents {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // A file that stays takes space, and nothing else.
        let _ = fs::remove_file(entry.path());
    }
    TemplateContents::Unable(reason)
}

/// Boots the machine in `directory`, and stops the guest at its first request.
fn freeze(
    settings: &WarmSettings,
    machine: &BootstrappedMachine,
    copy: &Path,
    directory: &Path,
    names: &[&str],
    watch: &Watch,
) -> Result<Frozen> {
    if tpm::of(&machine.machine, directory, &settings.guest.qemu)?.is_some() {
        let reason = "a template does not keep the state of its TPM";
        return Ok(Frozen::Unable(reason.to_owned()));
    }
    let deferred = |map: Map, name: &&str| map.deferred(*name);
    let run = GuestRun {
        map: names.iter().fold(Map::new(), deferred),
        ..GuestRun::without_task(&machine.machine, copy, directory, Memory::Saved)
    };
    let mut guest = match Guest::boot(&settings.guest, run, watch)? {
        Step::Done(guest) => guest,
        Step::Ended(_) => return Ok(Frozen::Stopped),
    };
    let request = match guest.await_deferred(settings.startup)? {
        Step::Done(request) => request,
        Step::Ended(ended) => {
            if ended.why != Why::Stopped {
                let _kept = guest.failure("template failure", &ended);
            }
            guest.close()?;
            return match ended.why {
                Why::Stopped => Ok(Frozen::Stopped),
                Why::Host(why) | Why::Surroundings(why) => {
                    Err(Error::new(why).with_class(Class::Config))
                }
                // Another boot may come to its request.
                _ => Err(Error::new(ended.to_string()).with_class(Class::Config)),
            };
        }
    };
    let (gateway, has_agent) = (guest.gateway().to_string(), guest.has_agent());
    let is_shared = guest.maps_read_only();
    if guest.save()?.is_none() {
        return Ok(Frozen::Stopped);
    }
    Ok(Frozen::Waiting(WaitingGuest {
        gateway,
        peer: request.peer.to_string(),
        request: hex(&request.octets),
        checksum: contents::checksum(directory)?,
        has_agent,
        is_shared,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_host_say_nothing_of_the_machine() {
        let inner = || Error::new("qemu was not ready in time");
        let outer = |error: Error| {
            let context: Result<()> = Err(error).context(|| "unable to start machine m");
            is_of_host(&context.unwrap_err())
        };
        assert!(outer(inner().with_class(Class::Os)));
        assert!(outer(inner().with_class(Class::Config)));
        let full = std::io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let full: Result<()> = Err(full).context(|| "unable to write a file");
        assert!(outer(full.unwrap_err()));
        assert!(!outer(Error::new("qemu refuses migrate: no")));
    }
}
