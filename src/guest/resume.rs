//! A failed guest that is started again. No server answers its requests.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::diag;
use crate::error::{Context as _, Error, Result};
use crate::machine::{Event, Spec, VirtualMachine};
use crate::network::Tap;
use crate::watch::Watch;

/// The time for QEMU to load the memory of a guest.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// The interval of looks at signals: any of them ends the guest.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Runs a machine, whose network leads nowhere, until its guest has ended or a signal comes
/// in. `started` is called when the guest runs.
pub fn run_again(spec: &Spec, watch: &Watch, started: impl FnOnce()) -> Result<()> {
    let tap = Tap::alone(&spec.tap)?;
    let until = Instant::now() + START_TIMEOUT;
    let wait = &mut |fds: &[BorrowedFd<'_>], deadline| watch.wait(fds, deadline);
    let Some(mut machine) = VirtualMachine::start(spec, tap.fd(), until, wait)? else {
        return Ok(());
    };
    tap.close();
    started();
    loop {
        while let Some(event) = machine.handle(Instant::now()) {
            match event {
                Event::Panicked => diag::info("the guest panicked").emit(),
                Event::Exited { status, .. } if !status.success() => {
                    return Err(Error::new(format!("qemu ended, {status}")));
                }
                Event::Exited { status, reason } => {
                    let why = reason.map_or(status.to_string(), |reason| reason.to_string());
                    diag::info(format_args!("the guest has ended: {why}")).emit();
                    return Ok(());
                }
                _ => {}
            }
        }
        if watch.stop().is_some() {
            return machine.force_down().map(drop);
        }
        let until = Instant::now() + LOOK_INTERVAL;
        let until = machine.deadline().map_or(until, |due| due.min(until));
        watch
            .wait(&machine.fds(), until)
            .context(|| format!("unable to wait for machine {}", spec.label))?;
    }
}
