//! The consequences of the end of a task, in one table.
//!
//! | end of the task | controller | machine | breaker | probe | next turn |
//! |---|---|---|---|---|---|
//! | result | result | cleared | success | no | at once |
//! | result, then a host fault | result | cleared | fault | yes | after a pause |
//! | not acceptable | given back | - | - | no | after a pause |
//! | no room on the host | given back | - | - | no | after a pause |
//! | host fault before the worker had its task | given back | - | fault | yes | after a pause |
//! | host fault while it had its task | abort | - | fault | yes | after a pause |
//! | guest failed before the worker had its task | given back | rests | fault | yes | after a pause |
//! | guest failed while it had its task | abort | cleared | success | no | at once |
//! | guest failed on a host that lacks something | given back | - | fault | yes | after a pause |
//! | an auxiliary machine failed before that | abort | it rests | - | no | after a pause |
//! | interrupted for a task of higher priority | given back | - | - | no | at once |
//! | stopped by a signal | given back | - | - | no | after a pause |
//!
//! A task that is given back gets the status `interrupt`, on which its controller
//! queues it again (with `--legacy-request`: `abort`). `abort` is final, and so is
//! left for guests that had their task, whose package may be the reason.

use crate::perform::{BuildStage, FailedSide};

/// How the agent's work on a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// The worker uploaded a result.
    Result,
    /// The worker uploaded a result, and the host failed to store it, to send it or
    /// to clean up.
    ResultWithHostFault,
    /// The agent does not serve such tasks.
    NotAcceptable,
    /// Another agent got the memory or the processors that were free before.
    NoRoom,
    /// This side failed at this stage.
    Failed(FailedSide, BuildStage),
    /// An auxiliary machine did not come up, so that the worker has no task.
    AuxiliaryFailed,
    /// The guest failed, and the host lacks something that guests need.
    HostLacks,
    /// The operator stopped the agent.
    Stopped,
    /// A task of higher priority needed the host.
    Interrupted,
}

/// The answer to the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerGets {
    /// The worker's result.
    Result,
    /// `abort` with the reason.
    Abort,
    /// The task.
    Task,
}

/// The consequence for the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineGets {
    /// Its earlier failures are forgotten.
    Cleared,
    /// Nothing.
    Nothing,
    /// It is not offered for a while.
    Rest,
}

/// The count of the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerGets {
    /// A success.
    Success,
    /// Nothing.
    Nothing,
    /// A host fault.
    Fault,
}

/// The consequences of the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consequences {
    /// For the controller.
    pub controller: ControllerGets,
    /// For the machine.
    pub machine: MachineGets,
    /// For the breaker.
    pub breaker: BreakerGets,
    /// Whether the host is examined anew before work is asked for again.
    pub probe: bool,
    /// Whether the next turn starts at once; with `--once`, whether the turn is a
    /// success.
    pub at_once: bool,
}

impl TaskEnd {
    /// The row of the table.
    pub fn consequences(self) -> Consequences {
        use {BuildStage as B, FailedSide as F};
        use {ControllerGets as C, MachineGets as M};
        let (controller, machine, breaker) = match self {
            TaskEnd::Result => (C::Result, M::Cleared, BreakerGets::Success),
            TaskEnd::ResultWithHostFault => (C::Result, M::Cleared, BreakerGets::Fault),
            TaskEnd::NotAcceptable | TaskEnd::NoRoom | TaskEnd::Stopped | TaskEnd::Interrupted => {
                (C::Task, M::Nothing, BreakerGets::Nothing)
            }
            TaskEnd::AuxiliaryFailed => (C::Abort, M::Rest, BreakerGets::Nothing),
            TaskEnd::Failed(F::Host, B::BeforeTask)
            | TaskEnd::Failed(F::Surroundings, _)
            | TaskEnd::HostLacks => (C::Task, M::Nothing, BreakerGets::Fault),
            TaskEnd::Failed(F::Host, B::WithTask) => (C::Abort, M::Nothing, BreakerGets::Fault),
            TaskEnd::Failed(F::Guest, B::BeforeTask) => (C::Task, M::Rest, BreakerGets::Fault),
            TaskEnd::Failed(F::Guest, B::WithTask) => (C::Abort, M::Cleared, BreakerGets::Success),
        };
        Consequences {
            controller,
            machine,
            breaker,
            probe: breaker == BreakerGets::Fault,
            at_once: breaker == BreakerGets::Success || self == TaskEnd::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_holds() {
        use BuildStage::{BeforeTask, WithTask};
        use FailedSide::{Guest, Host};
        use {BreakerGets as B, ControllerGets as C, MachineGets as M};
        for (end, controller, machine, breaker, probe, at_once) in [
            (
                TaskEnd::Result,
                C::Result,
                M::Cleared,
                B::Success,
                false,
                true,
            ),
            (
                TaskEnd::ResultWithHostFault,
                C::Result,
                M::Cleared,
                B::Fault,
                true,
                false,
            ),
            (
                TaskEnd::NotAcceptable,
                C::Task,
                M::Nothing,
                B::Nothing,
                false,
                false,
            ),
            (
                TaskEnd::Failed(Host, BeforeTask),
                C::Task,
                M::Nothing,
                B::Fault,
                true,
                false,
            ),
            (
                TaskEnd::Failed(Host, WithTask),
                C::Abort,
                M::Nothing,
                B::Fault,
                true,
                false,
            ),
            (
                TaskEnd::Failed(Guest, BeforeTask),
                C::Task,
                M::Rest,
                B::Fault,
                true,
                false,
            ),
            (
                TaskEnd::Failed(Guest, WithTask),
                C::Abort,
                M::Cleared,
                B::Success,
                false,
                true,
            ),
            (
                TaskEnd::AuxiliaryFailed,
                C::Abort,
                M::Rest,
                B::Nothing,
                false,
                false,
            ),
            (
                TaskEnd::HostLacks,
                C::Task,
                M::Nothing,
                B::Fault,
                true,
                false,
            ),
            (
                TaskEnd::Stopped,
                C::Task,
                M::Nothing,
                B::Nothing,
                false,
                false,
            ),
            (
                TaskEnd::Failed(FailedSide::Surroundings, WithTask),
                C::Task,
                M::Nothing,
                B::Fault,
                true,
                false,
            ),
        ] {
            let expected = Consequences {
                controller,
                machine,
                breaker,
                probe,
                at_once,
            };
            assert_eq!(end.consequences(), expected, "{end:?}");
        }
    }

    #[test]
    fn only_a_guest_that_had_its_task_is_an_abort() {
        for side in [FailedSide::Host, FailedSide::Guest] {
            for stage in [BuildStage::BeforeTask, BuildStage::WithTask] {
                let got = TaskEnd::Failed(side, stage).consequences().controller;
                let is_abort = got == ControllerGets::Abort;
                assert_eq!(
                    is_abort,
                    stage == BuildStage::WithTask,
                    "{side:?} {stage:?}"
                );
            }
        }
    }
}
