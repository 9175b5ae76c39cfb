//! The loop: enumerate, ask, perform, deliver, start over.
//!
//! The only module that knows all the others. What it holds from turn to turn
//! is what cannot be read again from the disk: which machines were complained
//! about, when to send a result again, how often something of ours has failed.

mod offer;
pub mod setup;
mod turn;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::auth::{self, Key};
use crate::breaker::Breaker;
use crate::cli::{self, Options, Turns};
use crate::controller::Controllers;
use crate::delivery::{ControllerCourier, Delivery, Now, UnfinishedTask};
use crate::diag;
use crate::error::{Class, Error, Result};
use crate::guest;
use crate::lock::{Attempt, Lock};
use crate::machine::{Accel, accel};
use crate::machines::Machines;
use crate::manifest::Style;
use crate::network::Netfilter;
use crate::status::{self, Idle, Notify};
use crate::sweep;
use crate::watch::{Stop, Watch};

use turn::Turn;

/// Exit status after `SIGHUP`: whoever supervises us should start us again.
const RESTART: u8 = 3;

/// How long a guest may take to show that KVM works.
const PROBE: Duration = Duration::from_secs(10);

/// An agent for one toolchain and instance.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    watch: Watch,
    machines: Machines,
    controllers: Controllers,
    delivery: Delivery,
    breaker: Breaker,
    /// What `--accel` comes to on this host, once it was needed.
    accel: Option<Accel>,
    /// What owns the rules of redirects, from the first guest on.
    netfilter: Netfilter,
    /// Counts turns, and spreads pauses.
    turns: u32,
    lock: Option<Lock>,
}

/// Runs the agent as the options say, until it is done or told to stop; returns
/// the exit status.
///
/// # Errors
///
/// What keeps it from starting: the lock, a directory, a key. With `--once` also
/// what made its turn fail.
pub fn run(options: Options) -> Result<u8> {
    let watch = Watch::start()?;
    let Some(lock) = lock(&options)? else {
        return Ok(0);
    };
    report(&options, &watch);
    banner(&options);
    let (mut agent, unfinished) = Agent::new(options, watch.clone(), lock, true)?;
    agent.recover(unfinished)?;
    let status = agent.work();
    agent.delivery.report_unsaved();
    watch.stopped();
    diag::end_repeats();
    status
}

/// Prints the headers of all machines, bootstrapping those that need it.
///
/// # Errors
///
/// When the machines cannot be read, or standard output not written.
pub fn dump_machines(options: Options) -> Result<u8> {
    let watch = Watch::start()?;
    let Some(lock) = lock(&options)? else {
        return Err(
            Error::new("another agent for this toolchain is running").with_class(Class::Locked)
        );
    };
    let (mut agent, _) = Agent::new(options, watch, lock, false)?;
    let mut text = String::new();
    for machine in agent.enumerate()?.ready {
        text += &turn::compose(machine.manifest.machine.header().to_text(Style::TODAY))?;
    }
    cli::print(text.as_bytes())?;
    Ok(0)
}

/// Removes what dead agents of our toolchain left behind, or only prints what
/// would go and why. While an agent of our instance runs, what is its own is
/// left alone. Returns the exit status, 0 unless something could not be removed.
///
/// # Errors
///
/// When the lock cannot be made, or standard output not written.
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

