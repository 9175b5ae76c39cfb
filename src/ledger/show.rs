//! The claims of a host in words.

use super::{ClaimState, HostClaim, Work};
use crate::status::bytes;

impl HostClaim {
    /// The claim in a line: `4.0 GiB and 2 processors for a task of priority 0100`.
    pub fn line(&self) -> String {
        let size = bytes(self.ram_kb.saturating_mul(1024));
        let plural = if self.cpus == 1 { "" } else { "s" };
        let mut line = format!("{size} and {} processor{plural} for a ", self.cpus);
        line += self.work.keyword();
        if self.work == Work::Task {
            line += &format!(" of priority {}", self.priority);
        }
        if self.is_interactive {
            line += ", interactive: a user may be logged in";
        }
        match self.state {
            ClaimState::Running => line,
            ClaimState::Waiting => line + "; it waits for other guests to make room",
            ClaimState::Paused => line + "; it is paused for a task of higher priority",
            ClaimState::Ended => line + "; the task has ended",
        }
    }
}

/// The use of a host in a line. `None` without claims, whose agents know its capacity.
pub fn use_of_host(claims: &[HostClaim]) -> Option<String> {
    let first = claims.first()?;
    let kilobytes = |sum: u64| bytes(sum.saturating_mul(1024));
    let ram_kb = claims.iter().map(|claim| claim.ram_kb).sum();
    let are_running = |claim: &&HostClaim| claim.state == ClaimState::Running;
    let cpus: u32 = claims.iter().filter(are_running).map(|c| c.cpus).sum();
    let paused = claims
        .iter()
        .filter(|claim| claim.state == ClaimState::Paused)
        .count();
    let run = match claims.iter().filter(are_running).count() {
        1 => "1 guest runs".to_owned(),
        count => format!("{count} guests run"),
    };
    let are = if paused == 1 { "is" } else { "are" };
    Some(format!(
        "{} of {} and {cpus} of {} processors in use, {run}, {paused} {are} paused",
        kilobytes(ram_kb),
        kilobytes(first.host_ram_kb),
        first.host_cpus,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::priority::Priority;

    #[test]
    fn the_use_of_a_host_counts_processors_of_guests_that_run() {
        let claim = |state, cpus| HostClaim {
            owner: "default-1".to_owned(),
            work: Work::Task,
            state,
            ram_kb: 4 << 20,
            cpus,
            priority: Priority::parse("100").unwrap(),
            machine: "linux-gcc".to_owned(),
            task: None,
            accepted: None,
            is_interactive: false,
            host_ram_kb: 30 << 20,
            host_cpus: 8,
        };
        let claims = [claim(ClaimState::Running, 2), claim(ClaimState::Paused, 1)];
        assert_eq!(
            claims[0].line(),
            "4.0 GiB and 2 processors for a task of priority 0100"
        );
        assert_eq!(
            claims[1].line(),
            "4.0 GiB and 1 processor for a task of priority 0100; it is paused for a task of \
             higher priority"
        );
        assert_eq!(
            use_of_host(&claims).unwrap(),
            "8.0 GiB of 30.0 GiB and 2 of 8 processors in use, 1 guest runs, 1 is paused"
        );
        assert_eq!(use_of_host(&[]), None);
    }
}
