//! The machines directory and the machines in it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::{Finding, Grade};
use crate::cli::Options;
use crate::delivery::BootFile;
use crate::error::{Error, Result, word};
use crate::evidence::EvidenceStore;
use crate::lock;
use crate::machine::files;
use crate::machines::backoff::{BootstrapBackoff, FAILED_BOOTSTRAPS};
use crate::machines::inspect::{self, Inspection};
use crate::machines::tree::{self, MachineDir};
use crate::machines::{MachinesSettings, remedies, toolchain};
use crate::manifest::reuse::BootstrapReason;
use crate::manifest::{BootstrappedMachine, MachineManifest, TemplateContents};
use crate::snapshot;
use crate::status;
use crate::warm;
use crate::watch::{Watch, moment};

/// Number of `CAP_SYS_ADMIN` (capabilities(7)).
const SYS_ADMIN: u32 = 21;

/// The directory, and each volume of it: they may be mounts of their own.
pub(super) fn root(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "machines directory";
    let root = &options.machines;
    let volumes = match tree::volumes(root) {
        Ok(volumes) => volumes,
        Err(error) => return vec![Finding::error(SUBJECT, &error)],
    };
    if volumes.is_empty() {
        return vec![
            Finding::failure(SUBJECT, format!("no volume in {}", root.display()))
                .remedy(format!("make one: mkdir {}", word(&root.join("default")))),
        ];
    }
    let mut findings = Vec::new();
    for volume in volumes {
        if snapshot::require_btrfs(&volume).is_err() {
            let text = format!("{} is not on btrfs", volume.display());
            findings.push(Finding::failure(SUBJECT, text).remedy(remedies::mount(root, &volume)));
            continue;
        }
        if let Err(errno) = access(&volume, AccessFlags::W_OK | AccessFlags::X_OK) {
            findings.push(super::host::unwritable(SUBJECT, &volume, errno));
            continue;
        }
        let text = format!("{}, on btrfs, writable", volume.display());
        findings.push(Finding::good(SUBJECT, text));
        findings.push(deletion(&volume));
        findings.push(space(&volume, options));
    }
    findings
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
        .remedy(super::host::AS_ROOT)
        .remedy(format!(
            "or permit it: mount -o remount,user_subvol_rm_allowed \
             \"$(findmnt -no TARGET -T {})\"",
            word(volume)
        ))
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
        .remedy(format!(
            "delete unused machines: btrfs subvolume delete <path> && \
             btrfs subvolume sync {} && sync",
            word(volume)
        ))
        .remedy(format!(
            "or require less: --min-free {}M",
            (space.available >> 20) / 2
        ))
}

/// Every machine: link, subvolume, manifest, disk image, bootstrapped copy.
pub(super) fn each(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "machine";
    let root = &options.machines;
    let Ok(machines) = tree::machine_dirs(root) else {
        // Reported by `root`.
        return Vec::new();
    };
    let mut findings: Vec<Finding> = machines
        .broken
        .iter()
        .map(|(_, error)| Finding::error(SUBJECT, error))
        .collect();
    for machine in &machines.found {
        let finding = examine(machine, options);
        findings.push(finding.unwrap_or_else(|error| Finding::error(SUBJECT, &error)));
        findings.extend(template(machine, options));
    }
    if !findings.iter().any(|finding| finding.grade == Grade::Good) {
        let finding = Finding::failure("machines", format!("none in {}", root.display()));
        let volume = tree::volumes(root).unwrap_or_default().into_iter().next();
        findings.push(match volume {
            Some(volume) if findings.is_empty() => {
                finding.remedy(format!("make one: mkdir {}/<name>", word(&volume)))
            }
            _ => finding.remedy("make one of those above usable"),
        });
    }
    findings
}

/// The version of the toolchain: that of the option, or what copies report.
pub(super) fn toolchain(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "toolchain version";
    if options.legacy_request {
        return Vec::new();
    }
    if let Some(version) = &options.toolchain_ver {
        return vec![Finding::good(SUBJECT, version.clone())];
    }
    let machines = tree::machine_dirs(&options.machines).map_or_else(|_| Vec::new(), |m| m.found);
    let copies: Vec<(String, BootstrappedMachine)> = machines
        .into_iter()
        .filter_map(|machine| {
            let copy = machine.copy(&options.toolchain_name);
            let text = files::manifest(&copy, &copy).ok()?;
            let copy = BootstrappedMachine::parse(&text, &source(&copy)).ok()?;
            Some((machine.name, copy))
        })
        .collect();
    let reported: Vec<_> = copies
        .iter()
        .map(|(name, copy)| (name.as_str(), &copy.bootstrap))
        .collect();
    let finding = match toolchain::newest(&reported) {
        None if copies.is_empty() => {
            Finding::good(SUBJECT, "the machines report it when they are bootstrapped")
        }
        None => Finding::failure(
            SUBJECT,
            "no machine reports a standard version as bbot-version",
        )
        .remedy("name it: --toolchain-ver <version>"),
        Some(version) => match toolchain::difference(version, &reported) {
            None => Finding::good(SUBJECT, format!("{version}, as the machines report")),
            Some(difference) => Finding::warning(SUBJECT, difference).remedy(format!(
                "offer them all the same: --toolchain-ver {version}"
            )),
        },
    };
    vec![finding]
}

