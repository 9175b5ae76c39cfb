//! The evidence of a failed guest: begun when the failure is reported, and completed
//! when the result is on its way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::keep_state::SavedState;
use super::reboots::Reboots;
use super::{Ended, Guest, GuestRun, GuestSettings};
use crate::diag::{self, Record};
use crate::error::{Error, Result};
use crate::evidence::{Evidence, EvidenceFile, EvidenceStore, SUMMARY, date};
use crate::json::Value;
use crate::machine::{Purpose, Spec, VirtualMachine, inspect};
use crate::manifest::Style;
use crate::status::Moment;
use crate::watch;

/// The time for QEMU to answer questions about a failed guest.
const INSPECTION_TIME: Duration = Duration::from_secs(2);

/// The facts of a guest that its evidence has besides the failure.
#[derive(Debug)]
pub(super) struct GuestProfile {
    machine: String,
    copy: PathBuf,
    source: PathBuf,
    purpose: Purpose,
    task: Option<String>,
    accel: String,
    pub(super) cpus: u32,
    pub(super) ram_kb: u64,
    pub(super) reboots: Reboots,
    started: Moment,
}

/// Evidence that is begun.
#[derive(Debug)]
pub(super) struct PendingEvidence {
    evidence: Evidence,
    summary: Vec<(&'static str, Value)>,
    /// QEMU is to quit when the evidence is stored.
    pub(super) quits: bool,
}

impl GuestProfile {
    pub(super) fn new(config: &GuestSettings, run: &GuestRun<'_>) -> GuestProfile {
        GuestProfile {
            machine: run.machine.name().to_owned(),
            copy: run.label.to_owned(),
            source: run.source.to_owned(),
            purpose: run.purpose,
            task: run
                .task
                .and_then(|task| task.to_text(Style::default()).ok()),
            accel: config.accel.to_string(),
            cpus: config.cpus,
            ram_kb: config.ram_kb,
            reboots: Reboots::new(run.purpose),
            started: watch::moment(),
        }
    }

    fn summary(&self, what: &str, reason: &str, now: Moment) -> Vec<(&'static str, Value)> {
        let path = |path: &Path| Value::from(path.display().to_string());
        let scope = diag::scope();
        let task = scope.as_ref().map(|scope| scope.package.clone());
        let session = scope.map(|scope| scope.session);
        let age = now.monotonic.saturating_sub(self.started.monotonic);
        vec![
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("time", date(now.wall).into()),
            ("machine", self.machine.as_str().into()),
            ("task", task.into()),
            ("session", session.into()),
            ("what", what.into()),
            ("reason", reason.into()),
            (
                "purpose",
                match self.purpose {
                    Purpose::Bootstrap { .. } => "bootstrap",
                    Purpose::Build => "build",
                }
                .into(),
            ),
            ("copy", path(&self.copy)),
            ("source", path(&self.source)),
            ("accel", self.accel.as_str().into()),
            ("cpus", u64::from(self.cpus).into()),
            ("ram_kb", self.ram_kb.into()),
            ("reboots", u64::from(self.reboots.count).into()),
            ("started", date(self.started.wall).into()),
            ("seconds", age.as_secs().into()),
        ]
    }

    /// The files that do not depend on the machine.
    fn files(&self, now: Instant) -> Vec<EvidenceFile> {
        let mut files = vec![("agent.txt", diag::recent(now).into_bytes())];
        let task = self.task.as_ref();
        files.extend(task.map(|task| ("task.manifest", task.clone().into_bytes())));
        files
    }

