//! LZ4 frames, decoded: what workers pack their results in.
//!
//! The frame format is that of `lz4_Frame_format.md` 1.6.4 in the LZ4
//! repository, the block format that of `lz4_Block_format.md`. What is decoded
//! comes from a guest, so the output has a bound that no input can pass, every
//! offset is checked, and the checksums that are there are verified. There are
//! no dictionaries here, and none of the legacy frames of 2012.

mod block;
mod xxhash;

use crate::error::{Error, Result};
use xxhash::xxh32;

const MAGIC: u32 = 0x184D_2204;
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;

/// No sequence of bytes is longer than 255 times what encodes it.
const MAX_RATIO: usize = 255;

/// Decodes one or more frames, one after the other, into at most `limit` bytes.
///
/// # Errors
///
/// If `input` is not frames from start to end, is corrupt or cut short, or
/// decodes to more than `limit` bytes. The text says where, in bytes from the
/// start.
pub fn decode(input: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut decoder = Decoder {
        input,
        at: 0,
        output: Vec::new(),
        limit,
    };
    match decoder.frames() {
        Ok(()) => Ok(decoder.output),
        Err(what) => {
            let at = decoder.at;
            Err(Error::new(format!(
                "invalid LZ4 frame: {what} at offset {at}"
            )))
        }
    }
}

struct Decoder<'a> {
    input: &'a [u8],
    at: usize,
    output: Vec<u8>,
    limit: usize,
}

/// What a frame says of itself.
struct Descriptor {
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_size: usize,
}

impl<'a> Decoder<'a> {
    fn frames(&mut self) -> Result<(), String> {
        if self.input.is_empty() {
            return Err("no frame".to_owned());
        }
        while self.at < self.input.len() {
            match self.u32()? {
                MAGIC => self.frame()?,
                magic if SKIPPABLE.contains(&magic) => {
                    let size = self.u32()?;
                    self.take(usize::try_from(size).unwrap_or(usize::MAX))?;
                }
                magic => {
                    self.at -= 4;
                    return Err(format!("unknown magic number 0x{magic:08X}"));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = &self.input[self.at..];
        let Some((taken, _)) = rest.split_at_checked(length) else {
            return Err("unexpected end".to_owned());
        };
        self.at += length;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b)))
    }

    fn frame(&mut self) -> Result<(), String> {
        let descriptor = self.descriptor()?;
        let start = self.output.len();
        loop {
            let size = self.u32()?;
            if size == 0 {
                break;
            }
            self.block(size, &descriptor, start)?;
        }
        let content = &self.output[start..];
        let length = content.len();
        if descriptor
            .content_size
            .is_some_and(|size| size != length as u64)
        {
            return Err("content of another size than announced".to_owned());
        }
        if descriptor.content_checksum {
            let sum = xxh32(content);
            if self.u32()? != sum {
                return Err("wrong content checksum".to_owned());
            }
        }
        Ok(())
    }

    fn descriptor(&mut self) -> Result<Descriptor, String> {
        let start = self.at;
        let (flags, size) = match self.take(2)? {
            [flags, size] => (*flags, *size),
            _ => return Err("unexpected end".to_owned()),
        };
        if flags >> 6 != 1 {
            return Err(format!("unsupported version {}", flags >> 6));
        }
        if flags & 0b10 != 0 || size & 0b1000_1111 != 0 {
            return Err("reserved bits set".to_owned());
        }
        if flags & 0b1 != 0 {
            return Err("a dictionary is needed".to_owned());
        }
        let mut content_size = None;
        if flags & 0b1000 != 0 {
            let low = u64::from(self.u32()?);
            content_size = Some(u64::from(self.u32()?) << 32 | low);
        }
        let sum = xxh32(&self.input[start..self.at]).to_le_bytes()[1];
        if self.take(1)? != [sum] {
            return Err("wrong header checksum".to_owned());
        }
        if let Some(size) = content_size {
            // Refused before anything is decoded; if it is a lie, by the block
            // that passes the limit.
            let left = self.limit - self.output.len();
            let size = usize::try_from(size).ok().filter(|size| *size <= left);
            let size = size.ok_or_else(|| self.too_long())?;
            let possible = (self.input.len() - self.at).saturating_mul(MAX_RATIO);
            self.output.reserve_exact(size.min(possible));
        }
        let block_size = match size >> 4 {
            n @ 4..=7 => 1 << (8 + 2 * n),
            n => return Err(format!("unknown block size {n}")),
        };
        Ok(Descriptor {
            linked: flags & 0b10_0000 == 0,
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
            content_size,
            block_size,
        })
    }

    fn block(&mut self, size: u32, descriptor: &Descriptor, frame: usize) -> Result<(), String> {
        let is_plain = size >> 31 == 1;
        let size = usize::try_from(size & 0x7FFF_FFFF).unwrap_or(usize::MAX);
        if size > descriptor.block_size {
            return Err(format!(
                "block of {size} bytes, of at most {}",
                descriptor.block_size
            ));
        }
        let block_at = self.at;
        let data = self.take(size)?;
        if descriptor.block_checksums {
            let sum = xxh32(data);
            if self.u32()? != sum {
                return Err("wrong block checksum".to_owned());
            }
        }
        let start = self.output.len();
        // Whichever of the two bounds is reached first.
        let room = (self.limit - start).min(descriptor.block_size);
        let history = if descriptor.linked { frame } else { start };
        let result = if is_plain {
            self.output.extend_from_slice(&data[..size.min(room)]);
            if size > room {
                Err((size, block::Fault::Full))
            } else {
                Ok(())
            }
        } else {
            block::decode(data, &mut self.output, history, start + room)
        };
        result.map_err(|(at, fault)| {
            self.at = block_at + at;
            match fault {
                block::Fault::Full if room < descriptor.block_size => self.too_long(),
                block::Fault::Full => "block decodes to more than its size".to_owned(),
                block::Fault::Corrupt(what) => what.to_owned(),
            }
        })
    }

    fn too_long(&self) -> String {
        format!("more than {} bytes of content", self.limit)
    }
}

#[cfg(test)]
mod tests;
