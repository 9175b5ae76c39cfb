//! LZ4 frames, decoded: workers compress their results with `lz4`.

use std::io::{self, BufRead, Read as _};

use lz4_flex::frame::FrameDecoder;

use crate::error::{Error, Result};

/// The largest piece of content, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Decodes one or more frames, one after the other, with at most `limit` bytes of
/// content. Calls `sink` with each piece of it.
pub fn decode(input: &mut dyn BufRead, limit: u64, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
    let invalid = |why: &dyn std::fmt::Display| Error::new(format!("invalid LZ4 frame: {why}"));
    let mut input = Input {
        rest: input,
        is_short: false,
    };
    let mut left = limit;
    let mut piece = vec![0; PIECE_BYTES];
    while !input.is_at_end().map_err(|error| invalid(&error))? {
        // A read ends with its frame.
        let mut frame = FrameDecoder::new(&mut input);
        loop {
            let length = frame.read(&mut piece).map_err(|error| invalid(&error))?;
            if length == 0 {
                break;
            }
            left = left
                .checked_sub(length as u64)
                .ok_or_else(|| invalid(&format_args!("more than {limit} bytes of content")))?;
            sink(&piece[..length]);
        }
        drop(frame);
        if input.is_short {
            return Err(invalid(&"unexpected end"));
        }
    }
    Ok(())
}

/// Notices reads beyond the end. The decoder takes the end of its input for the
/// end of a frame, even between two blocks.
struct Input<'a> {
    rest: &'a mut dyn BufRead,
    is_short: bool,
}

impl Input<'_> {
    fn is_at_end(&mut self) -> io::Result<bool> {
        self.rest.fill_buf().map(<[u8]>::is_empty)
    }
}

impl io::Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_short |= !buffer.is_empty() && self.is_at_end()?;
        self.rest.read(buffer)
    }
}
