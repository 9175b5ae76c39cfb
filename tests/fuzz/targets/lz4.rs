//! LZ4 frames of a guest: never more output than allowed, whatever the input.

#![no_main]

use bbot_agent::lz4;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|frame: &[u8]| {
    if let Ok(output) = lz4::decode(frame, LIMIT) {
        assert!(output.len() <= LIMIT && output.capacity() <= 2 * LIMIT);
        // It was enough, so less is not, and as much is.
        assert!(lz4::decode(frame, output.len()).is_ok());
        assert!(output.is_empty() || lz4::decode(frame, output.len() - 1).is_err());
    }
});
