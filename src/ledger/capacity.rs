//! The capacity of a host, and the part of it that claims take.

use std::fmt;

use super::{HostClaim, Work};
use crate::cli::Options;
use crate::error::{Class, Error, Result};
use crate::priority::Priority;
use crate::status;
use crate::sys::procfs;

/// The part of a host that is for guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Memory in kB (`--host-ram`).
    pub ram_kb: u64,
    /// Processors (`--host-cpu`).
    pub cpus: u32,
    /// The maximum number of guests that run (`--instance-max`).
    pub instances: Option<usize>,
}

/// A guest that is to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its purpose. Only a task displaces others.
    pub work: Work,
    /// Its memory in kB.
    pub ram_kb: u64,
    /// Its processors.
    pub cpus: u32,
    /// The priority of its task.
    pub priority: Priority,
}

/// The reason for a guest to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Memory in kB: wanted, held by others, and of the host.
    Memory(u64, u64, u64),
    /// Processors: wanted, in use by others, and of the host.
    Processors(u32, u32, u32),
    /// Guests that run, as many as `--instance-max`.
    Instances(usize),
    /// The task of another agent, with its priority.
    Priority(String, Priority),
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortage::Memory(wanted, held, all) => {
                let size = |kilobytes: u64| status::bytes(kilobytes.saturating_mul(1024));
                let (wanted, held, all) = (size(*wanted), size(*held), size(*all));
                write!(f, "memory: {wanted} wanted, {held} of {all} in use")
            }
            Shortage::Processors(wanted, used, all) => {
                write!(f, "processors: {wanted} wanted, {used} of {all} in use")
            }
            Shortage::Instances(count) => write!(f, "guests: {count} run, which is --instance-max"),
            Shortage::Priority(owner, priority) => {
                write!(f, "{owner} performs a task of priority {priority}")
            }
        }
    }
}

/// The load of a host by claims.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    claims: usize,
    ram_kb: u64,
    /// Of guests that run, or are about to.
    guests: usize,
    cpus: u32,
}

impl Load {
    pub(super) fn of<'c>(claims: impl Iterator<Item = &'c HostClaim>) -> Load {
        claims.fold(Load::default(), |mut load, claim| {
            load.claims += 1;
            load.ram_kb = load.ram_kb.saturating_add(claim.ram_kb);
            if claim.state.uses_processors() {
                load.guests += 1;
                load.cpus = load.cpus.saturating_add(claim.cpus);
            }
            load
        })
    }

    /// The reason for a guest not to start beside this load, if there is one. A guest without another one
    /// beside it may always start, as long as the host has any memory for it.
    pub(super) fn lacks(self, capacity: &Capacity, wanted: &Wanted) -> Option<Shortage> {
        if let Some(most) = capacity.instances
            && self.guests >= most
        {
            return Some(Shortage::Instances(self.guests));
        }
        let ram_kb = self.ram_kb.saturating_add(wanted.ram_kb);
        if self.claims > 0 && ram_kb > capacity.ram_kb {
            let (held, all) = (self.ram_kb, capacity.ram_kb);
            return Some(Shortage::Memory(wanted.ram_kb, held, all));
        }
        let cpus = self.cpus.saturating_add(wanted.cpus);
        if self.guests > 0 && cpus > capacity.cpus {
            let (used, all) = (self.cpus, capacity.cpus);
            return Some(Shortage::Processors(wanted.cpus, used, all));
        }
        None
    }
}

/// Requires that the guests of a task fit the memory that the operator has set, where they
/// would wait for ever, or else that of the host.
///
/// # Errors
///
/// Of class [`Class::Config`], with the remedies.
pub fn require_room(options: &Options) -> Result<()> {
    let wanted = options.ram.saturating_add(options.auxiliary_ram);
    let has = procfs::total_memory_kb().unwrap_or(u64::MAX);
    let most = options.host_ram.unwrap_or(has);
    if wanted <= most {
        return Ok(());
    }
    let size = |kilobytes: u64| status::bytes(kilobytes.saturating_mul(1024));
    let (names, shown) = match options.auxiliary_ram {
        0 => ("--ram", size(wanted)),
        _ => ("--ram and --auxiliary-ram", size(wanted)),
    };
    let never = |of: &str| {
        let text = format!("the guests of a task never fit: {shown} ({names}), and {of}");
        Error::new(text).with_class(Class::Config)
    };
    Err(match options.host_ram {
        Some(most) => never(&format!("{} for all guests (--host-ram)", size(most)))
            .hint(format!("allow more: --host-ram {wanted}"))
            .hint(format!("or give a guest less: {names}")),
        // The host needs a part for itself.
        None => never(&format!("this host has {}", size(has)))
            .hint(format!("give a guest less: --ram {}M", has / 1024 * 3 / 4)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_that_never_fit_are_an_error() {
        let mut options = Options {
            ram: 8 << 40,
            ..Options::default()
        };
        let error = require_room(&options).unwrap_err().to_string();
        let cause = "the guests of a task never fit: 8192.0 TiB (--ram), and this host has ";
        assert!(error.starts_with(cause), "{error}");
        options.ram = 8 << 20;
        options.host_ram = Some(8 << 20);
        assert!(require_room(&options).is_ok());
        options.auxiliary_ram = 1 << 20;
        let error = require_room(&options).unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert_eq!(
            error.to_string(),
            "the guests of a task never fit: 9.0 GiB (--ram and --auxiliary-ram), and 8.0 GiB for \
             all guests (--host-ram)"
        );
        assert_eq!(error.hints().next(), Some("allow more: --host-ram 9437184"));
    }
}
