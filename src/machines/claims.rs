//! Claims of the MAC addresses that the operator has given to machines.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::rc::Rc;

use super::Enumeration;
use crate::error::Result;
use crate::guest;
use crate::manifest::MachineManifest;
use crate::network::{Mac, NetworkClaim};
use crate::trace;

/// Claims the addresses of an enumeration, for as long as the machines are offered or
/// run. Leaves out machines whose address is in use.
pub(super) fn claim(result: &mut Enumeration, instance: u16) -> Result<()> {
    let mut claims = Claims {
        known: HashMap::new(),
        instance,
    };
    let mut free = Vec::new();
    for mut machine in result.ready.drain(..) {
        if machine.has_fixed_mac {
            let claim = claims.take(&machine.manifest.machine, &machine.dir)?;
            if claim.is_none() {
                result.busy += 1;
                continue;
            }
            if let Some(machine) = Rc::get_mut(&mut machine) {
                machine.claim = claim;
            }
        }
        free.push(machine);
    }
    result.ready = free;
    let mut free = Vec::new();
    for mut machine in result.auxiliary.drain(..) {
        if machine.manifest.mac().is_some() {
            let claim = claims.take(&machine.manifest, &machine.dir)?;
            if claim.is_none() {
                continue;
            }
            if let Some(machine) = Rc::get_mut(&mut machine) {
                machine.claim = claim;
            }
        }
        free.push(machine);
    }
    result.auxiliary = free;
    Ok(())
}

/// The claims of an enumeration. Machines that share an address share its claim.
struct Claims {
    known: HashMap<Mac, Option<Rc<NetworkClaim>>>,
    instance: u16,
}

impl Claims {
    fn take(&mut self, machine: &MachineManifest, dir: &Path) -> Result<Option<Rc<NetworkClaim>>> {
        let mac = guest::mac(machine, None)?.of_instance(self.instance);
        let claim = match self.known.entry(mac) {
            Entry::Occupied(claim) => claim.get().clone(),
            Entry::Vacant(entry) => entry.insert(NetworkClaim::mac(mac)?.map(Rc::new)).clone(),
        };
        if claim.is_none() {
            let shown = dir.display();
            trace!(
                3,
                "take", "skipping {shown}: a guest of another agent has {mac}"
            );
        }
        Ok(claim)
    }
}
