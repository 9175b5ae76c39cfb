//! TFTP transfers over a link that loses, duplicates, reorders and delays packets.
//! The crate's sender and receiver are at its ends; the one that is not the
//! server's is wrapped into what a client does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bbot_agent::tftp::packet::{Packet, low_half};
use bbot_agent::tftp::transfer::{
    Input, Linger, Output, Receiver, Reply, Sender, Timer, Transfer, TransferEnd,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A packet on the link; blocks carry their true number as their payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Flying {
    Request,
    Oack,
    Data(u64, bool),
    Ack(u16),
    Error,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    IsLost,
    IsDoubled,
    /// Overtaken by what is sent in the next 15 ms.
    IsLate,
}

const FATES: [Fate; 4] = [Fate::Arrives, Fate::IsLost, Fate::IsDoubled, Fate::IsLate];

const BLOCK: u16 = 512;

struct Case {
    upload: bool,
    window: u16,
    blocks: u64,
    options: bool,
}

/// How it went.
#[derive(Debug)]
struct Result {
    server: Option<TransferEnd>,
    client: Option<TransferEnd>,
    stored: u64,
    packets: u64,
    blocks: u64,
    elapsed: Duration,
}

struct End {
    transfer: Box<dyn Transfer>,
    receives: bool,
    started: bool,
    outcome: Option<TransferEnd>,
    linger: Option<Linger>,
    stored: u64,
    whole: bool,
}

impl End {
    fn new((transfer, receives): (Box<dyn Transfer>, bool)) -> End {
        End {
            transfer,
            receives,
            started: false,
            outcome: None,
            linger: None,
            stored: 0,
            whole: false,
        }
    }

    fn drive(
        &mut self,
        case: &Case,
        now: Instant,
        input: Input,
        payload: u64,
        out: &mut Vec<Flying>,
    ) {
        self.transfer.handle(now, input);
        while let Some(output) = self.transfer.poll() {
            match output {
                Output::Accept => out.push(if case.options {
                    Flying::Oack
                } else {
                    Flying::Ack(0)
                }),
                Output::Data { first, count } => {
                    assert!(first + count - 1 <= case.blocks, "beyond the end");
                    let numbers = first..first + count;
                    out.extend(numbers.map(|n| Flying::Data(n, n == case.blocks)));
                }
                Output::Ack(number) => out.push(Flying::Ack(low_half(number))),
                Output::Append => {
                    assert_eq!(payload, self.stored + 1, "stored out of order");
                    self.stored = payload;
                }
                Output::Store => {
                    assert_eq!(self.stored, case.blocks, "stored a part");
                    assert!(!self.whole, "stored twice");
                    self.whole = true;
                    self.transfer.handle(now, Input::Stored);
                }
                Output::Error(_) => out.push(Flying::Error),
                Output::Done(outcome) => {
                    self.linger = Some(match (self.receives, &outcome) {
                        (true, TransferEnd::Complete) => Linger::stored(now, self.stored, None),
                        _ => Linger::sent(now),
                    });
                    assert!(self.outcome.is_none());
                    self.outcome = Some(outcome);
                }
            }
        }
    }

    fn receive(
        &mut self,
        case: &Case,
        now: Instant,
        packet: Flying,
        server: bool,
        out: &mut Vec<Flying>,
    ) {
        let length = |last| if last { 1 } else { usize::from(BLOCK) };
        if let Some(linger) = &mut self.linger {
            let payload = [0; 1];
            let parsed = match packet {
                Flying::Data(number, _) => Packet::Data(low_half(number), &payload),
                Flying::Ack(number) => Packet::Ack(number),
                _ => return,
            };
            if let Reply::Ack(number) = linger.answer(now, &parsed) {
                out.push(Flying::Ack(low_half(number)));
            }
            return;
        }
        let begins = !self.started
            && (packet == Flying::Oack
                || packet == Flying::Ack(0)
                || matches!(packet, Flying::Data(..)));
        if begins {
            self.started = true;
            match (self.receives, packet) {
                // The client acknowledges an OACK by ACK 0, or by its first DATA.
                (true, Flying::Oack) => return out.push(Flying::Ack(0)),
                (false, _) => return self.drive(case, now, Input::Begin, 0, out),
                _ => {}
            }
        }
        match packet {
            Flying::Request if server && !self.started => {
                self.started = true;
                self.drive(case, now, Input::Begin, 0, out);
            }
            Flying::Request if server => self.drive(case, now, Input::RequestAgain, 0, out),
            // An OACK that comes again wants its ACK 0 again.
            Flying::Oack if !server && self.receives && self.stored == 0 => {
                out.push(Flying::Ack(0));
            }
            Flying::Oack | Flying::Request => {}
            Flying::Data(number, last) => {
                let input = Input::Data(low_half(number), length(last));
                self.drive(case, now, input, number, out);
            }
            Flying::Ack(number) => self.drive(case, now, Input::Ack(number), 0, out),
            Flying::Error => self.drive(case, now, Input::PeerError, 0, out),
        }
    }
}

/// Runs a transfer over a link with a delay of 5 ms, whose packets have the
/// fates that `fate` gives out in the order of their sending.
fn run(case: &Case, mut fate: impl FnMut() -> Fate) -> Result {
    let start = Instant::now();
    let timer = || Timer::new(start, None);
    let sender = |options| -> (Box<dyn Transfer>, bool) {
        let sender = Sender::new(timer(), case.window, Some(case.blocks), options);
        (Box::new(sender), false)
    };
    let receiver = || -> (Box<dyn Transfer>, bool) {
        let receiver = Receiver::new(timer(), BLOCK, case.window, u64::MAX);
        (Box::new(receiver), true)
    };
    let (server, client) = if case.upload {
        (receiver(), sender(false))
    } else {
        (sender(case.options), receiver())
    };
    let mut ends = [End::new(server), End::new(client)];
    let mut air: BinaryHeap<Reverse<(Instant, u64, usize, Flying)>> = BinaryHeap::new();
    let (mut sequence, mut packets, mut blocks) = (0, 0, 0);
    let mut request_due = Some(start);
    let mut now = start;
    loop {
        let mut out: [Vec<Flying>; 2] = [Vec::new(), Vec::new()];
        if request_due == Some(now) {
            out[1].push(Flying::Request);
            request_due = Some(now + SECOND);
        }
        while air.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Reverse((_, _, to, packet)) = air.pop().unwrap();
            ends[to].receive(case, now, packet, to == 0, &mut out[to]);
        }
        for (side, end) in ends.iter_mut().enumerate() {
            if end.transfer.due().is_some_and(|due| due <= now) {
                end.drive(case, now, Input::Tick, 0, &mut out[side]);
            }
        }
        if ends[1].started {
            request_due = None;
        }
        for (side, packets_out) in out.into_iter().enumerate() {
            for packet in packets_out {
                packets += 1;
                blocks += u64::from(matches!(packet, Flying::Data(..)));
                let delays: &[u32] = match fate() {
                    Fate::Arrives => &[5],
                    Fate::IsLost => &[],
                    Fate::IsDoubled => &[5, 6],
                    Fate::IsLate => &[20],
                };
                for delay in delays {
                    sequence += 1;
                    air.push(Reverse((now + MS * *delay, sequence, 1 - side, packet)));
                }
            }
        }
        let next = air
            .peek()
            .map(|Reverse((at, ..))| *at)
            .into_iter()
            .chain(ends.iter().filter_map(|end| end.transfer.due()))
            .chain(request_due)
            .min();
        match next {
            Some(next) if now - start < SECOND * 100_000 => now = next.max(now),
            _ => break,
        }
        if ends.iter().all(|end| end.outcome.is_some()) && air.is_empty() {
            break;
        }
    }
    let [server, client] = ends;
    Result {
        stored: server.stored.max(client.stored),
        server: server.outcome,
        client: client.outcome,
        packets,
        blocks,
        elapsed: now - start,
    }
}

