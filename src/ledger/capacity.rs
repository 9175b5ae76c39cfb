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
    let names = match options.auxiliary_ram {
        0 => "--ram",
        _ => "--ram and --auxiliary-ram",
    };
    let of = match options.host_ram {
        Some(most) => format!("{} for all guests (--host-ram)", size(most)),
        None => format!("this host has {}", size(has)),
    };
    let shown = size(wanted);
    let mut error = Error::new(format!(
        "the guests of a task never fit: {shown} ({names}), and {of}"
    ))
    .with_class(Class::Config);
    if options.host_ram.is_some() && wanted <= has {
        error = error.hint(format!("allow more: --host-ram {wanted}"));
    }
    // The host needs a part for itself.
    let left = options.host_ram.unwrap_or(has / 4 * 3);
    let less = |of: u64| Some(left.saturating_sub(of) / 1024).filter(|megabytes| *megabytes > 0);
    let auxiliary = less(options.ram).filter(|_| options.auxiliary_ram > 0);
    Err(error.hint(match (auxiliary, less(options.auxiliary_ram)) {
        (Some(less), _) => format!("give auxiliary guests less: --auxiliary-ram {less}M"),
        (None, Some(less)) => format!("give a guest less: --ram {less}M"),
        (None, None) => "give the guests less: --ram, --auxiliary-ram".to_owned(),
    }))
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
        let hints = |options: &Options| {
            let error = require_room(options).unwrap_err();
            assert_eq!(error.class(), Class::Config);
            error.hints().map(str::to_owned).collect::<Vec<_>>()
        };
        options.ram = 8 << 10;
        options.host_ram = Some(8 << 10);
        assert!(require_room(&options).is_ok());
        options.auxiliary_ram = 1 << 10;
        assert_eq!(
            require_room(&options).unwrap_err().to_string(),
            "the guests of a task never fit: 9.0 MiB (--ram and --auxiliary-ram), and 8.0 MiB for \
             all guests (--host-ram)"
        );
        let more = "allow more: --host-ram 9216";
        assert_eq!(hints(&options), [more, "give a guest less: --ram 7M"]);
        options.ram = 1 << 10;
        options.auxiliary_ram = 8 << 40;
        let less = "give auxiliary guests less: --auxiliary-ram 7M";
        assert_eq!(hints(&options), [less]);
        options.ram = 8 << 40;
        let both = "give the guests less: --ram, --auxiliary-ram";
        assert_eq!(hints(&options), [both]);
    }
}
