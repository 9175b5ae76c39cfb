//! GET: we send DATA, the peer acknowledges (RFC 1350 §4, RFC 7440 §4).

use std::time::{Duration, Instant};

use super::{Input, Output, Outputs, SILENCE, Timer, TimerDecision, TransferEnd};
use crate::tftp::packet::low_half;

/// A repeated ACK in a window is acted upon after a round trip, but no later
/// than this after the window was sent.
const HASTE: Duration = Duration::from_millis(20);

/// The sending side of a transfer.
#[derive(Clone, Debug)]
pub struct Sender {
    window: u64,
    /// The number of the last block, once it is known.
    last: Option<u64>,
    /// The highest block that was acknowledged; 0 for none.
    acknowledged: u64,
    /// The highest block that was sent after it.
    sent: u64,
    /// Whether the OACK is still to be acknowledged.
    opening: bool,
    begun: bool,
    /// When to send the window again because of a repeated ACK, unless there is
    /// progress before. Once for a window.
    hint: Option<Instant>,
    hinted: bool,
    over: bool,
    timer: Timer,
    outputs: Outputs,
}

impl Sender {
    /// A transfer in windows of `window` blocks; `last` is the number of the
    /// last block if it is known, `options` whether an OACK opens it.
    #[must_use]
    pub fn new(timer: Timer, window: u16, last: Option<u64>, options: bool) -> Sender {
        Sender {
            window: u64::from(window.max(1)),
            last,
            acknowledged: 0,
            sent: 0,
            opening: options,
            begun: false,
            hint: None,
            hinted: false,
            over: false,
            timer,
            outputs: Outputs::new(),
        }
    }

    /// See [`super::Transfer::handle`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::Begin => {
                if self.opening {
                    self.outputs.push(Output::Accept);
                } else {
                    self.send_window();
                }
                self.timer.sent(now);
            }
            Input::Ack(number) => self.acknowledge(now, number),
            Input::Tick => self.tick(now),
            Input::RequestAgain => {
                // Our first packet was lost, or the request was duplicated on
                // its way: one quick repetition cannot become a storm, for it
                // takes a request to cause it.
                if !self.begun && now.saturating_duration_since(self.timer.last_sent()) >= HASTE {
                    self.send_same();
                    self.timer.repeated(now);
                }
            }
            Input::Last(number) => {
                self.last = Some(number);
                self.sent = self.sent.min(number);
            }
            Input::PeerError => self.close(TransferEnd::PeerError),
            Input::Failed(refusal) => {
                self.outputs.clear();
                self.outputs.push(Output::Error(refusal.clone()));
                self.close(TransferEnd::Refused(refusal));
            }
            Input::Data(..) | Input::Stored => {}
        }
    }

    /// See [`super::Transfer::poll`].
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// See [`super::Transfer::due`].
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        match (self.hint, self.timer.due()) {
            (Some(hint), Some(due)) => Some(hint.min(due)),
            (hint, due) => hint.or(due),
        }
    }

    /// See [`super::Transfer::has_begun`].
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// The clockwork.
    #[must_use]
    pub fn timer(&self) -> &Timer {
        &self.timer
    }

    /// The highest block that the peer has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// See [`super::Transfer::expects`]. A repeated ACK is one as well, except
    /// where the file from its start is what is to be sent anyway.
    pub(super) fn expects(&self, number: u16) -> bool {
        if self.opening {
            return number == 0;
        }
        match u64::from(number.wrapping_sub(low_half(self.acknowledged))) {
            0 => self.acknowledged > 1,
            distance => distance <= self.sent - self.acknowledged,
        }
    }

    fn acknowledge(&mut self, now: Instant, number: u16) {
        if self.opening {
            if number == 0 {
                self.opening = false;
                self.advance(now, 0);
            }
            return;
        }
        // A window is far smaller than half the numbers, so that the distance
        // tells a block for sure, across the wrap as well.
        let distance = u64::from(number.wrapping_sub(low_half(self.acknowledged)));
        if distance == 0 {
            // In lock-step a repeated ACK is never answered: the Sorcerer's
            // Apprentice (RFC 1123 §4.2.3.1). In a window it says that the first
            // block is missing, or is a mere duplicate; which of the two, the
            // next round trip tells.
            if self.window > 1 && !self.hinted {
                let trip = self.timer.round_trip().unwrap_or(HASTE);
                let wait = (trip + trip / 4).min(HASTE);
                self.hint = Some((self.timer.last_sent() + wait).max(now));
                self.hinted = true;
                self.tick(now);
            }
        } else if distance <= self.sent - self.acknowledged {
            self.advance(now, self.acknowledged + distance);
        }
    }

    fn advance(&mut self, now: Instant, to: u64) {
        self.timer.answered(now);
        self.begun = true;
        self.hint = None;
        self.hinted = false;
        self.acknowledged = to;
        if self.last == Some(to) {
            self.close(TransferEnd::Complete);
        } else {
            self.send_window();
            self.timer.sent(now);
        }
    }

    fn send_window(&mut self) {
        let mut count = self.window;
        if let Some(last) = self.last {
            count = count.min(last - self.acknowledged);
        }
        self.sent = self.acknowledged + count;
        self.outputs.push(Output::Data {
            first: self.acknowledged + 1,
            count,
        });
    }

    fn send_same(&mut self) {
        if self.opening {
            self.outputs.push(Output::Accept);
        } else {
            self.send_window();
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.hint.is_some_and(|hint| now >= hint) {
            self.hint = None;
            self.send_same();
            self.timer.sent_early(now);
            return;
        }
        match self.timer.check(now) {
            TimerDecision::Wait => {}
            TimerDecision::Resend => {
                self.send_same();
                self.timer.sent_again(now);
            }
            TimerDecision::GiveUp => {
                self.outputs.push(Output::Error(SILENCE));
                self.close(TransferEnd::Silent);
            }
        }
    }

    fn close(&mut self, outcome: TransferEnd) {
        self.over = true;
        self.timer.stop();
        self.outputs.push(Output::Done(outcome));
    }
}