fn assert_complete(case: &Case, result: &Result, what: &dyn std::fmt::Debug) {
    let done = Some(TransferEnd::Complete);
    assert!(
        result.server == done && result.client == done && result.stored == case.blocks,
        "upload {} window {} blocks {} options {}: {what:?}: {result:?}",
        case.upload,
        case.window,
        case.blocks,
        case.options,
    );
}

#[test]
fn small_transfers_survive_every_mishap_of_their_first_packets() {
    const DEPTH: u32 = 6;
    for upload in [false, true] {
        for options in [false, true] {
            for (window, blocks) in [(1, 1), (1, 3), (2, 3), (2, 4), (3, 2), (4, 7)] {
                let case = Case {
                    upload,
                    window,
                    blocks,
                    options,
                };
                for code in 0..4_usize.pow(DEPTH) {
                    let mut rest = code;
                    let mut given = 0;
                    let result = run(&case, || {
                        given += 1;
                        let fate = if given <= DEPTH {
                            FATES[rest % 4]
                        } else {
                            Fate::Arrives
                        };
                        rest /= 4;
                        fate
                    });
                    assert_complete(&case, &result, &code);
                    assert!(result.packets < 200, "{result:?}");
                }
            }
        }
    }
}

/// xorshift64*, enough for a link.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll() % 1000 < percent * 10
    }
}

