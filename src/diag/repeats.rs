//! Recent records, so that a repeated one is not written each time.
//!
//! An hour after it was last said, a record that keeps coming is said again
//! with the number of times; one that has not come for an hour is news again.

use std::time::{Duration, Instant};

use super::Severity;

/// How long saying something holds.
const HOLDS: Duration = Duration::from_secs(60 * 60);

/// How many different records are remembered. A flood of different ones makes
/// the oldest be forgotten, and at worst be said again.
const MOST: usize = 64;

/// A record that was said.
#[derive(Debug)]
pub(super) struct Repeat {
    pub(super) severity: Severity,
    pub(super) scope: Option<String>,
    pub(super) line: String,
    /// How often it came since it was last said.
    pub(super) untold: u64,
    said: Instant,
    came: Instant,
}

/// The decision about a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Say it.
    First,
    /// Say that it came so many more times.
    Again(u64),
    /// Say nothing.
    Counted,
}

/// The records that were said lately.
#[derive(Debug)]
pub(super) struct Repeats(Vec<Repeat>);

impl Repeats {
    pub(super) const fn new() -> Repeats {
        Repeats(Vec::new())
    }

    /// Takes note of a record that is about to be said.
    pub(super) fn said(
        &mut self,
        severity: Severity,
        scope: Option<&str>,
        line: &str,
        now: Instant,
    ) -> Verdict {
        self.0
            .retain(|repeat| now.saturating_duration_since(repeat.came) < HOLDS);
        let known = self.0.iter_mut().find(|repeat| {
            repeat.severity == severity && repeat.scope.as_deref() == scope && repeat.line == line
        });
        if let Some(repeat) = known {
            repeat.came = now;
            repeat.untold += 1;
            if now.saturating_duration_since(repeat.said) < HOLDS {
                return Verdict::Counted;
            }
            repeat.said = now;
            return Verdict::Again(std::mem::take(&mut repeat.untold));
        }
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push(Repeat {
            severity,
            scope: scope.map(str::to_owned),
            line: line.to_owned(),
            untold: 0,
            said: now,
            came: now,
        });
        Verdict::First
    }

    /// Forgets those that are `wanted` and returns them.
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
    fn what_keeps_coming_is_said_once_an_hour_with_its_number() {
        let start = Instant::now();
        let mut repeats = Repeats::new();
        let mut said = Vec::new();
        for minute in 0..130 {
            let now = start + minutes(minute);
            match repeats.said(Severity::Error, None, "controller down", now) {
                Verdict::Counted => {}
                verdict => said.push((minute, verdict)),
            }
        }
        assert_eq!(
            said,
            [
                (0, Verdict::First),
                (60, Verdict::Again(60)),
                (120, Verdict::Again(60))
            ]
        );
        let left = repeats.take(|_| true);
        assert_eq!(left[0].untold, 9);
    }

    #[test]
    fn what_was_over_for_an_hour_is_news() {
        let start = Instant::now();
        let mut repeats = Repeats::new();
        let mut say = |minute| repeats.said(Severity::Error, None, "x", start + minutes(minute));
        assert_eq!(say(0), Verdict::First);
        assert_eq!(say(5), Verdict::Counted);
        assert_eq!(say(65), Verdict::First);
    }

    #[test]
    fn another_task_or_severity_is_another_record() {
        let now = Instant::now();
        let mut repeats = Repeats::new();
        for (severity, scope) in [
            (Severity::Error, None),
            (Severity::Warning, None),
            (Severity::Error, Some("a/1 on m")),
            (Severity::Error, Some("b/1 on m")),
        ] {
            assert_eq!(repeats.said(severity, scope, "x", now), Verdict::First);
        }
        assert_eq!(
            repeats.said(Severity::Error, None, "x", now),
            Verdict::Counted
        );
    }

    #[test]
    fn a_flood_of_different_records_is_bounded() {
        let now = Instant::now();
        let mut repeats = Repeats::new();
        for i in 0..1000 {
            repeats.said(Severity::Warning, None, &i.to_string(), now);
        }
        assert_eq!(repeats.0.len(), MOST);
    }
}