    /// Keeps the evidence of a machine that did not start, and names it in the error.
    pub(super) fn keep_start(self, evidence: &EvidenceStore, spec: &Spec, error: Error) -> Error {
        let now = watch::moment();
        let Some(evidence) = evidence.begin(&self.machine, now.wall) else {
            return error;
        };
        let mut summary = self.summary("start failure", &error.to_string(), now);
        summary.push(("host_fault", true.into()));
        summary.push(("advice", lines(error.hints())));
        let pending = PendingEvidence {
            evidence,
            summary,
            quits: false,
        };
        let error = error.hint(place(pending.evidence.path()));
        let mut files = self.files(now.instant);
        files.push(inspect::start_script(spec));
        pending.publish(files, None);
        error
    }
}

impl PendingEvidence {
    fn publish(mut self, mut files: Vec<EvidenceFile>, state: Option<SavedState>) {
        if let Some(state) = &state {
            self.summary.push(state.summary());
            files.push(state.file.clone());
        }
        let names = lines(files.iter().map(|(name, _)| *name));
        self.summary.push(("files", names));
        let text = format!("{}\n", Value::object(self.summary));
        files.push((SUMMARY, text.into_bytes()));
        let path = self.evidence.path().to_owned();
        let link = state.as_ref().map(|state| state.snapshot.path());
        if self.evidence.publish(&files, link)
            && let Some(state) = state
        {
            state.leave(&path);
        }
    }
}

fn place(path: &Path) -> String {
    format!("{}{}", diag::EVIDENCE, path.display())
}

fn lines<T: Into<String>>(lines: impl Iterator<Item = T>) -> Value {
    Value::Array(lines.map(|line| line.into().into()).collect())
}

impl Guest<'_> {
    /// Begins the evidence of a failure, suspends the guest and asks QEMU for its state.
    /// Returns where the evidence is to be.
    fn begin_evidence(
        &mut self,
        what: &str,
        reason: &str,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Option<PathBuf> {
        let now = watch::moment();
        let evidence = self.evidence.begin(&self.profile.machine, now.wall)?;
        let path = evidence.path().to_owned();
        let mut summary = self.profile.summary(what, reason, now);
        summary.push(("refused", lines(self.refusals.lines())));
        summary.extend(more);
        self.machine.inspect(now.instant);
        self.pending = Some(PendingEvidence {
            evidence,
            summary,
            quits: false,
        });
        Some(path)
    }

    fn begin_evidence_of(&mut self, what: &str, ended: &Ended) -> Option<PathBuf> {
        let more = [
            ("host_fault", ended.is_host_fault().into()),
            ("phase", ended.phase.to_string().into()),
            ("phase_seconds", ended.elapsed.as_secs().into()),
            ("phase_limit", ended.limit.as_secs().into()),
        ];
        self.begin_evidence(what, &ended.to_string(), more)
    }

    /// Begins the evidence of a phase that ended. Returns `record` with the place.
    pub(super) fn note_evidence(&mut self, what: &str, ended: &Ended, record: Record) -> Record {
        let Some(path) = self.begin_evidence_of(what, ended) else {
            return record;
        };
        record.evidence(path.display())
    }

    /// Collects the answers of QEMU, for 2 s at most, and stores the evidence that was
    /// begun. Evidence that cannot be stored is reported, and is no error.
    pub fn keep_evidence(&mut self) {
        self.recorded = None;
        self.keep_all();
    }

    /// The same, with the state of the guest if that is to be kept, which takes as long as
    /// its memory takes to be written.
    pub fn keep_all(&mut self) {
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        let deadline = watch::moment().instant + INSPECTION_TIME;
        diag::report(self.attend(Some(deadline), VirtualMachine::is_inspected));
        let (mut files, mut missing) = self.machine.findings();
        let state = self.save_state(pending.evidence.path(), &mut missing);
        let exited = self.machine.exited().map(|status| status.to_string());
        pending.summary.extend([
            (
                "qemu",
                exited.unwrap_or_else(|| "running".to_owned()).into(),
            ),
            ("console_bytes", self.machine.console_bytes().into()),
            ("memory_peak_bytes", self.machine.memory_peak().into()),
            ("missing", lines(missing.into_iter())),
        ]);
        files.extend(self.profile.files(watch::moment().instant));
        let quits = pending.quits;
        pending.publish(files, state);
        if quits {
            self.quit();
        }
    }

    /// Reports the failure of an attempt that is made again, and keeps its evidence.
    pub fn report_attempt(&mut self, what: &str, ended: &Ended, warning: Record) {
        self.note_evidence(what, ended, warning).emit();
        self.keep_evidence();
    }

    /// Keeps the evidence of a phase that ended. Returns the end as an error with the
    /// place.
    pub fn failure(&mut self, what: &str, ended: &Ended) -> Error {
        let error = Error::new(ended.to_string());
        let Some(path) = self.begin_evidence_of(what, ended) else {
            return error;
        };
        self.keep_evidence();
        error.hint(place(&path))
    }

    /// If `result` is an error, which is one of the host, keeps evidence of the guest and
    /// adds its place to the error.
    pub fn with_evidence<T>(&mut self, what: &str, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let more = [("host_fault", true.into())];
            let Some(path) = self.begin_evidence(what, &error.to_string(), more) else {
                return error;
            };
            self.keep_evidence();
            error.hint(place(&path))
        })
    }
}
