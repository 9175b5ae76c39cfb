//! What must hold of any octets: shared by the fuzz targets and by seeded tests.

use std::time::{Duration, Instant};

use bbot_agent::tftp::Name;
use bbot_agent::tftp::options::Terms;
use bbot_agent::tftp::packet::{ErrorCode, Packet, Refusal, Request, low_half};
use bbot_agent::tftp::transfer::{Input, Output, Receiver, Sender, Timer, Transfer};

/// Any octets as a packet, and as the request that it may be.
pub fn packet(octets: &[u8]) {
    let _ = Packet::parse(octets);
    let Ok(request) = Request::parse(octets) else {
        return;
    };
    assert!(octets.len() <= 512 && request.options.len() <= 4);
    let buffer = 1 << 20;
    let terms = Terms::agree(&request, Some(12345), buffer);
    assert!((8..=65464).contains(&terms.blksize) && (1..=64).contains(&terms.window));
    for answer in &terms.answer {
        let asked = request
            .options
            .iter()
            .find(|asked| asked.option == answer.option)
            .expect("only what was asked for");
        let size = matches!(answer.option.as_str(), "tsize");
        assert!(size || answer.value <= asked.value, "raised");
    }
    assert_eq!(terms.oack().is_some(), !terms.answer.is_empty());
    if let Ok(name) = Name::parse(&request.name) {
        for part in name.as_str().split('/') {
            assert!(!matches!(part, "" | "." | ".."));
        }
        // Once read, it stays what it is.
        assert_eq!(Name::parse(name.as_str()).as_ref(), Ok(&name));
    }
}

/// Any octets as what happens to a transfer, and when: it never panics, never
/// sends beyond its end or stores out of order, and always ends.
pub fn transfer(octets: &[u8]) {
    let [setup, window, blocks, events @ ..] = octets else {
        return;
    };
    let start = Instant::now();
    let timeout = (setup & 1 != 0).then_some(Duration::from_secs(u64::from(setup >> 4) + 1));
    let window = u16::from(window % 64) + 1;
    // Near the wrap as well as small ones.
    let last = u64::from(*blocks) + if setup & 2 != 0 { 65_500 } else { 1 };
    let timer = Timer::new(start, timeout);
    let mut transfer: Box<dyn Transfer> = if setup & 4 != 0 {
        let options = setup & 8 != 0;
        Box::new(Sender::new(timer, window, Some(last), options))
    } else {
        Box::new(Receiver::new(timer, 512, window, 512 * last))
    };
    let mut check = Check {
        last,
        window: u64::from(window),
        stored: 0,
        over: false,
    };
    let mut now = start;
    check.step(&mut *transfer, now, Input::Begin);
    for event in events.chunks_exact(4) {
        let [kind, late, low, high] = *event else {
            return;
        };
        now += Duration::from_millis(u64::from(late) * u64::from(late));
        let number = u16::from_le_bytes([low, high]);
        // Numbers near where the transfer stands make more of it happen.
        let near = low_half(transfer.position() + u64::from(low % 8));
        let input = match kind % 16 {
            0 => Input::Ack(number),
            1..=4 => Input::Ack(near),
            5 => Input::Data(number, usize::from(high) * 4),
            6..=9 => Input::Data(near, 512),
            10 => Input::Data(near, 100),
            11 if high == 0 => Input::PeerError,
            12 => Input::RequestAgain,
            13 => Input::Stored,
            14 if high == 0 => {
                Input::Failed(Refusal::new(ErrorCode::NotDefined, "input/output error"))
            }
            _ => Input::Tick,
        };
        check.step(&mut *transfer, now, input);
    }
    // Left alone it ends, unless it waits for the file to be stored.
    for _ in 0..64 {
        let Some(due) = transfer.due() else { break };
        now = now.max(due);
        check.step(&mut *transfer, now, Input::Tick);
    }
    assert_eq!(transfer.due(), None, "never ends");
    assert!(now - start < Duration::from_secs(86_400));
}

struct Check {
    last: u64,
    window: u64,
    stored: u64,
    over: bool,
}

impl Check {
    fn step(&mut self, transfer: &mut dyn Transfer, now: Instant, input: Input) {
        transfer.handle(now, input);
        let mut outputs = 0;
        while let Some(output) = transfer.poll() {
            outputs += 1;
            assert!(outputs <= 4 && !self.over, "{output:?} after the end");
            match output {
                Output::Data { first, count } => {
                    assert!(first >= 1 && count >= 1 && count <= self.window);
                    assert!(first + count - 1 <= self.last, "beyond the end");
                }
                Output::Append => self.stored += 1,
                Output::Ack(number) => assert!(number <= self.stored),
                Output::Done(_) => self.over = true,
                Output::Accept | Output::Store | Output::Error(_) => {}
            }
        }
        if self.over {
            assert_eq!(transfer.due(), None);
        }
    }
}