fn examine(machine: &MachineDir, options: &Options) -> Result<Finding> {
    const SUBJECT: &str = "machine";
    let link = machine.link();
    let Some(current) = machine.current()? else {
        let text = format!("{}: no link {}", machine.name, link.display());
        return Ok(Finding::warning(SUBJECT, text).remedy(remedies::link(machine, None)));
    };
    if !current.exists() {
        let (link, target) = (link.display(), current.display());
        return Err(
            Error::new(format!("{link} leads to {target}, which does not exist"))
                .hint(remedies::link(machine, Some(&current))),
        );
    }
    if !snapshot::is_subvolume(&current)? {
        let error = Error::new(format!("{} is not a subvolume", current.display()));
        return Err(error.hint(snapshot::conversion(&current)));
    }
    let manifest = manifest(machine, &current)?;
    let state = inspect::inspect(machine, &MachinesSettings::new(options))?;
    if let Inspection::NeedsBootstrap(need) = &state
        && let [.., reason] = failures(options).reasons(&machine.dir(), &need.revision)
    {
        let name = &machine.name;
        let text = format!("{name}: its last bootstrap failed, it is tried again after a pause");
        return Ok(Finding::warning(SUBJECT, text)
            .remedy(format!("the reason: {reason}"))
            .remedy("to have it tried at once: send SIGUSR2 to the agent"));
    }
    let state = match state {
        Inspection::Ready(_) => "bootstrapped".to_owned(),
        Inspection::Auxiliary(_) => "auxiliary".to_owned(),
        Inspection::Ignored(why) => why,
        Inspection::NeedsBootstrap(need) if need.why == BootstrapReason::Missing => {
            "to be bootstrapped".to_owned()
        }
        Inspection::NeedsBootstrap(need) => format!("to be bootstrapped again: {}", need.why),
        Inspection::Retired => "its link is gone".to_owned(),
    };
    let (name, id) = (&machine.name, manifest.id());
    let text = format!("{name} {id} in {}, {state}", current.display());
    Ok(Finding::good(SUBJECT, text))
}

/// The states of failed guests, if they are kept.
pub(super) fn states(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "failed guests";
    let Some(limit) = options.keep_state else {
        return Vec::new();
    };
    if options.keep_failures == 0 {
        let text = "--keep-state keeps nothing without evidence";
        return vec![
            Finding::warning(SUBJECT, text).remedy("have evidence kept: --keep-failures 20"),
        ];
    }
    let agent = lock::directory(&options.state, &options.toolchain_name, options.instance);
    let states = EvidenceStore::new(&agent, options.keep_failures).states();
    vec![match states {
        Ok(states) => {
            let total = status::bytes(states.iter().map(|state| state.bytes).sum());
            let (count, limit) = (states.len(), status::bytes(limit));
            let text = format!("{count} with their state, which takes {total} of {limit}");
            Finding::good(SUBJECT, text)
        }
        Err(error) => Finding::error(SUBJECT, &error),
    }]
}

/// The template of a machine that is to start warm.
fn template(machine: &MachineDir, options: &Options) -> Option<Finding> {
    const SUBJECT: &str = "warm start";
    let name = &machine.name;
    let copy = machine.copy(&options.toolchain_name);
    if !warm::covers(&options.warm, name) || !copy.exists() {
        return None;
    }
    let path = warm::path(&copy, options.instance);
    Some(match warm::read(&path) {
        Ok(None) => {
            let most = status::bytes(options.ram * 1024);
            match warm::space_shortage(&copy, options.min_free, options.ram) {
                Ok(None) => {}
                Ok(Some(why)) => {
                    let text = format!("{name} starts cold: {why}");
                    return Some(Finding::warning(SUBJECT, text));
                }
                Err(error) => return Some(Finding::error(SUBJECT, &error)),
            }
            let text = format!("{name}: a template of up to {most} is made when there is no task");
            Finding::good(SUBJECT, text)
        }
        Ok(Some(manifest)) => match manifest.contents {
            TemplateContents::Unable(why) => {
                let text = format!("{name} starts cold: {why}");
                let age = status::human(options.warm_age);
                Finding::warning(SUBJECT, text).remedy(format!(
                    "it is tried again after {age} (--warm-age), and with another revision or option"
                ))
            }
            TemplateContents::Guest(_) => {
                let age = moment()
                    .wall
                    .saturating_sub(Duration::from_secs(manifest.made));
                let (age, size) = (status::human(age), status::bytes(warm::size(&path)));
                let text = format!("{name}: a template of {size}, {age} old");
                let text = format!("{text}; whether it is valid is seen when a task starts");
                Finding::good(SUBJECT, text)
            }
        },
        Err(error) => {
            let text = format!("{name} starts cold: {error}");
            Finding::good(SUBJECT, format!("{text}; the template is made anew"))
        }
    })
}

/// The failed bootstraps of the agent with these options.
fn failures(options: &Options) -> BootstrapBackoff {
    let (name, instance) = (&options.toolchain_name, options.instance);
    let state = lock::directory(&options.state, name, instance);
    let kept = BootFile::peek(&state.join(FAILED_BOOTSTRAPS));
    let broken = kept.as_ref().and_then(|kept| kept.get("broken"));
    broken.map(BootstrapBackoff::from_json).unwrap_or_default()
}

fn manifest(machine: &MachineDir, current: &Path) -> Result<MachineManifest> {
    let path = source(current);
    if !Path::new(&path).exists() {
        let name = &machine.name;
        let revision = current.file_name().unwrap_or_default().display();
        return Err(Error::new(format!("no manifest {path}")).hint(format!(
            "write it: printf ': 1\\nid: {revision}\\nname: {name}\\nsummary: {name}\\n\
             type: kvm\\n' >{path}"
        )));
    }
    files::machine_manifest(&machine.name, current, current)
}

fn source(subvolume: &Path) -> String {
    subvolume.join("manifest").display().to_string()
}
