//! The machines directory and the machines in it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::{Finding, Grade};
use crate::cli::Options;
use crate::error::{Error, Result};
use crate::machines::tree::{self, MachineDir};
use crate::manifest::{BootstrappedMachine, MachineManifest};
use crate::snapshot;
use crate::status;
use crate::watch::Watch;

/// Number of `CAP_SYS_ADMIN` (capabilities(7)).
const SYS_ADMIN: u32 = 21;

/// Most bytes of a manifest that are read.
const LARGEST: u64 = 1 << 20;

/// The directory, and each volume of it: they may be mounts of their own.
pub(super) fn root(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "machines directory";
    let root = &options.machines;
    let volumes = match volumes(root) {
        Ok(volumes) => volumes,
        Err(error) => {
            return vec![
                Finding::error(SUBJECT, &error)
                    .remedy(format!("make it on btrfs: mkdir -p {}", root.display()))
                    .remedy("or name another: --machines"),
            ];
        }
    };
    if volumes.is_empty() {
        return vec![
            Finding::failure(SUBJECT, format!("no volume in {}", root.display()))
                .remedy(format!("make one: mkdir {}/default", root.display())),
        ];
    }
    let mut findings = Vec::new();
    for volume in volumes {
        findings.push(match writable(&volume) {
            Ok(()) => Finding::good(SUBJECT, format!("{}, on btrfs, writable", volume.display())),
            Err(error) => Finding::error(SUBJECT, &error),
        });
        findings.push(deletion(&volume));
        findings.push(space(&volume, options));
    }
    findings
}

fn volumes(root: &Path) -> Result<Vec<PathBuf>> {
    use crate::error::Context as _;
    let what = || format!("unable to iterate over {}", root.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(root).context(what)? {
        let path = entry.context(what)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn writable(volume: &Path) -> Result<()> {
    snapshot::require_btrfs(volume)?;
    access(volume, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
        let text = format!("unable to write {}: {}", volume.display(), errno.desc());
        Error::new(text).hint("run as root; is the file system mounted read-only?")
    })
}

/// Deleting a subvolume takes `CAP_SYS_ADMIN`, or a mount option (btrfs(5)).
fn deletion(volume: &Path) -> Finding {
    const SUBJECT: &str = "deletion";
    let privileged = super::host::capabilities().is_some_and(|held| held & (1 << SYS_ADMIN) != 0);
    if privileged || mount_options(volume).is_some_and(|o| o.contains("user_subvol_rm_allowed")) {
        let text = format!("of subvolumes in {} is permitted", volume.display());
        return Finding::good(SUBJECT, text);
    }
    let text = format!("of subvolumes in {} is not permitted", volume.display());
    Finding::failure(SUBJECT, text)
        .remedy("run as root")
        .remedy("or: mount -o remount,user_subvol_rm_allowed <volume>")
}

/// The options of the file system that `path` is on (proc(5), `mountinfo`).
fn mount_options(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let (front, back) = line.split_once(" - ")?;
        let point = front.split(' ').nth(4)?.replace("\\040", " ");
        let longer = best
            .as_ref()
            .is_none_or(|(length, _)| point.len() >= *length);
        if longer && path.starts_with(&point) {
            best = Some((point.len(), back.split(' ').nth(2)?.to_owned()));
        }
    }
    best.map(|(_, options)| options)
}

fn space(volume: &Path, options: &Options) -> Finding {
    const SUBJECT: &str = "free space";
    let space = match snapshot::space(volume) {
        Ok(space) => space,
        Err(error) => return Finding::error(SUBJECT, &error),
    };
    let least = options.min_free.of(space.total);
    let text = format!(
        "{} of {} in {}, {} wanted",
        status::bytes(space.available),
        status::bytes(space.total),
        volume.display(),
        status::bytes(least)
    );
    if space.available >= least {
        return Finding::good(SUBJECT, text);
    }
    Finding::failure(SUBJECT, text)
        .remedy("delete machines that are not used: btrfs subvolume delete <path>")
        .remedy("or be content with less: --min-free")
}

/// Every machine: link, subvolume, manifest, bootstrapped copy.
pub(super) fn each(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "machine";
    let root = &options.machines;
    let Ok(places) = tree::places(root) else {
        // Said already.
        return Vec::new();
    };
    let mut findings: Vec<Finding> = places
        .broken
        .iter()
        .map(|(_, error)| Finding::error(SUBJECT, error))
        .collect();
    let mut usable = 0;
    for place in &places.found {
        let finding = match machine(place, &options.toolchain_name) {
            Ok((grade, text)) => {
                usable += usize::from(grade == Grade::Good);
                let finding = Finding::new(SUBJECT, grade, text);
                match grade {
                    Grade::Good => finding,
                    _ => finding.remedy(format!(
                        "name the revision to use: ln -s {0}-{1}.<revision> {2}",
                        place.name,
                        tree::PROTOCOL,
                        place.link().display()
                    )),
                }
            }
            Err(error) => Finding::error(SUBJECT, &error),
        };
        findings.push(finding);
    }
    if usable == 0 {
        let text = format!("none in {}", root.display());
        findings.push(Finding::failure("machines", text).remedy(
            "a machine is <volume>/<name>/<name>-1.<revision>/, a subvolume with disk.img and \
             manifest, and a link <name>-1 to it",
        ));
    }
    findings
}

fn machine(place: &MachineDir, toolchain: &str) -> Result<(Grade, String)> {
    let Some(current) = place.current()? else {
        let text = format!("{}: no link {}", place.name, place.link().display());
        return Ok((Grade::Warning, text));
    };
    if !snapshot::is_subvolume(&current)? {
        let text = format!("{} is not a subvolume", current.display());
        return Err(Error::new(text).hint(format!(
            "make it one: btrfs subvolume create {}",
            current.display()
        )));
    }
    let manifest = MachineManifest::parse(&read(&current)?, &source(&current));
    let manifest = manifest.map_err(|error| invalid("machine", &error))?;
    if manifest.name() != place.name {
        let (manifest, directory) = (manifest.name(), &place.name);
        let text = format!("the manifest of {directory} is that of a machine {manifest}");
        return Err(Error::new(text).hint(format!("correct it: {}", source(&current))));
    }
    let bootstrapped = place.bootstrapped(toolchain);
    let state = if bootstrapped.exists() {
        let text = read(&bootstrapped)?;
        BootstrappedMachine::parse(&text, &source(&bootstrapped))
            .map_err(|error| invalid("bootstrapped machine", &error))?;
        "bootstrapped"
    } else {
        "to be bootstrapped"
    };
    let text = format!(
        "{} {} in {}, {state}",
        place.name,
        manifest.id(),
        current.display()
    );
    Ok((Grade::Good, text))
}

fn source(subvolume: &Path) -> String {
    subvolume.join("manifest").display().to_string()
}

fn read(subvolume: &Path) -> Result<Vec<u8>> {
    use crate::error::Context as _;
    let path = subvolume.join("manifest");
    crate::durable::read(&path, LARGEST)
        .context(|| format!("unable to read machine manifest {}", path.display()))
}

fn invalid(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(format!("invalid {what} manifest: {error}"))
}
