//! Which of the machines are offered to controllers, and why none are.

use std::rc::Rc;
use std::time::Instant;

use super::Agent;
use crate::breaker::Gate;
use crate::diag;
use crate::error::Result;
use crate::machines::room::{self, Low};
use crate::machines::{Enumeration, Machine};
use crate::status::Idle;

/// What may be offered.
pub(super) enum Offer {
    /// These machines.
    Machines(Vec<Rc<Machine>>),
    /// None, because.
    Nothing(Idle, String),
}

impl Agent {
    /// Enumerates the machines, bootstraps those that need it and have room, and
    /// judges what may be offered.
    pub(super) fn offer(&mut self) -> Result<Offer> {
        let gate = self.breaker.gate(Instant::now());
        if let Gate::Open(until) = gate {
            let (count, why) = self.breaker.faults();
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
        if self.watch.stop().is_some() {
            // Those that were being bootstrapped are not missing.
            return Ok(Offer::Nothing(Idle::Drained, String::new()));
        }
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
        let min_free = self.options.min_free;
        let Low {
            volumes: low,
            said: full,
        } = room::low(
            &self.options.machines,
            |total| min_free.of(total),
            &self.watch,
        )?;
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
