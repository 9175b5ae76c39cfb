//! Broken machines: each is reported once per change, and bootstrapped again after
//! growing pauses.
//!
//! The state can be kept in a file, for agents that make one turn for each start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::json::Value;

/// The first and the longest pause after failed bootstraps.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The name of the file of the state, in an agent's directory below `--state`.
pub const FAILED_BOOTSTRAPS: &str = "bootstraps";

/// How many reasons are remembered for a revision.
const MAX_REASONS: usize = 16;

/// The broken machines of the last enumeration, by directory.
#[derive(Debug, Default)]
pub struct BootstrapBackoff(HashMap<PathBuf, BrokenMachine>);

#[derive(Debug, Default)]
struct BrokenMachine {
    /// The last report.
    reported: String,
    failed: Option<FailedBootstrap>,
    /// Seen in the current enumeration.
    is_current: bool,
}

#[derive(Debug)]
struct FailedBootstrap {
    /// Another revision is tried at once.
    revision: PathBuf,
    /// Up to [`MAX_REASONS`] different ones.
    reasons: Vec<String>,
    backoff: Backoff,
    retry: Duration,
}

impl BootstrapBackoff {
    fn current(&mut self, machine: &Path) -> &mut BrokenMachine {
        let broken = self.0.entry(machine.to_owned()).or_default();
        broken.is_current = true;
        broken
    }

    /// Notes a report, and returns whether it differs from the last one.
    pub fn is_news(&mut self, machine: &Path, text: &str) -> bool {
        let broken = self.current(machine);
        let is_news = broken.reported != text;
        text.clone_into(&mut broken.reported);
        is_news
    }

    /// Notes that a bootstrap from `revision` failed at `now`, and returns the pause
    /// before the next attempt.
    pub fn failed(
        &mut self,
        machine: &Path,
        revision: &Path,
        reason: String,
        now: Duration,
    ) -> Duration {
        let failed = &mut self.current(machine).failed;
        let former = failed.take().filter(|failed| failed.revision == revision);
        let failed = failed.insert(former.unwrap_or_else(|| FailedBootstrap {
            revision: revision.to_owned(),
            reasons: Vec::new(),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            retry: now,
        }));
        if !failed.reasons.contains(&reason) && failed.reasons.len() < MAX_REASONS {
            failed.reasons.push(reason);
        }
        let pause = failed.backoff.failed();
        failed.retry = now + pause;
        pause
    }

    fn of(&self, machine: &Path, revision: &Path) -> Option<&FailedBootstrap> {
        let failed = self.0.get(machine)?.failed.as_ref()?;
        (failed.revision == revision).then_some(failed)
    }

    /// Whether a bootstrap from `revision` is not to be tried at `now`.
    pub fn is_resting(&mut self, machine: &Path, revision: &Path, now: Duration) -> bool {
        let failed = self.of(machine, revision);
        let is_resting = failed.is_some_and(|failed| now < failed.retry);
        if is_resting {
            self.current(machine);
        }
        is_resting
    }

    /// The reasons of the failures with `revision`.
    pub fn reasons(&self, machine: &Path, revision: &Path) -> &[String] {
        self.of(machine, revision)
            .map_or(&[], |failed| &failed.reasons)
    }

    /// The time from which a bootstrap from `revision` may be tried; zero if none has
    /// failed.
    pub fn retry_time(&self, machine: &Path, revision: &Path) -> Duration {
        self.of(machine, revision)
            .map_or(Duration::ZERO, |failed| failed.retry)
    }

    /// Keeps what is known about a machine that is not tried in this enumeration.
    pub fn keep(&mut self, machine: &Path) {
        if let Some(broken) = self.0.get_mut(machine) {
            broken.is_current = true;
        }
    }

    /// Makes the next report of each machine news.
    pub fn repeat_reports(&mut self) {
        for broken in self.0.values_mut() {
            broken.reported.clear();
        }
    }

