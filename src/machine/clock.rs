//! The clock of a guest that was restored, set by QEMU's guest agent if one runs in it.
//!
//! Commands: QEMU's `qga/qapi-schema.json`.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::unistd::{read, write};

use super::VirtualMachine;
use crate::error::{Context as _, Result};
use crate::sys::poll::{Wait, Waited};

/// The name by which guests know the port of the agent.
pub(super) const PORT: &str = "org.qemu.guest_agent.0";

impl VirtualMachine {
    /// Whether a guest agent has opened its port.
    pub fn has_agent(&self) -> bool {
        self.has_agent
    }

    /// Has the guest agent set the clock to `time` since 1970, and waits for its answer
    /// until `deadline`. Returns whether it did.
    pub fn set_time(
        &mut self,
        time: Duration,
        deadline: Instant,
        wait: &mut Wait<'_>,
    ) -> Result<bool> {
        let Some(agent) = &self.agent else {
            return Ok(false);
        };
        let (time, unable) = (time.as_nanos(), || "unable to set the clock of the guest");
        let text =
            format!("{{\"execute\":\"guest-set-time\",\"arguments\":{{\"time\":{time}}}}}\n");
        write(agent, text.as_bytes()).context(unable)?;
        if wait(&[agent.as_fd()], deadline).context(unable)? != Waited::Readable {
            return Ok(false);
        }
        let mut answer = [0; 1024];
        let length = read(agent, &mut answer).context(unable)?;
        Ok(String::from_utf8_lossy(&answer[..length]).contains("\"return\""))
    }
}
