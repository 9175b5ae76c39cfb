//! When to send again, and when to give up (RFC 1123 §4.2.3.2, RFC 6298).
//!
//! Without a negotiated timeout the interval follows the measured round trip and
//! doubles with each unanswered attempt. It starts at a second and falls below that only
//! after several measurements. A negotiated timeout is the interval (RFC 2349).

use std::time::{Duration, Instant};

/// The interval before anything was measured (RFC 6298 §2.1).
pub(super) const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// The least interval. A guest may not be scheduled for that long.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// The longest interval.
const MAX_INTERVAL: Duration = Duration::from_secs(8);
/// The maximum silence of a peer: it is given up when the next attempt would exceed
/// this. With a first interval of one second that is after 5 attempts and 31 s, as in
/// tftpd-hpa's server.
const MAX_SILENCE: Duration = Duration::from_secs(35);
/// With a negotiated timeout: as many attempts as fit into this, within bounds.
const NEGOTIATED_SILENCE: Duration = Duration::from_secs(30);
/// Round trips it takes for each halving of the least interval.
const TRIPS_PER_HALVING: u32 = 4;
/// The clock's share in the interval (RFC 6298 §2, G).
const GRANULARITY: Duration = Duration::from_millis(1);

/// The meaning of an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerDecision {
    /// Nothing yet.
    Wait,
    /// Send again.
    Resend,
    /// The peer is gone.
    GiveUp,
}

/// The clockwork of one transfer. Time is always an argument.
#[derive(Clone, Debug)]
pub struct Timer {
    negotiated: Option<Duration>,
    floor: Duration,
    smoothed: Duration,
    variation: Duration,
    samples: u32,
    /// When what is now awaited was first sent, and last.
    asked: Instant,
    last: Instant,
    /// When the peer last moved the transfer forward.
    progress: Instant,
    attempts: u32,
    /// It was sent more than once: an answer may be one to either (Karn).
    ambiguous: bool,
    due: Option<Instant>,
}

impl Timer {
    /// A timer that stands still until [`Timer::sent`].
    pub fn new(now: Instant, negotiated: Option<Duration>) -> Timer {
        Timer {
            negotiated,
            floor: MIN_INTERVAL,
            smoothed: Duration::ZERO,
            variation: Duration::ZERO,
            samples: 0,
            asked: now,
            last: now,
            progress: now,
            attempts: 0,
            ambiguous: false,
            due: None,
        }
    }

    /// The same timer, never quicker than `floor` unless that was negotiated.
    pub fn with_floor(mut self, floor: Duration) -> Timer {
        self.floor = floor;
        self
    }

    /// When [`Timer::check`] has something to say.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// When what is awaited was last asked for.
    pub fn last_sent(&self) -> Instant {
        self.last
    }

    /// When the peer last moved the transfer forward.
    pub fn last_progress(&self) -> Instant {
        self.progress
    }

    /// The smoothed round trip, if one was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        (self.samples > 0).then_some(self.smoothed)
    }

    /// The interval to the next attempt.
    pub fn interval(&self) -> Duration {
        if let Some(negotiated) = self.negotiated {
            return negotiated;
        }
        let measured = if self.samples == 0 {
            FIRST_INTERVAL
        } else {
            let floor = FIRST_INTERVAL / (1 << (self.samples / TRIPS_PER_HALVING).min(6));
            (self.smoothed + (self.variation * 4).max(GRANULARITY)).max(floor.max(self.floor))
        };
        (measured * (1 << self.attempts.min(10))).min(MAX_INTERVAL)
    }

    /// Something that awaits an answer was sent for the first time.
    pub fn sent(&mut self, now: Instant) {
        self.asked = now;
        self.last = now;
        self.attempts = 0;
        self.ambiguous = false;
        self.due = Some(now + self.interval());
    }

    /// Records a retransmission. If the timer fired late because the process or the
    /// host was suspended, the delay does not count towards giving up.
    pub fn sent_again(&mut self, now: Instant) {
        if let Some(due) = self.due {
            self.progress += now.saturating_duration_since(due);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.sent_early(now);
    }

    /// Records a retransmission after the peer reported a loss, which it can do once
    /// without progress. The next attempt is put off.
    pub fn sent_early(&mut self, now: Instant) {
        self.last = now;
        self.ambiguous = true;
        self.due = Some(now + self.interval());
    }

    /// Records a retransmission because the peer repeated its packet. The peer can do
    /// that without end, so that the next attempt is not put off.
    pub fn repeated(&mut self, now: Instant) {
        self.last = now;
        self.ambiguous = true;
    }

    /// The awaited answer came.
    pub fn answered(&mut self, now: Instant) {
        if !self.ambiguous && self.due.is_some() {
            self.sample(now.saturating_duration_since(self.asked));
        }
        self.attempts = 0;
        self.progress = now;
    }

    /// The peer is alive, but the answer is not complete: start over with the
    /// same interval.
    pub fn restart(&mut self, now: Instant) {
        self.progress = now;
        self.attempts = 0;
        if std::mem::take(&mut self.ambiguous) {
            self.asked = now;
        }
        self.due = Some(now + self.interval());
    }

    /// Nothing is awaited any more.
    pub fn stop(&mut self) {
        self.due = None;
    }

    fn sample(&mut self, trip: Duration) {
        if self.samples == 0 {
            self.smoothed = trip;
            self.variation = trip / 2;
        } else {
            let difference = self.smoothed.abs_diff(trip);
            self.variation = (self.variation * 3 + difference) / 4;
            self.smoothed = (self.smoothed * 7 + trip) / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// The action that is due.
    pub fn check(&self, now: Instant) -> TimerDecision {
        let due = match self.due {
            Some(due) if now >= due => due,
            _ => return TimerDecision::Wait,
        };
        let enough = match self.negotiated {
            // A long interval must not make a dead peer immortal, nor a short
            // one kill a peer that was not scheduled for some seconds.
            Some(interval) => {
                let fitting = NEGOTIATED_SILENCE.as_secs() / interval.as_secs().max(1);
                u64::from(self.attempts) >= fitting.clamp(2, 6)
            }
            // Until the time at which something was due, not that of this call.
            None => {
                let next = (self.interval() * 2).min(MAX_INTERVAL);
                due.saturating_duration_since(self.progress) + next > MAX_SILENCE
            }
        };
        if enough {
            TimerDecision::GiveUp
        } else {
            TimerDecision::Resend
        }
    }
}
