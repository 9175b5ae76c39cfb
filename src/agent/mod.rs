//! The loop: enumerate, ask, perform, deliver, start over.
//!
//! The only module that knows all the others. [`Agent`] decides, [`World`] acts:
//! the loop is the same for this host and for one that a test plays.

mod ask;
mod build;
mod guests;
mod host;
mod pauses;
pub mod policy;
mod resume;
mod room;
pub mod setup;
mod shell;
mod templates;
mod turn;
mod work;
mod world;

use crate::auth::{self, Key};
use crate::cli::{self, Options, Turns};
use crate::delivery::Delivery;
use crate::diag;
use crate::error::{Class, Error, Result};
use crate::ledger;
use crate::lock::{Attempt, Lock};
use crate::manifest::{MachineHeader, Style};
use crate::status::{self, Notify};
use crate::sweep;
use crate::watch::Watch;

use host::Host;
use work::compose;

pub use resume::resume;
pub use shell::shell;
pub use work::Agent;
pub use world::{Room, World};

/// Runs the agent until it is done or told to stop. Returns the exit status.
///
/// # Errors
///
/// The reason why it cannot start: the lock, a directory, a key. With `--once` also
/// the reason why its turn failed.
pub fn run(options: &Options) -> Result<u8> {
    if !is_fake(options) {
        ledger::require_room(options)?;
    }
    let watch = Watch::start()?;
    let Some(lock) = lock(options)? else {
        return Ok(0);
    };
    report(options, &watch);
    banner(options);
    let mut host = Host::new(options, &watch, lock)?;
    let key = key(options, &watch)?;
    let settings = setup::delivery(options);
    // Trial runs bypass the store: their results are sent at once or dropped.
    let is_trial = is_fake(options) || options.dump.is_some();
    let (delivery, unfinished) = if is_trial {
        (Delivery::trial(settings, key), Vec::new())
    } else {
        let state = setup::state(options);
        let opened = Delivery::open(&state, settings, key)?;
        host.keep(&state);
        opened
    };
    for target in delivery.targets()? {
        host.hold_task(&target);
    }
    let mut agent = Agent::new(options.clone(), host, delivery);
    if !is_trial {
        agent.keep(&setup::state(options));
    }
    agent.recover(unfinished);
    let status = agent.work();
    agent.end();
    watch.stopped();
    status
}

/// Prints the headers of all machines, bootstrapping those that need it.
pub fn dump_machines(options: &Options) -> Result<u8> {
    let watch = Watch::start()?;
    let Some(lock) = lock(options)? else {
        return Err(
            Error::new("another agent for this toolchain is running").with_class(Class::Locked)
        );
    };
    let mut host = Host::new(options, &watch, lock)?;
    let mut text = String::new();
    let mut add = |header: &MachineHeader| -> Result<()> {
        text += &compose(header.to_text(Style::TODAY))?;
        Ok(())
    };
    if let Some(path) = &options.fake_machine {
        add(&setup::fake_machine(path, &watch)?)?;
    } else {
        let machines = host.enumerate()?;
        for machine in machines.ready {
            add(&machine.manifest.machine.header())?;
        }
        for machine in machines.auxiliary {
            add(&machine.manifest.header())?;
        }
    }
    cli::print(text.as_bytes())?;
    Ok(0)
}

/// Removes the leftovers of killed agents of this toolchain, or with `dry_run` prints
/// them and why they would go. The things of an agent of this instance that runs are
/// left alone. Returns the exit status, 0 unless something could not be removed.
pub fn collect(options: &Options, dry_run: bool) -> Result<u8> {
    let lock = match Lock::take(&setup::run_dir(options))? {
        Attempt::Ours(lock) => Some(lock),
        Attempt::Busy(_) => None,
    };
    let mut status = 0;
    for litter in sweep::find(&setup::sweep(options), lock.as_ref()) {
        if dry_run {
            cli::print(format!("{litter}\n").as_bytes())?;
        } else if let Err(error) = litter.remove() {
            diag::failure(&error).emit();
            status = error.class().exit_code();
        } else {
            cli::print(format!("removed {litter}\n").as_bytes())?;
        }
    }
    Ok(status)
}

/// Takes this agent's lock. `Some(None)`: a trial run may go on without one. `None`:
/// another agent holds it and `--once` was given, so there is nothing to do.
fn lock(options: &Options) -> Result<Option<Option<Lock>>> {
    let attempt = match Lock::take(&setup::run_dir(options)) {
        // A user who cannot create the lock file cannot disturb the agent that holds it.
        Err(_) if is_fake(options) => return Ok(Some(None)),
        attempt => attempt?,
    };
    match attempt {
        Attempt::Ours(lock) => Ok(Some(Some(lock))),
        Attempt::Busy(_) if options.turns == Turns::Once && !is_fake(options) => Ok(None),
        Attempt::Busy(pid) => {
            let who = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            Err(Error::new(format!(
                "another agent for toolchain {}, instance {}, is running{who}",
                options.toolchain_name, options.instance
            ))
            .with_class(Class::Locked)
            .hint("for a second one on this host give it another --instance"))
        }
    }
}

/// Whether this is a trial run (`--fake-*`).
fn is_fake(options: &Options) -> bool {
    options.fake_bootstrap
        || options.fake_build
        || options.fake_machine.is_some()
        || options.fake_request.is_some()
}

/// From now on the state is published.
fn report(options: &Options, watch: &Watch) {
    let notify = Notify::from_env(&|name| std::env::var_os(name)).unwrap_or_else(|error| {
        diag::warning(format_args!("unable to notify systemd: {error}")).emit();
        None
    });
    watch.report(status::StatusSettings {
        toolchain: options.toolchain_name.clone(),
        instance: options.instance,
        dir: (!is_fake(options)).then(|| setup::run_dir(options)),
        metrics: options.metrics.clone(),
        notify,
        terminal: std::io::IsTerminal::is_terminal(&std::io::stderr()),
    });
}

/// Under systemd: the settings, in the words of the original. Not in each turn of a
/// timer.
fn banner(options: &Options) {
    if !options.systemd_daemon || options.turns == Turns::Once {
        return;
    }
    let mut record = diag::info(format_args!("bbot agent {}", env!("CARGO_PKG_VERSION")))
        .info(format_args!("toolchain name {}", options.toolchain_name))
        .info(format_args!("toolchain num  {}", options.toolchain_num))
        .info(format_args!("toolchain id   {}", options.toolchain_id))
        .info(format_args!("CPU(s)         {}", options.cpu))
        .info(format_args!("RAM(kB)        {}", options.ram));
    for url in &options.controllers {
        record = record.info(format_args!("controller url {url}"));
    }
    record.emit();
}

/// The key, if there is one. It is tried now, so that a bad one keeps the agent from
/// starting.
fn key(options: &Options, watch: &Watch) -> Result<Option<Key>> {
    let Some(path) = options.auth_key.clone() else {
        return Ok(None);
    };
    let settings = auth::KeySettings {
        openssl: options.openssl.clone(),
        options: options.openssl_options.clone(),
        ..auth::KeySettings::new(path)
    };
    Key::open(settings, watch).map(Some)
}
