//! PUT: the peer sends DATA, we acknowledge (RFC 1350 §4, RFC 7440 §4).

use std::collections::VecDeque;
use std::time::Instant;

use super::{FIRST_INTERVAL, Input, Output, SILENCE, Timer, TimerDecision, Transfer, TransferEnd};
use crate::tftp::packet::{ErrorCode, Refusal, low_half};

/// The receiving side of a transfer.
#[derive(Clone, Debug)]
pub struct Receiver {
    blksize: usize,
    window: u64,
    /// The highest block that came in order; 0 for none.
    received: u64,
    /// The block of the last ACK that was sent.
    acknowledged: u64,
    /// Octets that may still come.
    room: u64,
    state: ReceiverState,
    timer: Timer,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReceiverState {
    /// The peer has sent no DATA: it may not know that it was accepted.
    Opening,
    Receiving,
    /// A gap was reported and nothing was received since.
    GapReported,
    /// The last block is here, the file is being made visible.
    Storing,
    Over,
}

impl Receiver {
    /// A transfer in windows of `window` blocks of `blksize` octets, `limit`
    /// octets at most.
    pub fn new(timer: Timer, blksize: u16, window: u16, limit: u64) -> Receiver {
        // In lock-step a repeated ACK is of use only if the first one was lost,
        // and the peer repeats its DATA then. If it was merely slow, it may do
        // harm: tftp-hpa's client throws away what else has come in, the next
        // ACK included, and waits for its five seconds.
        let timer = if window > 1 {
            timer
        } else {
            timer.with_floor(FIRST_INTERVAL)
        };
        Receiver {
            blksize: usize::from(blksize),
            window: u64::from(window.max(1)),
            received: 0,
            acknowledged: 0,
            room: limit,
            state: ReceiverState::Opening,
            timer,
            outputs: VecDeque::with_capacity(4),
        }
    }
}

impl Transfer for Receiver {
    fn handle(&mut self, now: Instant, input: Input) {
        if self.state == ReceiverState::Over {
            return;
        }
        match input {
            Input::Begin => {
                self.outputs.push_back(Output::Accept);
                self.timer.sent(now);
            }
            Input::Data(number, length) => self.receive(now, number, length),
            Input::Tick => self.tick(now),
            Input::RequestAgain => {
                if !self.has_begun() {
                    self.acknowledge_again();
                    self.timer.repeated(now);
                }
            }
            Input::Stored => {
                if self.state == ReceiverState::Storing {
                    self.outputs.push_back(Output::Ack(self.received));
                    self.acknowledged = self.received;
                    self.close(TransferEnd::Complete);
                }
            }
            Input::PeerError => self.close(TransferEnd::PeerError),
            Input::Failed(refusal) => self.refuse(refusal),
            Input::Ack(_) | Input::Last(_) => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn due(&self) -> Option<Instant> {
        self.timer.due()
    }

    fn expects(&self, input: &Input) -> bool {
        let &Input::Data(number, _) = input else {
            return false;
        };
        (1..=self.window).contains(&self.distance(number))
    }

    fn has_begun(&self) -> bool {
        self.state != ReceiverState::Opening
    }

    fn position(&self) -> u64 {
        self.received
    }

    fn last_progress(&self) -> Instant {
        self.timer.last_progress()
    }
}

impl Receiver {
    /// How far block `number` is ahead of the last one received: 1 is the one that
    /// is awaited, up to a window is a gap, the rest is stale.
    fn distance(&self, number: u16) -> u64 {
        u64::from(number.wrapping_sub(low_half(self.received)))
    }

    fn receive(&mut self, now: Instant, number: u16, length: usize) {
        if self.state == ReceiverState::Storing {
            return;
        }
        if length > self.blksize {
            return self.refuse(Refusal::new(
                ErrorCode::IllegalOperation,
                "DATA longer than the block size",
            ));
        }
        match self.distance(number) {
            1 => self.append(now, length),
            // A gap is reported once; further blocks of the same window say nothing new.
            ahead
                if (2..=self.window).contains(&ahead)
                    && self.state != ReceiverState::GapReported =>
            {
                self.state = ReceiverState::GapReported;
                self.acknowledge_again();
                self.timer.sent_early(now);
            }
            // The ACK was lost, and the peer starts its last window over: what
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
        self.state = ReceiverState::Receiving;
        self.received += 1;
        self.outputs.push_back(Output::Append);
        if length < self.blksize {
            self.timer.answered(now);
            self.timer.stop();
            self.state = ReceiverState::Storing;
            self.outputs.push_back(Output::Store);
        } else if self.received - self.acknowledged >= self.window {
            self.timer.answered(now);
            self.acknowledged = self.received;
            self.outputs.push_back(Output::Ack(self.received));
            self.timer.sent(now);
        } else {
            self.timer.restart(now);
        }
    }

    /// Repeats the opening or says the last block received; the window then starts there.
    fn acknowledge_again(&mut self) {
        self.acknowledged = self.received;
        self.outputs.push_back(if self.has_begun() {
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
        let end = TransferEnd::Refused(refusal.clone());
        self.refuse_as(refusal, end);
    }

    fn refuse_as(&mut self, refusal: Refusal, end: TransferEnd) {
        self.outputs.clear();
        self.outputs.push_back(Output::Error(refusal));
        self.close(end);
    }

    fn close(&mut self, end: TransferEnd) {
        self.state = ReceiverState::Over;
        self.timer.stop();
        self.outputs.push_back(Output::Done(end));
    }
}
