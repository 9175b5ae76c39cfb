//! Saving the state of a guest that is going to be a template, or has failed, and loading
//! it.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Instant;

use super::memory::{STREAM, capabilities, maps_read_only, migrated, stream, unlimited};
use super::monitor::{self, Said};
use super::start::NOT_READY;
use super::{EVIDENCE_LINES, VirtualMachine};
use crate::error::{Class, Context as _, Error, Result};
use crate::sys::poll::{Wait, Waited};

impl VirtualMachine {
    /// Whether QEMU can map the memory of a template that it cannot write to.
    pub fn maps_read_only(&self) -> bool {
        maps_read_only(&self.version)
    }

    /// The version of QEMU, as `7.2.22`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Asks QEMU to load the state that the guest was saved with, which may have its memory.
    pub(super) fn load(&mut self, with_memory: bool, deadline: Instant) -> Result<()> {
        self.migrate("migrate-incoming", with_memory, deadline)
    }

    fn migrate(
        &mut self,
        command: &'static str,
        with_memory: bool,
        deadline: Instant,
    ) -> Result<()> {
        if let Some(state) = &self.state {
            let monitor = &mut self.monitor;
            monitor
                .send_file(STREAM, state.as_fd(), deadline)
                .context(|| "unable to give qemu the file for the guest's state")?;
            let given = Some(capabilities(with_memory));
            monitor.send_with("migrate-set-capabilities", given, deadline);
            monitor.send_with(command, Some(stream()), deadline);
        }
        Ok(())
    }

    /// Stops the guest, saves the state of its devices, and ends QEMU, by `deadline` at
    /// the latest. `None`: `wait` was stopped.
    ///
    /// # Errors
    ///
    /// With QEMU's reason when it cannot save the guest: some devices cannot be. Of class
    /// [`Class::Os`] when it was not done in time.
    pub fn save(mut self, deadline: Instant, wait: &mut Wait<'_>) -> Result<Option<()>> {
        self.power_down = None;
        self.monitor.send("stop", deadline);
        let saved = self
            .migrate("migrate", false, deadline)
            .and_then(|()| self.await_saved(deadline, wait));
        let ended = self.force_down();
        let saved = saved.context(|| format!("unable to save {}", self.title()))?;
        ended?;
        Ok(saved)
    }

    /// Saves devices and memory of a suspended guest to `file` by `deadline` at the latest.
    /// QEMU goes on. `None`: `wait` was stopped.
    pub fn save_whole(
        &mut self,
        file: File,
        deadline: Instant,
        wait: &mut Wait<'_>,
    ) -> Result<Option<()>> {
        self.state = Some(file);
        let fast = Some(unlimited());
        self.monitor
            .send_with("migrate-set-parameters", fast, deadline);
        let saved = self
            .migrate("migrate", true, deadline)
            .and_then(|()| self.await_saved(deadline, wait));
        if !matches!(saved, Ok(Some(()))) {
            self.monitor.send("migrate_cancel", deadline);
        }
        saved.context(|| "unable to save its memory")
    }

    fn await_saved(&mut self, deadline: Instant, wait: &mut Wait<'_>) -> Result<Option<()>> {
        loop {
            let exited = self.process.try_wait();
            let exited = exited.context(|| "unable to wait for qemu")?;
            self.console.read();
            self.stderr.read();
            for said in self.monitor.read() {
                match said {
                    Said::Event(name, data) => match migrated(&name, &data) {
                        Some(true) => return Ok(Some(())),
                        Some(false) => self.monitor.send("query-migrate", deadline),
                        None => {}
                    },
                    Said::Done("query-migrate", value) => {
                        let reason = value.get("error-desc").and_then(|text| text.as_str());
                        return Err(Error::new(reason.unwrap_or("unknown reason")));
                    }
                    Said::Refused(_, reason) => return Err(Error::new(reason)),
                    Said::Lost(why) if why != monitor::CLOSED => return Err(Error::new(why)),
                    Said::Greeting(_) | Said::Done(..) | Said::Lost(_) => {}
                }
            }
            if let Some(status) = exited {
                self.exited = Some(status);
                let last = self.stderr.tail().lines(EVIDENCE_LINES).pop();
                let last = last.map_or_else(String::new, |line| format!(": {line}"));
                return Err(Error::new(format!("qemu has ended, {status}{last}")));
            }
            match wait(&self.fds(), deadline).context(|| "unable to wait for qemu")? {
                Waited::Readable => {}
                Waited::Stopped => return Ok(None),
                Waited::Deadline => return Err(Error::new(NOT_READY).with_class(Class::Os)),
            }
        }
    }
}
