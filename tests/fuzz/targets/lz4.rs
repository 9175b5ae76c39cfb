//! LZ4 frames of a guest: never more output than allowed, whatever the input.

#![no_main]

use bbot_agent::lz4;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fn decode(mut input: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    let done = lz4::decode(&mut input, limit as u64, &mut |piece| output.extend(piece));
    assert!(output.len() <= limit);
    done.is_ok().then_some(output)
}

fuzz_target!(|frame: &[u8]| {
    if let Some(output) = decode(frame, LIMIT) {
        // It was enough, so less is not, and as much is.
        assert!(decode(frame, output.len()).is_some());
        assert!(output.is_empty() || decode(frame, output.len() - 1).is_none());
    }
});
