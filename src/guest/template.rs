//! A guest that becomes a template, and one that is restored from it.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::wait::Seen;
use super::{Guest, GuestPhase, GuestRun, GuestSettings, Step, mac, spec};
use crate::error::{Error, Result};
use crate::machine::{Memory, record};
use crate::manifest::MachineManifest;
use crate::network::Mac;
use crate::tftp::{DeferredRequest, Served};
use crate::watch::moment;

/// How long QEMU may take to save a guest: the state has a few megabytes.
const SAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// The time for a guest agent to answer. One that hangs costs a task so much.
const AGENT_TIMEOUT: Duration = Duration::from_secs(1);

impl Guest<'_> {
    /// Waits for the first request for a deferred file.
    pub fn await_deferred(&mut self, limit: Duration) -> Result<Step<DeferredRequest>> {
        self.wait(GuestPhase::Startup, limit, &mut [], |seen| match seen {
            Seen::Served(Served::Deferred(request)) => Some(request.clone()),
            _ => None,
        })
    }

    /// Stops the guest, saves its state, and removes all that was made for it. `None`:
    /// the agent was told to stop.
    pub fn save(self) -> Result<Option<()>> {
        let Guest {
            machine,
            redirect,
            server,
            watch,
            ..
        } = self;
        let until = Instant::now() + SAVE_TIMEOUT;
        let saved = machine.save(until, &mut |fds, deadline| watch.wait(fds, deadline));
        let removed = redirect.close();
        drop(server);
        let saved = saved?;
        removed.map(|()| saved)
    }

    /// Whether a guest agent runs in it.
    pub fn has_agent(&self) -> bool {
        self.machine.has_agent()
    }

    /// Whether guests of its template can share memory.
    pub fn maps_read_only(&self) -> bool {
        self.machine.maps_read_only()
    }

    /// Has the guest agent set the clock to the host's. Returns whether it did.
    pub fn set_time(&mut self) -> Result<bool> {
        let (until, watch) = (Instant::now() + AGENT_TIMEOUT, self.watch);
        let now = moment().wall;
        let wait = &mut |fds: &[BorrowedFd<'_>], deadline| watch.wait(fds, deadline);
        self.machine.set_time(now, until, wait)
    }

    /// The hardware address of its gateway, the bridge.
    pub fn gateway(&self) -> Mac {
        self.gateway
    }

    /// Answers the request that a restored guest waits with.
    pub fn answer(&mut self, request: &DeferredRequest) -> Result<()> {
        match self.server.resume(request) {
            Some(Served::Requested { .. }) => Ok(()),
            other => Err(Error::new(format!(
                "unable to answer the guest's request: {other:?}"
            ))),
        }
    }

    /// Waits until a restored guest shows that it runs: it has the file that it waited
    /// for, or has made a request.
    pub fn await_word(
        &mut self,
        limit: Duration,
        beside: &mut [&mut Guest<'_>],
    ) -> Result<Step<()>> {
        self.wait(GuestPhase::Restore, limit, beside, |seen| match seen {
            Seen::Served(Served::Sent { .. } | Served::Requested { .. }) => Some(()),
            _ => None,
        })
    }
}

/// The command line of the guests of builds of a machine that start warm, with fixed
/// descriptors and directories: for comparison.
pub fn command_line(
    config: &GuestSettings,
    machine: &MachineManifest,
    copy: &Path,
) -> Result<String> {
    let run = GuestRun::without_task(machine, copy, copy, Memory::Saved);
    let mac = mac(machine, None)?.of_instance(config.instance);
    let spec = spec(config, &run, &config.tap, mac)?;
    Ok(record::command_line(&spec))
}
