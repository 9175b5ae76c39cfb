//! A guest on the terminal of the agent. No server answers its requests.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{GuestRun, GuestSettings, mac, spec};
use crate::error::{Error, Result};
use crate::machine::{Memory, by_hand};
use crate::manifest::MachineManifest;
use crate::network::{Bridge, NetworkClaim, Tap};
use crate::watch::Watch;

/// The interval of looks at signals: any of them ends the guest.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Runs `machine` in `directory`, a snapshot of `source`, until the guest has ended or a
/// signal comes in.
///
/// # Errors
///
/// When the host lacks something, or QEMU fails.
pub fn run_on_terminal(
    config: &GuestSettings,
    machine: &MachineManifest,
    source: &Path,
    directory: &Path,
    watch: &Watch,
) -> Result<()> {
    let boot = GuestRun::without_task(machine, source, directory, Memory::Anonymous);
    let bridge = Bridge::probe(&config.bridge)?;
    let mac = mac(machine, None)?.of_instance(config.instance);
    let Some(_claim) = NetworkClaim::mac(mac)? else {
        let text = format!("unable to start machine {}", source.display());
        return Err(Error::new(format!(
            "{text}: a guest of another agent has {mac}"
        )));
    };
    let tap = Tap::open(&bridge, &config.tap)?;
    let spec = spec(config, &boot, tap.name(), mac)?;
    by_hand::run(&spec, tap.fd(), &mut |qemu: BorrowedFd<'_>| {
        watch.wait(&[qemu], Instant::now() + LOOK_INTERVAL)?;
        Ok(watch.stop().is_none())
    })
}
