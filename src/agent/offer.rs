//! Which of the machines are offered to controllers, and why none are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Agent;
use crate::breaker::Gate;
use crate::cli::Options;
use crate::diag;
use crate::error::Result;
use crate::machines::{Enumeration, Machine, tree};
use crate::snapshot;
use crate::status::Idle;
use crate::trace;
use crate::watch::{Wake, Watch};

/// How long to wait for the space of what was deleted, and how often to look.
const CLEANER: Duration = Duration::from_secs(30);
const CLEANER_POLL: Duration = Duration::from_millis(100);

/// What may be offered.
pub(super) enum Offer {
    /// These machines.
    Machines(Vec<Machine>),
    /// None, because.
    Nothing(Idle, String),
}

impl Agent {
    /// Enumerates the machines, bootstraps those that need it and have room, and
    /// judges what may be offered.
    pub(super) fn offer(&mut self) -> Result<Offer> {
        let gate = self.breaker.gate(Instant::now());
        if let Gate::Open(until) = gate {
            let (count, why) = self.breaker.failures();
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            let detail =
                format!("{count} failures in a row, the last one: {why}; next try in {left} s");
            return Ok(Offer::Nothing(Idle::BreakerOpen, detail));
        }
        let Enumeration {
            mut ready,
            broken,
            full,
            ..
        } = self.enumerate()?;
        self.watch.ready();
        if ready.is_empty() {
            if let Some(full) = full.first() {
                diag::warning("no work is asked for: too little free space (--min-free)")
                    .info(full)
                    .emit();
                return Ok(Offer::Nothing(Idle::BelowFreeSpace, full.clone()));
            }
            let name = &self.options.toolchain_name;
            let record = diag::warning(format_args!("no build machines for toolchain {name}"));
            match broken {
                0 => record.info(format_args!(
                    "looked in {}",
                    self.options.machines.display()
                )),
                _ => record.info(format_args!("{broken} have something wrong with them")),
            }
            .emit();
            return Ok(Offer::Nothing(Idle::NoMachines, String::new()));
        }
        if let Gate::Try(n) = gate {
            // One machine at a time: the fault may be with one of them.
            let index = n as usize % ready.len();
            ready = vec![ready.swap_remove(index)];
        }
        Ok(Offer::Machines(ready))
    }

    /// Enumerates the machines, those on volumes without room left out, and
    /// bootstraps where that is needed.
    pub(super) fn enumerate(&mut self) -> Result<Enumeration> {
        let (low, full) = low_volumes(&self.options, &self.watch)?;
        let mut found = self.machines.enumerate(None, &low, &self.watch)?;
        if found.waiting > 0 && !self.watch.must_stop() {
            // Only now is there a reason to look for KVM.
            let guest = self.guest_or_fake()?;
            let config = super::setup::bootstrap(&self.options, guest);
            found = self.machines.enumerate(Some(&config), &low, &self.watch)?;
        }
        found.full = full;
        Ok(found)
    }
}

/// The volumes that have less room than `--min-free`, and what to say of each.
fn low_volumes(options: &Options, watch: &Watch) -> Result<(HashSet<PathBuf>, Vec<String>)> {
    let mut low = HashSet::new();
    let mut said = Vec::new();
    for volume in tree::volumes(&options.machines)? {
        let Ok(mut space) = snapshot::space(&volume) else {
            // Whatever is wrong with it, the enumeration will say.
            continue;
        };
        let least = options.min_free.of(space.total);
        if space.available < least {
            await_cleaner(&volume, watch);
            space = snapshot::space(&volume)?;
        }
        if space.available < least {
            said.push(format!(
                "{} has {} MiB left, less than the {} MiB that are wanted",
                volume.display(),
                space.available >> 20,
                least >> 20
            ));
            low.insert(volume);
        }
    }
    Ok((low, said))
}

/// Waits until the kernel has given back the space of deleted subvolumes: it
/// does so in its own time, after the deletion has returned.
fn await_cleaner(volume: &Path, watch: &Watch) {
    let deadline = Instant::now() + CLEANER;
    if let Err(error) = snapshot::sync(volume) {
        trace!(3, "await_cleaner", "{error}");
    }
    // An older kernel does not say; it has begun at least.
    while let Ok(Some(1..)) = snapshot::cleaner_backlog(volume) {
        let what = "deleted subvolumes still take up space";
        if Instant::now() >= deadline
            || watch.idle(Idle::BelowFreeSpace, what, CLEANER_POLL) == Wake::Signal
        {
            return;
        }
    }
}
