//! GET: we send DATA, the peer acknowledges (RFC 1350 §4, RFC 7440 §4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Input, Output, SILENCE, Timer, TimerDecision, Transfer, TransferEnd};
use crate::tftp::packet::low_half;

/// A repeated ACK in a window is acted upon after a round trip, but no later
/// than this after the window was sent.
const MAX_REPEAT_DELAY: Duration = Duration::from_millis(20);

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
    state: SenderState,
    repeat: Repeat,
    timer: Timer,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SenderState {
    /// The OACK is still to be acknowledged.
    Opening,
    /// The first window is, without an OACK before it.
    First,
    /// The peer has acknowledged something.
    Begun,
    Over,
}

/// Whether the window is sent again because of a repeated ACK. Once for a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Unasked,
    /// At this time, unless there is progress before.
    At(Instant),
    Done,
}

impl Sender {
    /// A transfer in windows of `window` blocks; `last` is the number of the
    /// last block if it is known, `options` whether an OACK opens it.
    pub fn new(timer: Timer, window: u16, last: Option<u64>, options: bool) -> Sender {
        Sender {
            window: u64::from(window.max(1)),
            last,
            acknowledged: 0,
            sent: 0,
            state: if options {
                SenderState::Opening
            } else {
                SenderState::First
            },
            repeat: Repeat::Unasked,
            timer,
            outputs: VecDeque::with_capacity(4),
        }
    }
}

impl Transfer for Sender {
    fn handle(&mut self, now: Instant, input: Input) {
        if self.state == SenderState::Over {
            return;
        }
        match input {
            Input::Begin => {
                self.send_same();
                self.timer.sent(now);
            }
            Input::Ack(number) => self.acknowledge(now, number),
            Input::Tick => self.tick(now),
            Input::RequestAgain => {
                // The first packet was lost, or the request was duplicated on
                // its way: one quick repetition cannot become a storm, for it
                // takes a request to cause it.
                let since = now.saturating_duration_since(self.timer.last_sent());
                if !self.has_begun() && since >= MAX_REPEAT_DELAY {
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
                self.outputs.push_back(Output::Error(refusal.clone()));
                self.close(TransferEnd::Refused(refusal));
            }
            Input::Data(..) | Input::Stored => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn due(&self) -> Option<Instant> {
        match (self.state, self.repeat, self.timer.due()) {
            (SenderState::Over, ..) => None,
            (_, Repeat::At(at), due) => Some(due.map_or(at, |due| due.min(at))),
            (_, _, due) => due,
        }
    }

    /// A repeated ACK is expected as well, except where the file from its start is
    /// what is to be sent anyway.
    fn expects(&self, input: &Input) -> bool {
        let &Input::Ack(number) = input else {
            return false;
        };
        if self.state == SenderState::Opening {
            return number == 0;
        }
        match self.distance(number) {
            0 => self.acknowledged > 1,
            distance => distance <= self.sent - self.acknowledged,
        }
    }

    fn has_begun(&self) -> bool {
        matches!(self.state, SenderState::Begun | SenderState::Over)
    }

    fn position(&self) -> u64 {
        self.acknowledged
    }

    fn last_progress(&self) -> Instant {
        self.timer.last_progress()
    }
}

impl Sender {
    /// How far block `number` is ahead of the last acknowledged one. A window is far
    /// smaller than half the numbers, so that this tells a block for sure, across
    /// the wrap as well.
    fn distance(&self, number: u16) -> u64 {
        u64::from(number.wrapping_sub(low_half(self.acknowledged)))
    }

    fn acknowledge(&mut self, now: Instant, number: u16) {
        if self.state == SenderState::Opening {
            if number == 0 {
                self.advance(now, 0);
            }
            return;
        }
        let distance = self.distance(number);
        if distance == 0 {
            // In lock-step a repeated ACK is never answered: the Sorcerer's
            // Apprentice (RFC 1123 §4.2.3.1). In a window it says that the first
            // block is missing, or is a mere duplicate; which of the two, the
            // next round trip tells.
            if self.window > 1 && self.repeat == Repeat::Unasked {
                let trip = self.timer.round_trip().unwrap_or(MAX_REPEAT_DELAY);
                let wait = (trip + trip / 4).min(MAX_REPEAT_DELAY);
                self.repeat = Repeat::At((self.timer.last_sent() + wait).max(now));
                self.tick(now);
            }
        } else if distance <= self.sent - self.acknowledged {
            self.advance(now, self.acknowledged + distance);
        }
    }

    fn advance(&mut self, now: Instant, to: u64) {
        self.timer.answered(now);
        self.state = SenderState::Begun;
        self.repeat = Repeat::Unasked;
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
        self.outputs.push_back(Output::Data {
            first: self.acknowledged + 1,
            count,
        });
    }

    fn send_same(&mut self) {
        if self.state == SenderState::Opening {
            self.outputs.push_back(Output::Accept);
        } else {
            self.send_window();
        }
    }

    fn tick(&mut self, now: Instant) {
        if matches!(self.repeat, Repeat::At(at) if now >= at) {
            self.repeat = Repeat::Done;
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
                self.outputs.push_back(Output::Error(SILENCE));
                self.close(TransferEnd::Silent);
            }
        }
    }

    fn close(&mut self, end: TransferEnd) {
        self.state = SenderState::Over;
        self.timer.stop();
        self.outputs.push_back(Output::Done(end));
    }
}
