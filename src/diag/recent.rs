//! The agent's last records, for the evidence of a failed guest.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Instant;

/// The size of the records that are kept, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The last records.
#[derive(Debug)]
pub(super) struct RecentRecords {
    records: VecDeque<(Instant, String)>,
    bytes: usize,
}

impl RecentRecords {
    pub(super) const fn new() -> RecentRecords {
        RecentRecords {
            records: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Adds a record of `now`. The oldest ones go.
    pub(super) fn push(&mut self, now: Instant, record: String) {
        if record.len() > MAX_BYTES {
            return;
        }
        self.bytes += record.len();
        self.records.push_back((now, record));
        while self.bytes > MAX_BYTES
            && let Some((_, oldest)) = self.records.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// The records, each with its age in seconds at `now`.
    pub(super) fn text(&self, now: Instant) -> String {
        let mut text = String::new();
        for (time, record) in &self.records {
            let age = now.saturating_duration_since(*time).as_secs_f64();
            // Writing to a String does not fail.
            let _ = write!(text, "-{age:.3} {record}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_records_are_kept_with_their_age() {
        let start = Instant::now();
        let mut recent = RecentRecords::new();
        recent.push(start, "x".repeat(MAX_BYTES + 1));
        for i in 0..10_000 {
            recent.push(start + Duration::from_millis(i), format!("info: {i}\n"));
        }
        let text = recent.text(start + Duration::from_millis(10_000));
        assert!(text.ends_with("-0.002 info: 9998\n-0.001 info: 9999\n"));
        assert!(recent.bytes <= MAX_BYTES && recent.bytes > MAX_BYTES - 20);
        assert!(recent.records.len() < 10_000);
    }
}
