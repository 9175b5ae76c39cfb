//! How long each part of a task took.

use std::fmt;
use std::time::{Duration, Instant};

/// A time that would be shown as 0.0s.
const BRIEF: Duration = Duration::from_millis(50);

/// A stopwatch with laps: `snapshot 0.1s, boot 3.4s, work 12m03s`.
#[derive(Clone, Debug)]
pub struct Laps {
    start: Instant,
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Laps {
    /// Starts the watch.
    pub fn start(now: Instant) -> Laps {
        Laps {
            start: now,
            last: now,
            laps: Vec::new(),
        }
    }

    /// Names the time since the last lap. Laps of one name add up, for instance those
    /// of retries.
    pub fn lap(&mut self, name: &'static str, now: Instant) {
        let length = now.saturating_duration_since(self.last);
        self.last = now;
        match self.laps.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += length,
            None => self.laps.push((name, length)),
        }
    }

    /// The same, but a time that would be shown as 0.0s is added to the next lap.
    pub fn lap_unless_brief(&mut self, name: &'static str, now: Instant) {
        if now.saturating_duration_since(self.last) >= BRIEF {
            self.lap(name, now);
        }
    }

    /// From the start to the last lap.
    pub fn total(&self) -> Duration {
        self.last.saturating_duration_since(self.start)
    }
}

impl fmt::Display for Laps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, length)) in self.laps.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if length.as_secs() < 60 {
                write!(f, "{name} {:.1}s", length.as_secs_f64())?;
            } else {
                write!(f, "{name} {}", super::human(*length))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_of_one_name_add_up() {
        let start = Instant::now();
        let mut laps = Laps::start(start);
        for (name, at) in [
            ("snapshot", 30),
            ("boot", 4030),
            ("snapshot", 4100),
            ("work", 727_000),
        ] {
            laps.lap(name, start + Duration::from_millis(at));
        }
        assert_eq!(laps.to_string(), "snapshot 0.1s, boot 4.0s, work 12m02s");
        assert_eq!(laps.total(), Duration::from_secs(727));
        laps.lap_unless_brief("hold", start + Duration::from_millis(727_010));
        laps.lap("upload", start + Duration::from_millis(727_100));
        assert!(laps.to_string().ends_with("work 12m02s, upload 0.1s"));
        laps.lap_unless_brief("hold", start + Duration::from_secs(730));
        assert!(laps.to_string().ends_with("upload 0.1s, hold 2.9s"));
    }
}
