//! Recent records, so that a repeated one is not written each time.
//!
//! An hour after it was written, a record that keeps coming is written again with the
//! number of times. After an hour without it, it is new again.

use std::time::{Duration, Instant};

use super::TaskScope;
use super::record::Severity;

/// The minimum time between two reports of one record.
const REPORT_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The number of records that are remembered. Beyond it the oldest one is forgotten,
/// and may be written again.
const MAX_RECORDS: usize = 64;

/// A record that was written.
#[derive(Debug)]
pub(super) struct Repeat {
    pub(super) severity: Severity,
    pub(super) scope: Option<TaskScope>,
    pub(super) line: String,
    /// The number of times since it was last written.
    skipped: u64,
    written: Instant,
    last: Instant,
}

impl Repeat {
    /// The line with the number of times that it was not written, and the age of the last
    /// one: what it says may be over.
    pub(super) fn summary(&self, now: Instant) -> Option<String> {
        let (line, age) = (&self.line, now.saturating_duration_since(self.last));
        let age = age.as_secs();
        match self.skipped {
            0 => None,
            1 => Some(format!("{line} (reported once more, {age} s ago)")),
            n => Some(format!(
                "{line} (reported {n} more times until {age} s ago)"
            )),
        }
    }
}

/// The decision about a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RepeatDecision {
    /// It is written.
    Write,
    /// It is written with the number of times that it was not.
    WriteCount(u64),
    /// It is counted only.
    Skip,
}

/// The records of the last hour.
#[derive(Debug)]
pub(super) struct Repeats(Vec<Repeat>);

impl Repeats {
    pub(super) const fn new() -> Repeats {
        Repeats(Vec::new())
    }

    /// Counts a record, and decides whether it is written.
    pub(super) fn note(
        &mut self,
        severity: Severity,
        scope: Option<&TaskScope>,
        line: &str,
        now: Instant,
    ) -> RepeatDecision {
        self.0
            .retain(|repeat| now.saturating_duration_since(repeat.last) < REPORT_INTERVAL);
        let known = self.0.iter_mut().find(|repeat| {
            repeat.severity == severity && repeat.scope.as_ref() == scope && repeat.line == line
        });
        if let Some(repeat) = known {
            repeat.last = now;
            repeat.skipped += 1;
            if now.saturating_duration_since(repeat.written) < REPORT_INTERVAL {
                return RepeatDecision::Skip;
            }
            repeat.written = now;
            return RepeatDecision::WriteCount(std::mem::take(&mut repeat.skipped));
        }
        if self.0.len() == MAX_RECORDS {
            self.0.remove(0);
        }
        self.0.push(Repeat {
            severity,
            scope: scope.cloned(),
            line: line.to_owned(),
            skipped: 0,
            written: now,
            last: now,
        });
        RepeatDecision::Write
    }

    /// Removes the records that are `wanted`, and returns them.
    pub(super) fn take(&mut self, wanted: impl Fn(&Repeat) -> bool) -> Vec<Repeat> {
        self.0.extract_if(.., |repeat| wanted(repeat)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn a_repeated_record_is_written_once_an_hour_with_its_number() {
        let start = Instant::now();
        let mut repeats = Repeats::new();
        let mut written = Vec::new();
        for minute in 0..130 {
            let now = start + minutes(minute);
            match repeats.note(Severity::Error, None, "controller down", now) {
                RepeatDecision::Skip => {}
                decision => written.push((minute, decision)),
            }
        }
        assert_eq!(
            written,
            [
                (0, RepeatDecision::Write),
                (60, RepeatDecision::WriteCount(60)),
                (120, RepeatDecision::WriteCount(60))
            ]
        );
        let left = repeats.take(|_| true);
        let now = start + minutes(130);
        let said = "controller down (reported 9 more times until 60 s ago)";
        assert_eq!(left[0].summary(now).unwrap(), said);
    }

    #[test]
    fn after_an_hour_without_it_a_record_is_new() {
        let start = Instant::now();
        let mut repeats = Repeats::new();
        let mut say = |minute| repeats.note(Severity::Error, None, "x", start + minutes(minute));
        assert_eq!(say(0), RepeatDecision::Write);
        assert_eq!(say(5), RepeatDecision::Skip);
        assert_eq!(say(65), RepeatDecision::Write);
    }

    #[test]
    fn another_task_or_severity_is_another_record() {
        let now = Instant::now();
        let mut repeats = Repeats::new();
        for (severity, scope) in [
            (Severity::Error, None),
            (Severity::Warning, None),
            (Severity::Error, Some("a/1")),
            (Severity::Error, Some("b/1")),
        ] {
            let scope = scope.map(|package| TaskScope {
                package: package.to_owned(),
                machine: "m".to_owned(),
                session: "s".to_owned(),
            });
            let decision = repeats.note(severity, scope.as_ref(), "x", now);
            assert_eq!(decision, RepeatDecision::Write);
        }
        assert_eq!(
            repeats.note(Severity::Error, None, "x", now),
            RepeatDecision::Skip
        );
    }

    #[test]
    fn a_flood_of_different_records_is_bounded() {
        let now = Instant::now();
        let mut repeats = Repeats::new();
        for i in 0..1000 {
            repeats.note(Severity::Warning, None, &i.to_string(), now);
        }
        assert_eq!(repeats.0.len(), MAX_RECORDS);
    }
}
