//! What a QEMU that a guest took over could send: the messages do not depend on
//! how the bytes arrive, and events are read or ignored.

#![no_main]

use bbot_agent::machine::events;
use bbot_agent::machine::monitor::{Message, Protocol};
use libfuzzer_sys::fuzz_target;

fn read(input: &[u8], step: usize) -> (Vec<Message>, Option<&'static str>) {
    let mut protocol = Protocol::default();
    let mut messages = Vec::new();
    for bytes in input.chunks(step) {
        protocol.receive(bytes);
        loop {
            match protocol.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => return (messages, Some(violation)),
            }
        }
    }
    (messages, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((first, input)) = input.split_first() else {
        return;
    };
    let whole = read(input, usize::MAX);
    assert_eq!(read(input, 1 + usize::from(*first)), whole);
    for message in whole.0 {
        if let Message::Event(name, data) = message {
            let _ = events::event(&name, &data);
        }
    }
});
