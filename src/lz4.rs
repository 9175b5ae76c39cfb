//! LZ4 frames, decoded: workers compress their results with `lz4`.

use std::io::{self, Read};

use lz4_flex::frame::FrameDecoder;

use crate::error::{Error, Result};

/// Decodes one or more frames, one after the other, into at most `limit` bytes.
pub fn decode(input: &[u8], limit: usize) -> Result<Vec<u8>> {
    let invalid = |why: &dyn std::fmt::Display| Error::new(format!("invalid LZ4 frame: {why}"));
    let mut output = Vec::new();
    let mut input = Input {
        rest: input,
        is_short: false,
    };
    while !input.rest.is_empty() {
        // A read ends with its frame. One byte over the limit is an error.
        let left = (limit - output.len()) as u64 + 1;
        let mut frame = FrameDecoder::new(&mut input).take(left);
        let read = frame.read_to_end(&mut output);
        read.map_err(|error| invalid(&error))?;
        if output.len() > limit {
            return Err(invalid(&format_args!("more than {limit} bytes of content")));
        }
        if input.is_short {
            return Err(invalid(&"unexpected end"));
        }
    }
    Ok(output)
}

/// Notices reads beyond the end. The decoder takes the end of its input for the
/// end of a frame, even between two blocks.
struct Input<'a> {
    rest: &'a [u8],
    is_short: bool,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_short |= self.rest.is_empty() && !buffer.is_empty();
        self.rest.read(buffer)
    }
}
