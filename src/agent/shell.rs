//! `--shell`: a throw-away copy of a machine with its console on the terminal.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use super::guests::GuestHost;
use super::setup;
use crate::cli::Options;
use crate::error::{Class, Error, Result};
use crate::guest;
use crate::ledger::{self, ClaimGuard, Shortage, Work};
use crate::lock::{Attempt, Lock};
use crate::machines::MachinesSettings;
use crate::machines::inspect::{Inspection, inspect};
use crate::machines::tree::{MachineDir, machine_dirs};
use crate::manifest::MachineManifest;
use crate::snapshot::Snapshot;
use crate::status::{self, Phase, Subject};
use crate::sweep;
use crate::watch::Watch;
use crate::{diag, interactive};

/// The highest number of an instance.
const MAX_INSTANCE: u16 = 99;

/// Runs the machine `name` on the terminal until its guest has ended.
pub fn shell(options: &Options, name: &str) -> Result<()> {
    let watch = Watch::start()?;
    let machine = find(options, name)?;
    at_free_instance(options, name, &watch, |host, options| {
        run(host, options, &machine, &watch)
    })
}

/// Runs a guest of the machine `name` as an agent of the highest instance that is free:
/// locks, ledger, tap and address are those of any other agent, so that agents which run
/// are not disturbed.
pub(super) fn at_free_instance(
    options: &Options,
    name: &str,
    watch: &Watch,
    run: impl FnOnce(&mut GuestHost<'_>, &Options) -> Result<()>,
) -> Result<()> {
    ledger::require_room(options)?;
    let (options, lock) = free_instance(options)?;
    let options = &options;
    sweep::sweep(&setup::sweep(options), Some(&lock));
    watch.report(status::StatusSettings {
        toolchain: options.toolchain_name.clone(),
        instance: options.instance,
        dir: Some(setup::run_dir(options)),
        metrics: None,
        notify: None,
        terminal: false,
    });
    watch.subject(Subject {
        machine: Some(name.to_owned()),
        ..Subject::default()
    });
    let ended = run(&mut GuestHost::new(options, watch, true), options);
    watch.stopped();
    ended
}

/// The part of the host for a guest.
pub(super) fn claim(host: &GuestHost<'_>, work: Work, name: &str) -> Result<Option<ClaimGuard>> {
    host.claim(work, name)?.map_err(|shortage| {
        let error = Error::new(format!("the host has no room for a guest: {shortage}"));
        match (work, shortage) {
            (Work::Shell, Shortage::Memory(..)) => error.hint("give it less: --ram"),
            (Work::Shell, Shortage::Processors(wanted, used, all)) if wanted > 1 && used < all => {
                error.hint("give it less: --cpu")
            }
            (_, Shortage::Processors(..)) => error.hint("let guests share processors: --host-cpu"),
            _ => error,
        }
        .hint("the guests that run: bbot-agent --status")
    })
}

fn run(
    host: &mut GuestHost<'_>,
    options: &Options,
    machine: &ShellMachine,
    watch: &Watch,
) -> Result<()> {
    let name = machine.manifest.name();
    let settings = host.settings()?;
    let _claim = claim(host, Work::Shell, name)?;
    let rest = &mut |length| watch.rest(length);
    let Some(snapshot) = Snapshot::scratch_in_turn(&machine.dir, &machine.scratch, rest)? else {
        return Ok(());
    };
    let ends = match io::stdin().is_terminal() {
        true => "Ctrl-a x ends it, Ctrl-a c leads to the monitor of QEMU and back",
        // QEMU goes on at the end of a pipe.
        false => "its console is standard input and output, and SIGTERM ends it",
    };
    diag::info(format_args!("machine {name}: {ends}"))
        .info(format_args!(
            "its display (VNC): {}",
            interactive::vnc_path(&setup::run_dir(options)).display()
        ))
        .emit();
    watch.enter(Phase::Shell, None);
    let ran = guest::run_on_terminal(
        &settings,
        &machine.manifest,
        &machine.dir,
        snapshot.path(),
        watch,
    );
    ran.and(snapshot.close())
}

/// A machine that a shell can run.
struct ShellMachine {
    manifest: MachineManifest,
    /// The bootstrapped copy, or the revision of an auxiliary machine.
    dir: PathBuf,
    /// The path that the names of scratch snapshots are derived from.
    scratch: PathBuf,
}

/// The machine `name`, if it can be started.
fn find(options: &Options, name: &str) -> Result<ShellMachine> {
    let dirs = machine_dirs(&options.machines)?;
    let is_named = |machine: &&MachineDir| machine.name == name;
    let Some(machine) = dirs.found.iter().find(is_named) else {
        let names: Vec<&str> = dirs.found.iter().map(|one| &*one.name).collect();
        let error = Error::new(format!(
            "no machine {name} in {}",
            options.machines.display()
        ));
        return Err(match names.is_empty() {
            true => error,
            false => error.hint(format!("the machines are: {}", names.join(", "))),
        });
    };
    let why = match inspect(machine, &MachinesSettings::new(options))? {
        Inspection::Ready(ready) => {
            return Ok(ShellMachine {
                manifest: ready.manifest.machine,
                scratch: ready.dir.clone(),
                dir: ready.dir,
            });
        }
        Inspection::Auxiliary(found) => {
            return Ok(ShellMachine {
                manifest: found.manifest,
                dir: found.dir,
                scratch: found.scratch,
            });
        }
        Inspection::NeedsBootstrap(_) => {
            let toolchain = &options.toolchain_name;
            let why = format!("it has no current copy for toolchain {toolchain}");
            return Err(unusable(name, &why).hint(
                "an agent makes it in its next turn; without a controller: --dump-machines",
            ));
        }
        Inspection::Ignored(why) => why,
        Inspection::Retired => format!("there is no link {}", machine.link().display()),
    };
    Err(unusable(name, &why))
}

fn unusable(name: &str, why: &str) -> Error {
    Error::new(format!("unable to use machine {name}: {why}"))
}

/// The options with the highest instance whose lock is free, and the lock.
fn free_instance(options: &Options) -> Result<(Options, Lock)> {
    for instance in (1..=MAX_INSTANCE).rev() {
        let options = Options {
            instance,
            ..options.clone()
        };
        if let Attempt::Ours(lock) = Lock::take(&setup::run_dir(&options))? {
            return Ok((options, lock));
        }
    }
    let toolchain = &options.toolchain_name;
    let text = format!("every instance of the agents for toolchain {toolchain} is running");
    Err(Error::new(text).with_class(Class::Locked))
}
