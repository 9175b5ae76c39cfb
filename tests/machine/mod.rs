//! Machines: faults by a script that plays QEMU, the rest by QEMU and a guest.

mod fake;
mod limits;
mod real;
mod service;
mod whole;

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bbot_agent::error::Result;
use bbot_agent::machine::{Accel, Event, Memory, Purpose, Spec, VirtualMachine};
use bbot_agent::network::Mac;
use bbot_agent::platform::Architecture;
use bbot_agent::sys::poll::{self, Waited};

use crate::support::TempDir;

/// Emulated guests, on a machine that has other things to do.
const LONG: Duration = Duration::from_secs(120);

fn soon() -> Instant {
    Instant::now() + LONG
}

/// A specification with directories of its own under `dir`.
fn spec(dir: &TempDir, qemu: &Path) -> Spec {
    let (directory, run_dir) = (dir.path().join("machine"), dir.path().join("run"));
    fs::create_dir_all(&directory).unwrap();
    fs::create_dir_all(&run_dir).unwrap();
    Spec {
        label: "linux-gcc".into(),
        qemu: qemu.into(),
        architecture: Architecture::of("linux-gcc", None, qemu),
        accel: Accel::Tcg,
        cpus: 1,
        ram_kb: 128 * 1024,
        memory: Memory::Anonymous,
        source: directory.clone(),
        directory,
        bridge: "br1".into(),
        mac: Mac([0x52, 0x54, 0, 0, 1, 2]),
        tap: "bb1".into(),
        firmware: None,
        tpm: None,
        options: None,
        purpose: Purpose::Build,
        run_dir,
        display: None,
        user: None,
        cgroups: None,
    }
}

/// Something to hand over where no network is needed.
fn no_tap() -> OwnedFd {
    fs::File::open("/dev/null").unwrap().into()
}

/// Waits without an operator who would stop it.
fn wait(fds: &[BorrowedFd<'_>], deadline: Instant) -> std::io::Result<Waited> {
    let ready = poll::readable(fds, &mut vec![false; fds.len()], Some(deadline))?;
    Ok(if ready {
        Waited::Readable
    } else {
        Waited::Deadline
    })
}

/// Starts a machine without an operator who would stop it.
fn boot(spec: &Spec, tap: BorrowedFd<'_>, deadline: Instant) -> Result<VirtualMachine> {
    let machine = VirtualMachine::start(spec, tap, deadline, &mut wait)?;
    Ok(machine.expect("nobody stops it"))
}

/// The next event, if there is one in time.
fn next(machine: &mut VirtualMachine, deadline: Instant) -> Option<Event> {
    loop {
        if let Some(event) = machine.handle(Instant::now()) {
            return Some(event);
        }
        let fds = machine.fds();
        let until = machine.deadline().map_or(deadline, |d| d.min(deadline));
        poll::readable(&fds, &mut vec![false; fds.len()], Some(until)).unwrap();
        if Instant::now() >= deadline {
            return None;
        }
    }
}

/// Waits for an event that `wanted` wants, past others.
#[track_caller]
fn wait_for(machine: &mut VirtualMachine, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
    let deadline = soon();
    loop {
        match next(machine, deadline) {
            Some(event) if wanted(&event) => return event,
            Some(event) => assert!(
                !matches!(event, Event::Exited { .. }),
                "{event:?} before {what}: {:#?}",
                machine.evidence()
            ),
            None => panic!("no {what} in time: {:#?}", machine.evidence()),
        }
    }
}

/// Waits until the console has said something.
#[track_caller]
fn wait_for_console(machine: &mut VirtualMachine, text: &str) {
    let deadline = soon();
    while !machine.evidence().iter().any(|l| l.contains(text)) {
        let event = next(machine, Instant::now() + Duration::from_millis(100));
        let ended = matches!(event, Some(Event::Exited { .. }));
        assert!(
            !ended && Instant::now() < deadline,
            "the console does not say '{text}': {:#?}",
            machine.evidence()
        );
    }
}