    /// Whether there is no broken machine.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The state, for [`BootstrapBackoff::from_json`].
    pub fn to_json(&self) -> Value {
        let text = |path: &Path| Value::from(path.to_string_lossy().into_owned());
        let mut machines: Vec<_> = self.0.iter().collect();
        machines.sort_by_key(|(machine, _)| *machine);
        let machines = machines.into_iter().map(|(machine, broken)| {
            let mut members = vec![
                ("machine", text(machine)),
                ("reported", Value::from(broken.reported.as_str())),
            ];
            if let Some(failed) = &broken.failed {
                let reasons = failed
                    .reasons
                    .iter()
                    .map(|reason| Value::from(reason.as_str()));
                members.extend([
                    ("revision", text(&failed.revision)),
                    ("reasons", Value::Array(reasons.collect())),
                    ("failures", u64::from(failed.backoff.failures()).into()),
                    ("retry", failed.retry.as_secs().into()),
                ]);
            }
            Value::object(members)
        });
        Value::Array(machines.collect())
    }

    /// Reads a state. Parts that cannot be read are left out.
    pub fn from_json(value: &Value) -> BootstrapBackoff {
        let machine = |value: &Value| {
            let text = |name| value.get(name).and_then(Value::as_str);
            let number = |name| value.get(name).and_then(Value::as_u64);
            let failed = || {
                let reasons = value.get("reasons")?.as_array()?.iter();
                let reasons = reasons.filter_map(Value::as_str).map(str::to_owned);
                let failures = u32::try_from(number("failures")?).ok()?;
                Some(FailedBootstrap {
                    revision: text("revision")?.into(),
                    reasons: reasons.take(MAX_REASONS).collect(),
                    backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE).after(failures),
                    retry: Duration::from_secs(number("retry")?),
                })
            };
            let broken = BrokenMachine {
                reported: text("reported")?.to_owned(),
                failed: failed(),
                is_current: false,
            };
            Some((text("machine")?.into(), broken))
        };
        let machines = value.as_array().unwrap_or_default().iter();
        BootstrapBackoff(machines.filter_map(machine).collect())
    }

    /// Ends all pauses.
    pub fn retry(&mut self) {
        for failed in self
            .0
            .values_mut()
            .filter_map(|broken| broken.failed.as_mut())
        {
            failed.backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            failed.retry = Duration::ZERO;
        }
    }

    /// Forgets machines that were not broken in this enumeration, so that the same
    /// report is news again later.
    pub fn end_enumeration(&mut self) {
        self.0
            .retain(|_, broken| std::mem::take(&mut broken.is_current));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_news_until_the_machine_is_not_broken_any_more() {
        let mut backoff = BootstrapBackoff::default();
        let m = Path::new("/m");
        assert!(backoff.is_news(m, "a"));
        backoff.end_enumeration();
        assert!(!backoff.is_news(m, "a"));
        assert!(backoff.is_news(m, "b"));
        backoff.end_enumeration();
        backoff.end_enumeration();
        assert!(backoff.is_news(m, "b"));
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_a_new_revision_starts_over() {
        let mut backoff = BootstrapBackoff::default();
        let now = Duration::from_secs(1_000_000);
        let (m, r1, r2) = (Path::new("/m"), Path::new("/m/1"), Path::new("/m/2"));
        let pauses: Vec<_> = (0..8)
            .map(|_| backoff.failed(m, r1, "x".to_owned(), now).as_secs())
            .collect();
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert!(backoff.is_resting(m, r1, now));
        assert!(!backoff.is_resting(m, r1, now + LONGEST_PAUSE));
        assert!(!backoff.is_resting(m, r2, now));
        assert_eq!(backoff.reasons(m, r1), ["x"]);
        assert!(backoff.reasons(m, r2).is_empty());
        assert_eq!(backoff.failed(m, r2, "x".to_owned(), now).as_secs(), 60);
        backoff.retry();
        assert!(!backoff.is_resting(m, r2, now));
    }
}
