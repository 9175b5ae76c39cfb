//! What happened in a play.

use bbot_agent::manifest::ResultStatus;
use bbot_agent::status::Idle;

/// A result that was sent: when, to which controller, the status, and whether the
/// controller took it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: u64,
    pub controller: usize,
    pub session: String,
    pub status: ResultStatus,
    pub taken: bool,
}

/// All that happened.
#[derive(Debug, Default)]
pub struct Record {
    pub now: u64,
    /// When which controller was asked.
    pub asked: Vec<(u64, usize)>,
    /// The toolchain version in the last request.
    pub toolchain_version: Option<String>,
    /// When a session began.
    pub handed_out: Vec<(u64, String)>,
    pub sent: Vec<Sent>,
    /// When a guest of which machine was started, and seconds that it took.
    pub built: Vec<(u64, String, u64)>,
    /// The auxiliary machines of the tasks that were performed, each with the name of
    /// its environment.
    pub auxiliary: Vec<(String, String)>,
    /// The last request.
    pub request: String,
    /// When the agent began to wait, for how many seconds, and why.
    pub idle: Vec<(u64, u64, Idle, String)>,
    pub probes: Vec<u64>,
    /// When a template was made.
    pub templates: Vec<u64>,
    /// Warnings that were given once.
    pub notes: Vec<String>,
    /// When a bootstrap of which machine began, seconds that it took, and whether its
    /// guest was held.
    pub bootstraps: Vec<(u64, String, u64, bool)>,
}

impl Record {
    /// The results that controllers have taken, by status.
    pub fn taken(&self, status: ResultStatus) -> usize {
        let taken = |sent: &&Sent| sent.taken && sent.status == status;
        self.sent.iter().filter(taken).count()
    }

    pub fn asked(&self, controller: usize) -> usize {
        self.asked.iter().filter(|(_, c)| *c == controller).count()
    }

    /// Seconds spent in guests of a machine.
    pub fn time_in(&self, machine: &str) -> u64 {
        let of = self.built.iter().filter(|(_, m, _)| m == machine);
        of.map(|(_, _, seconds)| seconds).sum()
    }

    /// Seconds spent waiting for this reason.
    pub fn time_idle(&self, reason: Idle) -> u64 {
        let of = self.idle.iter().filter(|(_, _, r, _)| *r == reason);
        of.map(|(_, seconds, ..)| seconds).sum()
    }
}
