//! Failures of machines: each is reported once per change, and the machine tried
//! again after growing pauses.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The first pause after a failed bootstrap; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(60);
/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(3600);

/// Per machine directory: the last complaint, and when to try again.
#[derive(Debug, Default)]
pub struct Troubles(HashMap<PathBuf, Trouble>);

#[derive(Debug)]
struct Trouble {
    text: String,
    failures: u32,
    /// The revision that failed: another one is tried at once.
    revision: Option<PathBuf>,
    retry: Option<Instant>,
    /// Seen in the current enumeration.
    current: bool,
}

impl Troubles {
    /// Notes a complaint; true if it is news.
    pub fn complain(&mut self, machine: &Path, text: &str) -> bool {
        match self.0.get_mut(machine) {
            Some(trouble) => {
                trouble.current = true;
                let news = trouble.text != text;
                if news {
                    text.clone_into(&mut trouble.text);
                }
                news
            }
            None => {
                self.0.insert(
                    machine.to_owned(),
                    Trouble {
                        text: text.to_owned(),
                        failures: 0,
                        revision: None,
                        retry: None,
                        current: true,
                    },
                );
                true
            }
        }
    }

    /// Whether there was a complaint the last time.
    #[must_use]
    pub fn knows(&self, machine: &Path) -> bool {
        self.0.contains_key(machine)
    }

    /// Notes that a bootstrap from `revision` failed, and returns how long to
    /// leave the machine alone.
    pub fn failed(&mut self, machine: &Path, revision: &Path, now: Instant) -> Duration {
        let trouble = self.0.entry(machine.to_owned()).or_insert_with(|| Trouble {
            text: String::new(),
            failures: 0,
            revision: None,
            retry: None,
            current: true,
        });
        if trouble.revision.as_deref() != Some(revision) {
            trouble.failures = 0;
            trouble.revision = Some(revision.to_owned());
        }
        let pause = FIRST
            .saturating_mul(1 << trouble.failures.min(10))
            .min(LONGEST);
        trouble.failures += 1;
        trouble.retry = Some(now + pause);
        trouble.current = true;
        pause
    }

    /// Whether a bootstrap from `revision` failed so recently that it is not
    /// tried again yet.
    pub fn resting(&mut self, machine: &Path, revision: &Path, now: Instant) -> bool {
        let Some(trouble) = self.0.get_mut(machine) else {
            return false;
        };
        let rests = trouble.revision.as_deref() == Some(revision)
            && trouble.retry.is_some_and(|retry| now < retry);
        trouble.current |= rests;
        rests
    }

    /// Ends an enumeration: machines without a complaint in it are forgotten,
    /// so that the same complaint is news again when it comes back.
    pub fn settle(&mut self) {
        self.0
            .retain(|_, trouble| std::mem::take(&mut trouble.current));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_complaint_is_said_once_until_it_goes_away() {
        let mut troubles = Troubles::default();
        let m = Path::new("/m");
        assert!(troubles.complain(m, "a"));
        troubles.settle();
        assert!(!troubles.complain(m, "a"));
        assert!(troubles.complain(m, "b"));
        troubles.settle();
        troubles.settle();
        assert!(troubles.complain(m, "b"));
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_a_new_revision_starts_over() {
        let mut troubles = Troubles::default();
        let now = Instant::now();
        let (m, r1, r2) = (Path::new("/m"), Path::new("/m/1"), Path::new("/m/2"));
        let pauses: Vec<_> = (0..8)
            .map(|_| troubles.failed(m, r1, now).as_secs())
            .collect();
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert!(troubles.resting(m, r1, now));
        assert!(!troubles.resting(m, r1, now + LONGEST));
        assert!(!troubles.resting(m, r2, now));
        assert_eq!(troubles.failed(m, r2, now).as_secs(), 60);
    }
}
