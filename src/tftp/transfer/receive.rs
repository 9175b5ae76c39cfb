//! PUT: the peer sends DATA, we acknowledge (RFC 1350 §4, RFC 7440 §4).

use std::time::Instant;

use super::{FIRST, Input, Output, Outputs, SILENCE, Timer, TimerDecision, TransferEnd};
use crate::tftp::packet::{ErrorCode, Refusal, low_half};

/// The receiving side of a transfer.
#[derive(Clone, Debug)]
pub struct Receiver {
    blksize: usize,
    window: u64,
    /// The highest block that came in order; 0 for none.
    received: u64,
    /// The block of our last ACK.
    acknowledged: u64,
    /// A gap was reported and nothing was received since.
    gap_reported: bool,
    /// The peer has sent DATA, so it knows that it was accepted.
    begun: bool,
    /// Octets that may still come.
    room: u64,
    state: State,
    timer: Timer,
    outputs: Outputs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Receiving,
    /// The last block is here, the file is being made visible.
    Storing,
    Over,
}

impl Receiver {
    /// A transfer in windows of `window` blocks of `blksize` octets, `limit`
    /// octets at most.
    #[must_use]
    pub fn new(timer: Timer, blksize: u16, window: u16, limit: u64) -> Receiver {
        // In lock-step a repeated ACK is of use only if the first one was lost,
        // and the peer repeats its DATA then. If it was merely slow, it may do
        // harm: tftp-hpa's client throws away what else has come in, the next
        // ACK included, and waits for its five seconds.
        let timer = if window > 1 {
            timer
        } else {
            timer.with_floor(FIRST)
        };
        Receiver {
            blksize: usize::from(blksize),
            window: u64::from(window.max(1)),
            received: 0,
            acknowledged: 0,
            gap_reported: false,
            begun: false,
            room: limit,
            state: State::Receiving,
            timer,
            outputs: Outputs::new(),
        }
    }

    /// See [`super::Transfer::handle`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.state == State::Over {
            return;
        }
        match input {
            Input::Begin => {
                self.outputs.push(Output::Accept);
                self.timer.sent(now);
            }
            Input::Data(number, length) => self.receive(now, number, length),
            Input::Tick => self.tick(now),
            Input::RequestAgain => {
                if !self.begun {
                    self.acknowledge_again();
                    self.timer.repeated(now);
                }
            }
            Input::Stored => {
                if self.state == State::Storing {
                    self.outputs.push(Output::Ack(self.received));
                    self.acknowledged = self.received;
                    self.close(TransferEnd::Complete);
                }
            }
            Input::PeerError => self.close(TransferEnd::PeerError),
            Input::Failed(refusal) => self.refuse(refusal),
            Input::Ack(_) | Input::Last(_) => {}
        }
    }

    /// See [`super::Transfer::poll`].
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// See [`super::Transfer::due`].
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.timer.due()
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

    /// The highest block that came in order.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// See [`super::Transfer::expects`].
    pub(super) fn expects(&self, number: u16) -> bool {
        let ahead = u64::from(number.wrapping_sub(low_half(self.received)));
        (1..=self.window).contains(&ahead)
    }

    fn receive(&mut self, now: Instant, number: u16, length: usize) {
        if self.state == State::Storing {
            return;
        }
        if length > self.blksize {
            return self.refuse(Refusal::new(
                ErrorCode::IllegalOperation,
                "DATA longer than the block size",
            ));
        }
        // How far the block is ahead of the last one received: 1 is the one
        // that is awaited, up to a window is a gap, the rest is stale.
        match u64::from(number.wrapping_sub(low_half(self.received))) {
            1 => self.append(now, length),
            ahead if ahead > 1 && ahead <= self.window => {
                self.begun = true;
                // Once a gap; further blocks of the same window say nothing new.
                if !std::mem::replace(&mut self.gap_reported, true) {
                    self.acknowledge_again();
                    self.timer.sent_early(now);
                }
            }
            // Our ACK was lost, and the peer starts its last window over: what
            // is told by the block that the ACK was for.
            0 if self.received > 0 && self.received == self.acknowledged => {
                self.acknowledge_again();
                self.timer.repeated(now);
            }
            _ => {}
        }
    }

    fn append(&mut self, now: Instant, length: usize) {
        let Some(room) = self.room.checked_sub(length as u64) else {
            return self.refuse(Refusal::new(
                ErrorCode::DiskFull,
                "file larger than the limit",
            ));
        };
        self.room = room;
        self.begun = true;
        self.received += 1;
        self.gap_reported = false;
        self.outputs.push(Output::Append);
        if length < self.blksize {
            self.timer.answered(now);
            self.timer.stop();
            self.state = State::Storing;
            self.outputs.push(Output::Store);
        } else if self.received - self.acknowledged >= self.window {
            self.timer.answered(now);
            self.acknowledged = self.received;
            self.outputs.push(Output::Ack(self.received));
            self.timer.sent(now);
        } else {
            self.timer.restart(now);
        }
    }

    /// Repeats the opening or says how far we got; the window then starts there.
    fn acknowledge_again(&mut self) {
        self.acknowledged = self.received;
        self.outputs.push(if self.begun {
            Output::Ack(self.received)
        } else {
            // Never ACK 0 for an OACK that was lost: the peer would fall back
            // to blocks of 512 octets.
            Output::Accept
        });
    }

    fn tick(&mut self, now: Instant) {
        match self.timer.check(now) {
            TimerDecision::Wait => {}
            TimerDecision::Resend => {
                self.acknowledge_again();
                self.timer.sent_again(now);
            }
            TimerDecision::GiveUp => self.refuse_as(SILENCE, TransferEnd::Silent),
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let outcome = TransferEnd::Refused(refusal.clone());
        self.refuse_as(refusal, outcome);
    }

    fn refuse_as(&mut self, refusal: Refusal, outcome: TransferEnd) {
        self.outputs.clear();
        self.outputs.push(Output::Error(refusal));
        self.close(outcome);
    }

    fn close(&mut self, outcome: TransferEnd) {
        self.state = State::Over;
        self.timer.stop();
        self.outputs.push(Output::Done(outcome));
    }
}
