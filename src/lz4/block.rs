//! One compressed block: sequences of literals and matches.

/// A match is at least this long.
const MIN_MATCH: usize = 4;

/// Why a block cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It would pass the bound of the output.
    Full,
    /// It is not a block.
    Corrupt(&'static str),
}

/// Decodes `block` to the end of `output`, which must not get longer than
/// `bound`. Matches reach back to `history` at most.
///
/// An error has the offset in the block at which it shows.
pub(super) fn decode(
    block: &[u8],
    output: &mut Vec<u8>,
    history: usize,
    bound: usize,
) -> Result<(), (usize, Fault)> {
    let mut at = 0;
    let corrupt = |at, what| Err((at, Fault::Corrupt(what)));
    loop {
        let Some(&token) = block.get(at) else {
            return corrupt(at, "block ends without literals");
        };
        at += 1;
        let literals = length(block, &mut at, token >> 4)?;
        let Some(literal) = block[at..].get(..literals) else {
            return corrupt(at, "literals beyond the end of the block");
        };
        if literals > bound - output.len() {
            return Err((at, Fault::Full));
        }
        output.extend_from_slice(literal);
        at += literals;
        if at == block.len() {
            return Ok(());
        }
        let Some(&[low, high]) = block[at..].first_chunk() else {
            return corrupt(at, "match offset beyond the end of the block");
        };
        let offset = usize::from(u16::from_le_bytes([low, high]));
        if offset == 0 || offset > output.len() - history {
            return corrupt(at, "match before the start of the content");
        }
        at += 2;
        let length = length(block, &mut at, token & 0xF)?.saturating_add(MIN_MATCH);
        if length > bound - output.len() {
            return Err((at, Fault::Full));
        }
        repeat(output, offset, length);
    }
}

/// A length: 15 in the token says that bytes are to be added, up to one that is
/// not 255.
fn length(block: &[u8], at: &mut usize, nibble: u8) -> Result<usize, (usize, Fault)> {
    let mut length = usize::from(nibble);
    if nibble < 15 {
        return Ok(length);
    }
    loop {
        let Some(&byte) = block.get(*at) else {
            return Err((*at, Fault::Corrupt("length beyond the end of the block")));
        };
        *at += 1;
        // At most 255 for each byte of a block: no overflow.
        length += usize::from(byte);
        if byte < 255 {
            return Ok(length);
        }
    }
}

/// Appends `length` bytes from `offset` before the end, which may be fewer than
/// `length`: what has just been appended is then repeated.
fn repeat(output: &mut Vec<u8>, offset: usize, mut length: usize) {
    let start = output.len() - offset;
    while length > 0 {
        let piece = length.min(output.len() - start);
        output.extend_from_within(start..start + piece);
        length -= piece;
    }
}
