//! Pauses after failures: of machines that are not offered, and templates that are not
//! made. Each turn of an agent with `--once` is a process of its own, so that pauses can
//! be kept in a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::delivery::BootFile;
use crate::json::Value;

/// Pauses by the name of what has failed; each further failure doubles the pause.
#[derive(Debug)]
pub(super) struct Pauses {
    /// The back-off of a name without a failure.
    start: Backoff,
    pauses: BTreeMap<String, Pause>,
    /// The file that keeps them, if any.
    kept: Option<BootFile>,
}

/// The pause of a name.
#[derive(Debug)]
struct Pause {
    /// The revision that has failed. Another one has no pause.
    id: String,
    /// The end, in time since the start of the host.
    until: Duration,
    backoff: Backoff,
}

impl Pauses {
    /// No pauses yet. The first one of a name is `first`, the longest one `longest`.
    pub(super) fn new(first: Duration, longest: Duration) -> Pauses {
        Pauses {
            start: Backoff::new(first, longest),
            pauses: BTreeMap::new(),
            kept: None,
        }
    }

    /// Keeps the pauses in the file at `path`, and reads those of former agents from it.
    pub(super) fn keep(&mut self, path: PathBuf) {
        let (file, kept) = BootFile::open(path);
        let machines = kept
            .as_ref()
            .and_then(|kept| kept.get("machines")?.as_array());
        let machines = machines.unwrap_or_default().iter();
        self.pauses = machines.filter_map(|value| self.read(value)).collect();
        self.kept = Some(file);
    }

    fn read(&self, value: &Value) -> Option<(String, Pause)> {
        let text = |name| value.get(name).and_then(Value::as_str);
        let number = |name| value.get(name).and_then(Value::as_u64);
        let pause = Pause {
            id: text("id")?.to_owned(),
            until: Duration::from_secs(number("until")?),
            backoff: self.start.after(u32::try_from(number("failures")?).ok()?),
        };
        Some((text("machine")?.to_owned(), pause))
    }

    /// The rest of a pause at `now`.
    pub(super) fn left(&self, name: &str, id: &str, now: Duration) -> Option<Duration> {
        let pause = self.pauses.get(name).filter(|pause| pause.id == id)?;
        pause.until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Whether a failure of the name is remembered.
    pub(super) fn has(&self, name: &str, id: &str) -> bool {
        self.pauses.get(name).is_some_and(|pause| pause.id == id)
    }

    /// Counts a failure at `now`, and returns the pause after it.
    pub(super) fn add(&mut self, name: &str, id: &str, now: Duration) -> Duration {
        let backoff = self.start;
        let new = || Pause {
            id: id.to_owned(),
            until: now,
            backoff,
        };
        let pause = self.pauses.entry(name.to_owned()).or_insert_with(new);
        if pause.id != id {
            *pause = new();
        }
        let length = pause.backoff.failed();
        pause.until = now + length;
        self.save();
        length
    }

    /// Forgets the failures of names whose pauses ended longer than `age` before `now`.
    pub(super) fn expire(&mut self, age: Duration, now: Duration) {
        self.pauses
            .retain(|_, pause| now < pause.until.saturating_add(age));
    }

    /// Forgets the failures of a name.
    pub(super) fn remove(&mut self, name: &str) {
        self.pauses.remove(name);
        self.save();
    }

    /// Forgets all failures.
    pub(super) fn clear(&mut self) {
        self.pauses.clear();
        self.save();
    }

    /// Writes the file, if its contents have changed.
    fn save(&mut self) {
        let Some(file) = &mut self.kept else { return };
        let pauses = self.pauses.iter().map(|(name, pause)| {
            Value::object([
                ("machine", Value::from(name.as_str())),
                ("id", pause.id.as_str().into()),
                ("until", pause.until.as_secs().into()),
                ("failures", u64::from(pause.backoff.failures()).into()),
            ])
        });
        file.write(match self.pauses.is_empty() {
            true => Vec::new(),
            false => vec![("machines", Value::Array(pauses.collect()))],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn pauses_grow_to_the_longest_and_end_with_a_new_revision() {
        let mut pauses = Pauses::new(MINUTE, HOUR);
        let mut now = Duration::from_secs(1000);
        assert_eq!(pauses.left("m", "m-1.0", now), None);
        let mut all = Vec::new();
        for _ in 0..8 {
            let pause = pauses.add("m", "m-1.0", now);
            assert_eq!(pauses.left("m", "m-1.0", now), Some(pause));
            all.push(pause.as_secs());
            now += pause;
            assert_eq!(pauses.left("m", "m-1.0", now), None);
        }
        assert_eq!(all, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        pauses.add("m", "m-1.0", now);
        assert_eq!(pauses.left("m", "m-1.1", now), None);
        assert_eq!(pauses.left("n", "m-1.0", now), None);
        pauses.clear();
        assert_eq!(pauses.left("m", "m-1.0", now), None);
    }

    #[test]
    fn pauses_that_have_expired_start_over() {
        let mut pauses = Pauses::new(MINUTE, HOUR);
        let mut now = Duration::from_secs(1000);
        for _ in 0..3 {
            pauses.expire(HOUR, now);
            assert_eq!(pauses.add("m", "m-1.0", now), MINUTE);
            now += Duration::from_secs(86_400);
        }
        pauses.add("m", "m-1.0", now);
        pauses.expire(HOUR, now);
        assert!(pauses.left("m", "m-1.0", now) > Some(MINUTE));
    }
}
