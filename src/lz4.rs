//! LZ4 frames, decoded: workers compress their results with `lz4`.

use std::io::Read as _;

use lz4_flex::frame::FrameDecoder;

use crate::error::{Error, Result};

/// The shortest header of a frame: magic number, two flag bytes and a checksum.
/// The decoder takes anything shorter for the end of its input.
const MIN_HEADER_BYTES: usize = 7;

/// Decodes one or more frames, one after the other, into at most `limit` bytes.
pub fn decode(mut input: &[u8], limit: usize) -> Result<Vec<u8>> {
    let invalid = |why: &dyn std::fmt::Display| Error::new(format!("invalid LZ4 frame: {why}"));
    let mut output = Vec::new();
    while !input.is_empty() {
        if input.len() < MIN_HEADER_BYTES {
            return Err(invalid(&"unexpected end"));
        }
        // A read ends with its frame. One byte over the limit is an error.
        let left = (limit - output.len()) as u64 + 1;
        let frame = FrameDecoder::new(&mut input);
        let read = frame.take(left).read_to_end(&mut output);
        read.map_err(|error| invalid(&error))?;
        if output.len() > limit {
            return Err(invalid(&format_args!("more than {limit} bytes of content")));
        }
    }
    Ok(output)
}