/// Takes the lock of this agent; `None` inside if it can do without, outside if
/// another agent has it and that is as good.
fn lock(options: &Options) -> Result<Option<Option<Lock>>> {
    let attempt = match Lock::take(&setup::run_dir(options)) {
        // Who may not make the lock may not harm the agent that has it either.
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

/// Whether parts of the host are played by somebody else.
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
    watch.report(status::Config {
        toolchain: options.toolchain_name.clone(),
        instance: options.instance,
        dir: (!is_fake(options)).then(|| setup::run_dir(options)),
        metrics: options.metrics.clone(),
        notify,
        terminal: std::io::IsTerminal::is_terminal(&std::io::stderr()),
    });
}

/// Under systemd: who we are, in the words of the original. Not in each turn of a
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

impl Agent {
    /// `delivers`: whether there may be results to deliver.
    fn new(
        options: Options,
        watch: Watch,
        lock: Option<Lock>,
        delivers: bool,
    ) -> Result<(Agent, Vec<UnfinishedTask>)> {
        let controllers =
            Controllers::new(&options.controllers, &setup::controllers(&options), &watch)?;
        let key = key(&options, &watch)?;
        let settings = setup::delivery(&options);
        // Trial runs bypass the store: their results are sent at once or dropped.
        let (delivery, unfinished) = if !delivers || is_fake(&options) || options.dump.is_some() {
            (Delivery::trial(settings, key), Vec::new())
        } else {
            Delivery::open(&setup::state(&options), settings, key)?
        };
        let agent = Agent {
            machines: Machines::new(setup::machines(&options)),
            breaker: Breaker::new(options.breaker),
            options,
            watch,
            controllers,
            delivery,
            accel: None,
            netfilter: Netfilter::default(),
            turns: 0,
            lock,
        };
        Ok((agent, unfinished))
    }

    /// Gives back the tasks that were under way when the former agent ended, and
    /// keeps other agents from the tasks whose results are stored.
    fn recover(&mut self, unfinished: Vec<UnfinishedTask>) -> Result<()> {
        let mut courier = ControllerCourier {
            controllers: &mut self.controllers,
            watch: &self.watch,
        };
        for UnfinishedTask { task, started } in unfinished {
            let state = if started { "being built" } else { "accepted" };
            diag::warning(format_args!("{task} was {state} when the agent ended"))
                .info(format_args!("{} may hand it out again", task.controller))
                .emit();
            let why = "the agent ended while the task was performed";
            let given_back = self
                .delivery
                .give_back(&task, why, Now::read(), &mut courier);
            // A task that cannot be given back (without its key, for instance) does
            // not keep the agent from starting: its controller times out.
            if let Err(error) = given_back {
                diag::failure(&error).emit();
            }
        }
        for target in self.delivery.targets()? {
            self.controllers.hold(&target);
        }
        Ok(())
    }

    /// Removes what dead agents of our toolchain left behind.
    fn sweep(&self) {
        if self.lock.is_some() && !is_fake(&self.options) {
            sweep::sweep(&setup::sweep(&self.options), self.lock.as_ref());
        }
    }

    /// Turn after turn, until there is a reason to stop.
    fn work(&mut self) -> Result<u8> {
        loop {
            let turn = self.turn();
            self.turns = self.turns.wrapping_add(1);
            if let Some(status) = self.stopped() {
                return Ok(status);
            }
            let once = self.options.turns != Turns::Endless;
            let (reason, detail) = match turn {
                Ok(Turn::Dumped) => return Ok(0),
                Ok(Turn::Worked) if once => return Ok(0),
                Ok(Turn::Worked) => continue,
                Ok(Turn::Idle(Idle::ControllersDown | Idle::ResultsWaiting, _)) if once => {
                    return Ok(Class::Unavailable.exit_code());
                }
                Ok(Turn::Idle(..)) if once => return Ok(0),
                Ok(Turn::Failed) if once => return Ok(Class::Failure.exit_code()),
                Err(error) if once => return Err(error),
                Ok(Turn::Idle(reason, detail)) => (reason, detail),
                Ok(Turn::Failed) => (Idle::Failed, String::new()),
                Err(error) => {
                    diag::failure(&error).emit();
                    (Idle::Failed, error.to_string())
                }
            };
            let pause = setup::jitter(self.options.poll_interval, self.turns.wrapping_mul(7919));
            let _ = self.watch.idle(reason, &detail, pause);
            if let Some(status) = self.stopped() {
                return Ok(status);
            }
        }
    }

    /// The exit status, if a signal asked for the end.
    fn stopped(&self) -> Option<u8> {
        match self.watch.stop()? {
            Stop::Restart => Some(RESTART),
            Stop::Drain | Stop::Terminate | Stop::Hurry => Some(0),
        }
    }

    /// The settings of guests, for which the accelerator must be known: finding
    /// out takes a second, so it is done when a guest is about to be started.
    fn guest(&mut self) -> Result<guest::Config> {
        let accel = match self.accel {
            Some(accel) => accel,
            None => self.find_accel()?,
        };
        setup::guest(&self.options, accel, &self.netfilter)
    }

    fn find_accel(&mut self) -> Result<Accel> {
        let choice = match self.options.accel {
            cli::Accel::Kvm => accel::Choice::Kvm,
            cli::Accel::Tcg => accel::Choice::Tcg,
            cli::Accel::Auto => accel::Choice::Auto,
        };
        let user = setup::user(&self.options)?;
        let deadline = Instant::now() + PROBE;
        let (accel, why) = accel::resolve(choice, &self.options.qemu, user.as_ref(), deadline)?;
        if let Some(why) = why {
            diag::warning(format_args!("emulating guests, which is slow: {why}")).emit();
        }
        self.accel = Some(accel);
        Ok(accel)
    }
}

/// The key, if there is one: what cannot work with it shall fail now.
fn key(options: &Options, watch: &Watch) -> Result<Option<Key>> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
    let credential = auth::credential(directory.as_deref().map(Path::new));
    let Some(path) = options.auth_key.clone().or(credential) else {
        return Ok(None);
    };
    let settings = auth::Settings {
        openssl: options.openssl.clone(),
        options: options.openssl_options.clone(),
        ..auth::Settings::new(path)
    };
    Key::open(settings, watch).map(Some)
}
