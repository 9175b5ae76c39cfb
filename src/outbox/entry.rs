//! What is known of a task, before there is a result and instead of one.

use std::time::SystemTime;

use crate::controller::Assignment;
use crate::manifest::{OperationResult, ResultManifest, ResultRequest, ResultStatus};
use crate::store::Accepted;

/// What the outbox has to know of a task.
#[must_use]
pub fn entry(assignment: &Assignment, wall: SystemTime) -> Accepted {
    Accepted {
        at: seconds(wall),
        session: assignment.session.clone(),
        controller: assignment.controller.clone(),
        result_url: assignment.result_url.to_url(),
        challenge: assignment.challenge.clone(),
        name: assignment.task.name().to_owned(),
        version: assignment.task.version().to_owned(),
        machine: assignment.task.machine().to_owned(),
    }
}

/// The result of a task that was under way when the agent died: `interrupt`, on
/// which a controller queues the build again, or `abort` for a controller of
/// 2017, which does not know that word.
#[must_use]
pub fn interrupted(task: &Accepted, signature: Option<String>, legacy: bool) -> ResultRequest {
    let status = if legacy {
        ResultStatus::Abort
    } else {
        ResultStatus::Interrupt
    };
    let mut result = ResultManifest::new(&task.name, &task.version, status);
    if legacy {
        result.results.push(OperationResult {
            operation: "configure".to_owned(),
            status,
            log: "bbot-agent: the agent ended while the task was performed".to_owned(),
        });
    }
    ResultRequest {
        session: task.session.clone(),
        challenge: signature,
        agent_checksum: None,
        result,
    }
}

/// Seconds since 1970.
pub(super) fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
