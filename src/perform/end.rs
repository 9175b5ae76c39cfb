//! How a build has ended, and what is left of it.

use std::path::PathBuf;

use super::auxiliary::BootedGuest;
use crate::error::Result;
use crate::guest::Directory;
use crate::manifest::ResultManifest;

/// The end of a build.
#[derive(Debug)]
pub struct Performed<G> {
    /// Its result or failure.
    pub end: BuildEnd,
    /// The archive of artifacts.
    pub artifacts: Option<Artifacts>,
    /// The guest and its snapshot. Removing them takes far longer than delivering
    /// the result, and a failed guest may be held for hours, so both are done
    /// afterwards.
    pub guest: Option<G>,
}

/// The result or failure of a build.
#[derive(Debug)]
pub enum BuildEnd {
    /// The worker's result.
    Result(ResultManifest),
    /// No result, and a failure that was reported.
    Failed(BuildFailure),
    /// The agent was told to stop.
    Stopped,
    /// This agent has a task of higher priority. There is room for its guest when this
    /// one is closed.
    Interrupted(String),
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildFailure {
    /// The side that failed.
    pub side: FailedSide,
    /// How far the build had come.
    pub stage: BuildStage,
    /// The reason, as a clause.
    pub why: String,
    /// The auxiliary machine that failed.
    pub auxiliary: Option<String>,
}

/// The side that a failure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSide {
    /// The host: its disk, QEMU. The package may be the reason.
    Host,
    /// The host lost what guests need, its bridge for instance. The package is not the
    /// reason.
    Surroundings,
    /// The guest: it did not boot, crashed, or took too long.
    Guest,
}

/// How far a build has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStage {
    /// The worker has not asked for its task: nothing of the package has run.
    BeforeTask,
    /// The worker has its task.
    WithTask,
}

/// The guests of a build that has ended, and their snapshots; removed when this goes.
#[derive(Debug)]
pub struct Remains<'w> {
    /// The guest of the build, or the one that failed.
    pub(super) last: BootedGuest<'w>,
    pub(super) others: Vec<BootedGuest<'w>>,
    /// Whether the one that failed is to be held.
    pub(super) holds: bool,
}

/// A guest whose build has ended.
pub trait HeldGuest {
    /// Stores the evidence of a failed guest and its state, and waits until its hold is over, if it is
    /// to be held at all.
    fn hold(&mut self) -> Result<()>;

    /// The most memory that QEMU had at any time, in bytes, if that is known.
    fn memory_peak(&self) -> Option<u64>;

    /// Removes all that was made for the guest. Returns the first error; the rest is
    /// removed all the same.
    fn close(self) -> Result<()>;
}

impl<'w> Remains<'w> {
    /// Unless the failed guest is to be held, the guests have time to end while the
    /// result is on its way.
    pub(super) fn new(
        mut last: BootedGuest<'w>,
        mut others: Vec<BootedGuest<'w>>,
        holds: bool,
    ) -> Remains<'w> {
        for booted in &mut others {
            booted.guest.quit();
        }
        if !holds {
            last.guest.quit();
        }
        Remains {
            last,
            others,
            holds,
        }
    }
}

impl HeldGuest for Remains<'_> {
    fn hold(&mut self) -> Result<()> {
        self.last.guest.keep_all();
        match std::mem::take(&mut self.holds) {
            true => self.last.guest.hold(),
            false => Ok(()),
        }
    }

    fn memory_peak(&self) -> Option<u64> {
        self.last.guest.memory_peak()
    }

    fn close(self) -> Result<()> {
        let mut closed = Ok(());
        for booted in self.others {
            closed = closed.and(booted.close());
        }
        // It tells the agent for whose task it has ended that there is room.
        closed.and(self.last.close())
    }
}

/// An archive that the worker uploaded; it goes with this value.
#[derive(Debug)]
pub struct Artifacts {
    /// The tar archive.
    pub path: PathBuf,
    pub(super) _directory: Directory,
}

impl<G> Performed<G> {
    /// The end of a build of which nothing is left.
    pub fn of(end: BuildEnd) -> Performed<G> {
        Performed {
            end,
            artifacts: None,
            guest: None,
        }
    }
}
