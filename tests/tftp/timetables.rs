//! TFTP transfers without a network, by timetable: hours of the protocol in
//! milliseconds.

use std::time::{Duration, Instant};

use bbot_agent::tftp::packet::{ErrorCode, Packet, Refusal};
use bbot_agent::tftp::transfer::{
    Input, Linger, Output, Receiver, Reply, Sender, Timer, Transfer, TransferEnd,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A transfer and its clock.
struct Table {
    start: Instant,
    now: Instant,
    transfer: Box<dyn Transfer>,
}

impl Table {
    fn get(window: u16, last: u64, options: bool, timeout: Option<Duration>) -> Table {
        let now = Instant::now();
        let timer = Timer::new(now, timeout);
        Table::new(now, Sender::new(timer, window, Some(last), options))
    }

    fn put(blksize: u16, window: u16, timeout: Option<Duration>) -> Table {
        let now = Instant::now();
        let timer = Timer::new(now, timeout);
        let receiver = Receiver::new(timer, blksize, window, u64::MAX);
        Table::new(now, receiver)
    }

    fn new(now: Instant, transfer: impl Transfer + 'static) -> Table {
        Table {
            start: now,
            now,
            transfer: Box::new(transfer),
        }
    }

    /// At `ms` after the start, `input` leads to exactly `outputs`.
    #[track_caller]
    fn at(&mut self, ms: u32, input: Input, outputs: &[Output]) {
        self.now = self.start + MS * ms;
        self.transfer.handle(self.now, input);
        let got: Vec<_> = std::iter::from_fn(|| self.transfer.poll()).collect();
        assert_eq!(got, outputs, "at {ms} ms");
    }

    /// Nothing is due before `ms`, and then `outputs`.
    #[track_caller]
    fn due(&mut self, ms: u32, outputs: &[Output]) {
        let due = self.transfer.due().expect("nothing is due") - self.start;
        assert!(
            due.abs_diff(MS * ms) <= MS * 2,
            "due at {due:?}, expected {ms} ms"
        );
        let due = u32::try_from(due.as_micros().div_ceil(1000)).unwrap();
        self.at(due, Input::Tick, outputs);
    }
}

fn data(first: u64, count: u64) -> Output {
    Output::Data { first, count }
}

fn silent() -> [Output; 2] {
    [
        Output::Error(Refusal::new(ErrorCode::NotDefined, "timed out")),
        Output::Done(TransferEnd::Silent),
    ]
}

#[test]
fn before_anything_was_measured_the_interval_doubles_from_a_second() {
    let mut table = Table::get(1, 3, false, None);
    table.at(0, Input::Begin, &[data(1, 1)]);
    for ms in [1000, 3000, 7000, 15_000, 23_000] {
        table.at(ms - 1, Input::Tick, &[]);
        table.due(ms, &[data(1, 1)]);
    }
    table.due(31_000, &silent());
    assert_eq!(table.transfer.due(), None);
    // Nothing revives it.
    table.at(31_001, Input::Ack(1), &[]);
}

#[test]
fn time_in_which_nobody_looked_is_not_the_peers() {
    let mut table = Table::get(1, 3, false, None);
    table.at(0, Input::Begin, &[data(1, 1)]);
    table.due(1000, &[data(1, 1)]);
    // Stopped for an hour: it starts where it was.
    let hour = 3_600_000;
    table.at(3000 + hour, Input::Tick, &[data(1, 1)]);
    for ms in [7000, 15_000, 23_000] {
        table.due(hour + ms, &[data(1, 1)]);
    }
    table.at(hour + 24_000, Input::Ack(1), &[data(2, 1)]);
    // Silence itself is still bounded.
    let last = hour + 24_000;
    let mut ms = last;
    while table.transfer.due().is_some() {
        ms += 10;
        table.transfer.handle(table.start + MS * ms, Input::Tick);
        while table.transfer.poll().is_some() {}
    }
    assert!((30_000..40_000).contains(&(ms - last)), "{}", ms - last);
}

#[test]
fn the_interval_falls_with_the_evidence_and_doubles_from_there() {
    let mut table = Table::get(1, 100, false, None);
    table.at(0, Input::Begin, &[data(1, 1)]);
    let mut ms = 0;
    for number in 1..40 {
        ms += 10;
        let next = u64::from(number) + 1;
        table.at(ms, Input::Ack(number), &[data(next, 1)]);
    }
    for wait in [50, 100, 200, 400, 800, 1600, 3200, 6400, 8000] {
        ms += wait;
        table.due(ms, &[data(40, 1)]);
    }
    table.due(ms + 8000, &silent());
}

#[test]
fn a_silent_peer_is_given_up_within_35_seconds_at_any_round_trip() {
    for trip in [
        1, 20, 90, 130, 210, 330, 700, 1100, 2500, 4900, 7000, 20_000,
    ] {
        let mut table = Table::get(1, 100, false, None);
        table.at(0, Input::Begin, &[data(1, 1)]);
        let mut ms = 0;
        for number in 1..60 {
            for _ in 0..trip {
                ms += 1;
                table.transfer.handle(table.start + MS * ms, Input::Tick);
            }
            table
                .transfer
                .handle(table.start + MS * ms, Input::Ack(number));
            while table.transfer.poll().is_some() {}
        }
        let (last, mut attempts) = (ms, 0);
        while table.transfer.due().is_some() {
            ms += 1;
            table.transfer.handle(table.start + MS * ms, Input::Tick);
            while let Some(output) = table.transfer.poll() {
                attempts += usize::from(output == data(60, 1));
            }
        }
        let silence = ms - last;
        assert!((26_000..35_000).contains(&silence), "{trip}: {silence}");
        assert!(attempts >= 3, "{trip}: {attempts}");
    }
}

#[test]
fn a_slow_peer_is_not_hurried() {
    // A round trip of 600 ms, learned from the first answer on.
    let mut table = Table::get(1, 100, false, None);
    table.at(0, Input::Begin, &[data(1, 1)]);
    for number in 1..60_u16 {
        let next = u64::from(number) + 1;
        let ms = 600 * u32::from(number);
        table.at(ms - 1, Input::Tick, &[]);
        table.at(ms, Input::Ack(number), &[data(next, 1)]);
    }
}

#[test]
fn a_negotiated_timeout_is_kept_to() {
    for (timeout, attempts) in [(1, 6), (6, 5), (30, 2), (255, 2)] {
        let mut table = Table::get(1, 3, true, Some(SECOND * timeout));
        table.at(0, Input::Begin, &[Output::Accept]);
        for attempt in 1..=attempts {
            table.due(attempt * timeout * 1000, &[Output::Accept]);
        }
        table.due((attempts + 1) * timeout * 1000, &silent());
    }
}

#[test]
fn an_answer_to_a_repetition_is_no_measurement() {
    let mut table = Table::get(1, 100, false, None);
    table.at(0, Input::Begin, &[data(1, 1)]);
    table.due(1000, &[data(1, 1)]);
    table.at(1001, Input::Ack(1), &[data(2, 1)]);
    // Still a second, not the millisecond between repetition and answer.
    table.due(2001, &[data(2, 1)]);
}

#[test]
fn a_duplicate_ack_sends_nothing_in_lock_step() {
    let mut table = Table::get(1, 3, false, None);
    table.at(0, Input::Begin, &[data(1, 1)]);
    table.at(1, Input::Ack(1), &[data(2, 1)]);
    for number in [1, 1, 0, 3, 65535, 32768] {
        table.at(2, Input::Ack(number), &[]);
    }
    table.at(3, Input::Ack(2), &[data(3, 1)]);
    table.at(4, Input::Ack(3), &[Output::Done(TransferEnd::Complete)]);
}

#[test]
fn a_repeated_ack_in_a_window_is_acted_upon_after_a_round_trip_and_once() {
    let mut table = Table::get(4, 20, true, None);
    table.at(0, Input::Begin, &[Output::Accept]);
    table.at(8, Input::Ack(0), &[data(1, 4)]);
    table.at(16, Input::Ack(4), &[data(5, 4)]);
    // A duplicate on its way: too early to be about the new window.
    table.at(17, Input::Ack(4), &[]);
    table.at(24, Input::Ack(8), &[data(9, 4)]);
    // Block 9 is missing: as old as a round trip.
    table.at(40, Input::Ack(8), &[data(9, 4)]);
    table.at(41, Input::Ack(8), &[]);
    table.at(60, Input::Ack(8), &[]);
    // Blocks 9 and 10 came, 11 did not.
    table.at(61, Input::Ack(10), &[data(11, 4)]);
    // Too early again, but nothing else comes.
    table.at(62, Input::Ack(10), &[]);
    table.due(71, &[data(11, 4)]);
}

#[test]
fn a_window_at_the_end_of_the_file_is_short() {
    let mut table = Table::get(4, 6, false, None);
    table.at(0, Input::Begin, &[data(1, 4)]);
    table.at(1, Input::Ack(4), &[data(5, 2)]);
    table.at(2, Input::Ack(5), &[data(6, 1)]);
    table.at(3, Input::Ack(6), &[Output::Done(TransferEnd::Complete)]);
}

#[test]
fn an_oack_is_acknowledged_by_zero_only() {
    let mut table = Table::get(1, 3, true, None);
    table.at(0, Input::Begin, &[Output::Accept]);
    table.at(1, Input::Ack(1), &[]);
    table.at(2, Input::RequestAgain, &[]);
    table.at(40, Input::RequestAgain, &[Output::Accept]);
    table.at(50, Input::Ack(0), &[data(1, 1)]);
    table.at(100, Input::RequestAgain, &[]);
    table.at(
        101,
        Input::PeerError,
        &[Output::Done(TransferEnd::PeerError)],
    );
}

#[test]
fn the_end_of_a_text_is_known_when_it_was_read() {
    let now = Instant::now();
    let sender = Sender::new(Timer::new(now, None), 4, None, false);
    let mut table = Table::new(now, sender);
    table.at(0, Input::Begin, &[data(1, 4)]);
    table.at(0, Input::Last(2), &[]);
    table.at(1, Input::Ack(4), &[]);
    table.at(2, Input::Ack(2), &[Output::Done(TransferEnd::Complete)]);
}

#[test]
fn what_cannot_be_done_is_told_instead_of_what_was_to_follow() {
    let refusal = Refusal::new(ErrorCode::DiskFull, "disk full");
    let ending = [
        Output::Error(refusal.clone()),
        Output::Done(TransferEnd::Refused(refusal.clone())),
    ];
    let mut table = Table::put(512, 1, None);
    table.at(0, Input::Begin, &[Output::Accept]);
    table.transfer.handle(table.now, Input::Data(1, 512));
    assert_eq!(table.transfer.poll(), Some(Output::Append));
    // The ACK that was to follow is not sent.
    table.at(1, Input::Failed(refusal.clone()), &ending);
    let mut table = Table::get(1, 3, false, None);
    table.at(0, Input::Begin, &[data(1, 1)]);
    table.at(1, Input::Failed(refusal), &ending);
    table.at(2, Input::Ack(1), &[]);
}

#[test]
fn the_last_ack_waits_for_the_file_to_be_stored() {
    let mut table = Table::put(512, 1, None);
    table.at(0, Input::Begin, &[Output::Accept]);
    table.at(1, Input::Data(1, 512), &[Output::Append, Output::Ack(1)]);
    table.at(2, Input::Data(2, 511), &[Output::Append, Output::Store]);
    // Nothing is due, and nothing is said, however long that takes.
    assert_eq!(table.transfer.due(), None);
    table.at(9000, Input::Data(2, 511), &[]);
    let done = [Output::Ack(2), Output::Done(TransferEnd::Complete)];
    table.at(9001, Input::Stored, &done);
}

#[test]
fn an_upload_is_acknowledged_again_by_the_clock() {
    let mut table = Table::put(512, 4, None);
    table.at(0, Input::Begin, &[Output::Accept]);
    table.due(1000, &[Output::Accept]);
    table.at(1001, Input::Data(1, 512), &[Output::Append]);
    table.at(1002, Input::Data(2, 512), &[Output::Append]);
    // The rest of the window was lost.
    table.due(2002, &[Output::Ack(2)]);
    table.at(2003, Input::Data(3, 512), &[Output::Append]);
    table.at(2003, Input::Data(4, 512), &[Output::Append]);
    table.at(2003, Input::Data(5, 512), &[Output::Append]);
    // The window now begins after what was acknowledged.
    table.at(2003, Input::Data(6, 512), &[Output::Append, Output::Ack(6)]);
}

#[test]
fn an_upload_in_lock_step_is_not_hurried_however_quick_it_was() {
    let mut table = Table::put(512, 1, None);
    table.at(0, Input::Begin, &[Output::Accept]);
    for number in 1..100_u16 {
        let outputs = [Output::Append, Output::Ack(number.into())];
        table.at(number.into(), Input::Data(number, 512), &outputs);
    }
    table.due(99 + 1000, &[Output::Ack(99)]);
    table.due(99 + 3000, &[Output::Ack(99)]);
}

#[test]
fn a_gap_in_the_first_window_is_ack_0_for_the_oack_was_understood() {
    let mut table = Table::put(512, 4, None);
    table.at(0, Input::Begin, &[Output::Accept]);
    table.at(1, Input::Data(3, 512), &[Output::Ack(0)]);
    table.at(2, Input::Data(4, 512), &[]);
    table.at(3, Input::RequestAgain, &[]);
    table.at(4, Input::Data(1, 512), &[Output::Append]);
}

#[test]
fn repeated_blocks_do_not_keep_a_dead_upload_alive() {
    let mut table = Table::put(8, 1, None);
    table.at(0, Input::Begin, &[Output::Accept]);
    table.at(1, Input::Data(1, 8), &[Output::Append, Output::Ack(1)]);
    let mut ms = 1;
    loop {
        ms += 300;
        assert!(ms < 60_000, "still alive");
        table.now = table.start + MS * ms;
        table.transfer.handle(table.now, Input::Data(1, 8));
        table.transfer.handle(table.now, Input::Tick);
        let outputs: Vec<_> = std::iter::from_fn(|| table.transfer.poll()).collect();
        if outputs.contains(&Output::Done(TransferEnd::Silent)) {
            return;
        }
        assert_eq!(outputs.first(), Some(&Output::Ack(1)));
    }
}

#[test]
fn the_limit_holds_to_the_octet() {
    for (limit, ok) in [(515, false), (516, true)] {
        let now = Instant::now();
        let receiver = Receiver::new(Timer::new(now, None), 512, 1, limit);
        let mut table = Table::new(now, receiver);
        table.at(0, Input::Begin, &[Output::Accept]);
        table.at(1, Input::Data(1, 512), &[Output::Append, Output::Ack(1)]);
        table.transfer.handle(table.now, Input::Data(2, 4));
        assert_eq!(table.transfer.poll() == Some(Output::Append), ok);
    }
}

#[test]
fn the_end_of_a_transfer_is_remembered_for_its_peer() {
    let now = Instant::now();
    let refusal = Refusal::new(ErrorCode::DiskFull, "disk full");
    let mut stored = Linger::stored(now, 65_537, Some(SECOND * 20));
    assert_eq!(stored.until(), now + SECOND * 60);
    assert_eq!(
        stored.answer(now, &Packet::Data(1, b"x")),
        Reply::Ack(65_537)
    );
    assert_eq!(stored.answer(now, &Packet::Data(0, b"x")), Reply::Silence);
    assert_eq!(stored.answer(now, &Packet::Ack(1)), Reply::Silence);
    let mut sent = Linger::sent(now);
    assert_eq!(sent.answer(now, &Packet::Ack(3)), Reply::Silence);
    // The rest of a window is not answered, a repetition is, and not each.
    let mut refused = Linger::refused(now, refusal.clone());
    assert_eq!(refused.answer(now, &Packet::Data(2, b"")), Reply::Silence);
    let later = now + SECOND;
    assert_eq!(
        refused.answer(later, &Packet::Error(0, b"")),
        Reply::Silence
    );
    assert_eq!(
        refused.answer(later, &Packet::Data(2, b"")),
        Reply::Error(refusal)
    );
    assert_eq!(refused.answer(later, &Packet::Data(2, b"")), Reply::Silence);
}
