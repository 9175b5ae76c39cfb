//! How many requests a peer may make: a bucket of tokens that fills with time.

use std::time::{Duration, Instant};

/// A limit of requests. Those beyond it get no answer, so that the peer asks
/// again a little later, as it does when a packet was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests at once.
    pub burst: u32,
    /// Requests per second in the long run.
    pub per_second: u32,
}

/// The rest of a [`Rate`]. Time is an argument.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    tokens: u32,
    /// Up to when it was filled.
    filled: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate) -> Bucket {
        Bucket {
            rate,
            tokens: rate.burst,
            filled: None,
        }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Instant) {
        let Some(filled) = self.filled else {
            self.filled = Some(now);
            return;
        };
        let each = Duration::from_secs(1) / self.rate.per_second.max(1);
        let passed = now.saturating_duration_since(filled);
        let more = u32::try_from(passed.as_nanos() / each.as_nanos().max(1)).unwrap_or(u32::MAX);
        let room = self.rate.burst - self.tokens;
        if more >= room {
            self.tokens = self.rate.burst;
            self.filled = Some(now);
        } else {
            self.tokens += more;
            // What is less than a token counts for the next one.
            self.filled = Some(filled + each * more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 10,
        per_second: 4,
    };

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let mut bucket = Bucket::new(RATE);
        let start = Instant::now();
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, start), 10);
        // However often one asks, fractions of a token are not lost.
        let mut in_ten_seconds = 0;
        for tenth in 1..=100 {
            in_ten_seconds += taken(&mut bucket, start + Duration::from_millis(tenth * 100));
        }
        assert_eq!(in_ten_seconds, 40);
        // It holds no more than a burst, after whatever time.
        let later = start + Duration::from_secs(365 * 86400);
        assert_eq!(taken(&mut bucket, later), 10);
        assert_eq!(taken(&mut bucket, start), 0);
    }
}
