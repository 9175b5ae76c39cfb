//! The rest of a transfer that is over (RFC 1350 §6, "dallying").

use std::time::{Duration, Instant};

use crate::tftp::packet::{Packet, Refusal, low_half};

/// How long the end of a transfer is remembered, at least.
const MEMORY: Duration = Duration::from_secs(10);
/// An ERROR is repeated no more often than this.
const ERROR_PAUSE: Duration = Duration::from_millis(500);

/// The answer to a peer that still sends packets of a transfer that is over.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Nothing: not even that its transfer is unknown.
    Silence,
    /// The last ACK again, for it was lost.
    Ack(u64),
    /// The ERROR again, for it was lost.
    Error(Refusal),
}

#[derive(Clone, Debug)]
enum Memory {
    Sent,
    Stored { last: u64 },
    Refused { refusal: Refusal, told: Instant },
}

/// The memory of one transfer that is over.
#[derive(Clone, Debug)]
pub struct Linger {
    memory: Memory,
    until: Instant,
}

impl Linger {
    /// After a file was sent, or a transfer ended by the peer's ERROR.
    pub fn sent(now: Instant) -> Linger {
        Linger {
            memory: Memory::Sent,
            until: now + MEMORY,
        }
    }

    /// After a file was stored. The peer repeats its last block after `timeout`.
    pub fn stored(now: Instant, last: u64, timeout: Option<Duration>) -> Linger {
        Linger {
            memory: Memory::Stored { last },
            until: now + timeout.map_or(MEMORY * 2, |timeout| (timeout * 3).max(MEMORY * 2)),
        }
    }

    /// After an ERROR was sent.
    pub fn refused(now: Instant, refusal: Refusal) -> Linger {
        Linger {
            memory: Memory::Refused { refusal, told: now },
            until: now + MEMORY,
        }
    }

    /// When to forget.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// The answer to a packet other than a request.
    pub fn answer(&mut self, now: Instant, packet: &Packet<'_>) -> Reply {
        match (&mut self.memory, packet) {
            (Memory::Stored { last }, Packet::Data(number, _)) if *number == low_half(*last) => {
                Reply::Ack(*last)
            }
            // Blocks of a window may be under way when the ERROR is sent: they
            // are not answered, later ones are.
            (Memory::Refused { refusal, told }, Packet::Data(..) | Packet::Ack(_)) => {
                if now.saturating_duration_since(*told) < ERROR_PAUSE {
                    return Reply::Silence;
                }
                *told = now;
                Reply::Error(refusal.clone())
            }
            _ => Reply::Silence,
        }
    }
}