#[test]
fn large_transfers_survive_a_bad_link() {
    for seed in 1..=400 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let window = [1, 2, 4, 16, 64][usize::try_from(dice.roll() % 5).unwrap()];
        let case = Case {
            upload: dice.percent(50),
            window,
            blocks: 1 + dice.roll() % 600,
            options: dice.percent(50),
        };
        let result = run(&case, || match dice.roll() % 100 {
            0..7 => Fate::IsLost,
            7..14 => Fate::IsDoubled,
            14..21 => Fate::IsLate,
            _ => Fate::Arrives,
        });
        assert_complete(&case, &result, &seed);
    }
}

#[test]
fn numbers_wrap_on_a_bad_link_too() {
    for upload in [false, true] {
        let mut dice = Dice(7);
        let case = Case {
            upload,
            window: 64,
            blocks: 65_536 * 2 + 7,
            options: true,
        };
        let result = run(&case, || {
            if dice.percent(1) {
                Fate::IsLost
            } else {
                Fate::Arrives
            }
        });
        assert_complete(&case, &result, &upload);
    }
}

#[test]
fn duplicates_do_not_multiply() {
    for upload in [false, true] {
        for window in [1, 4, 16] {
            let case = Case {
                upload,
                window,
                blocks: 500,
                options: true,
            };
            let calm = run(&case, || Fate::Arrives);
            let doubled = run(&case, || Fate::IsDoubled);
            assert_complete(&case, &doubled, &"doubled");
            assert_eq!(calm.blocks, 500);
            assert!(
                doubled.packets <= calm.packets * 3,
                "window {window}: {calm:?} {doubled:?}"
            );
            if window == 1 && !upload {
                assert_eq!(doubled.blocks, 500, "the Sorcerer's Apprentice");
            }
        }
    }
}

#[test]
fn loss_costs_what_it_must() {
    // 8 MiB in blocks of 1428 with a round trip of 10 ms: seconds at 1% and 5%.
    let limits = [
        (false, 1, 1, 75),
        (false, 1, 5, 160),
        (false, 16, 1, 6),
        (false, 16, 5, 12),
        (true, 16, 5, 22),
    ];
    for (upload, window, percent, seconds) in limits {
        let mut dice = Dice(3);
        let case = Case {
            upload,
            window,
            blocks: 5875,
            options: true,
        };
        let result = run(&case, || {
            if dice.percent(percent) {
                Fate::IsLost
            } else {
                Fate::Arrives
            }
        });
        assert_complete(&case, &result, &percent);
        assert!(
            result.elapsed < SECOND * seconds,
            "upload {upload} window {window} at {percent}%: {result:?}"
        );
        assert!(result.packets < 14_000, "{result:?}");
    }
}
