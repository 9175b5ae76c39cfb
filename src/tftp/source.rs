//! The contents of a GET: a file or a text in memory, as octets or as netascii.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::netascii::Encoder;
use super::packet::{ErrorCode, Mode, Refusal};
use super::tree;
use crate::sys::file::{self, Facts};

/// Octets read ahead for a transfer in lock-step.
const READ_AHEAD_BYTES: usize = 32 * 1024;

/// Blocks of a file for which reading ahead pays: fewer are read one by one
/// sooner than the buffer is made.
const READ_AHEAD_BLOCKS: u64 = 4;

/// Octets of a file that are converted to netascii at a time.
const TEXT_PIECE_BYTES: usize = 4096;

const CHANGED: Refusal = Refusal::new(ErrorCode::NotDefined, "file changed while it was read");

/// The octets of a file, any part of them at any time.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Memory(Arc<[u8]>),
    /// In a file that was found to be so.
    File(File, Facts),
}

impl Content {
    /// How many there are.
    pub fn size(&self) -> u64 {
        match self {
            Content::Memory(octets) => octets.len() as u64,
            Content::File(_, facts) => facts.size,
        }
    }

    /// Fills `into` from `offset` on, which must all be within the size.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Refusal> {
        match self {
            Content::Memory(octets) => {
                let part = usize::try_from(offset)
                    .ok()
                    .and_then(|start| octets.get(start..start.checked_add(into.len())?))
                    .ok_or(CHANGED)?;
                into.copy_from_slice(part);
                Ok(())
            }
            Content::File(opened, facts) => {
                opened
                    .read_exact_at(into, offset)
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => CHANGED,
                        _ => tree::refusal(&error),
                    })?;
                // If nothing has changed after the read, the octets are those of the file
                // that was opened. A file that is replaced by a rename stays open here.
                let now = file::facts(opened.as_fd()).map_err(|error| tree::refusal(&error))?;
                if (now.size, now.changed) != (facts.size, facts.changed) {
                    return Err(CHANGED);
                }
                Ok(())
            }
        }
    }
}

/// Some blocks in a row.
#[derive(Debug)]
pub struct Blocks<'a> {
    /// Their payloads, one after the other; all but the last one are full.
    pub payload: &'a [u8],
    /// Octets of a full one.
    pub blksize: usize,
    /// How many there are.
    pub count: u64,
    /// Whether the last of them is the last of the file.
    pub last: bool,
}

/// A file cut into blocks.
#[derive(Debug)]
pub struct Source {
    content: Content,
    blksize: usize,
    ahead: Vec<u8>,
    ahead_at: u64,
    text: Option<Text>,
}

impl Source {
    /// `content` in blocks of `blksize` octets, read `window` at a time.
    pub fn new(content: Content, mode: Mode, blksize: u16, window: u16) -> Source {
        let blksize = usize::from(blksize);
        let in_file = matches!(content, Content::File(..));
        let worthwhile = in_file
            && mode == Mode::Octet
            && blksize * usize::from(window) <= READ_AHEAD_BYTES / 4
            && content.size() > READ_AHEAD_BLOCKS * blksize as u64;
        let ahead = if worthwhile {
            usize::try_from(content.size())
                .map_or(READ_AHEAD_BYTES, |size| size.min(READ_AHEAD_BYTES))
        } else {
            0
        };
        Source {
            blksize,
            ahead: vec![0; ahead],
            ahead_at: u64::MAX,
            text: (mode == Mode::Netascii).then(Text::new),
            content,
        }
    }

    /// The number of the last block, unless only reading the file can tell.
    pub fn last(&self) -> Option<u64> {
        (self.text.is_none()).then(|| self.content.size() / self.blksize as u64 + 1)
    }

    /// Octets of the file, before any conversion.
    pub fn size(&self) -> u64 {
        self.content.size()
    }

    /// Blocks from number `first` on, `count` of them, or as many as fit into
    /// `room`, or as many as there are. A first block that was asked for before
    /// may be asked for again as long as none before it was skipped.
    pub fn blocks<'a>(
        &'a mut self,
        first: u64,
        count: u64,
        room: &'a mut [u8],
    ) -> Result<Blocks<'a>, Refusal> {
        let count = count.min((room.len() / self.blksize) as u64).max(1);
        if let Some(text) = &mut self.text {
            return text.blocks(&self.content, self.blksize, first, count, room);
        }
        let size = self.content.size();
        let start = (first - 1).saturating_mul(self.blksize as u64);
        let left = size.saturating_sub(start);
        let last = left < count * self.blksize as u64;
        let count = if last {
            left / self.blksize as u64 + 1
        } else {
            count
        };
        let length = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(usize::try_from(count).unwrap_or(1) * self.blksize);
        Ok(Blocks {
            blksize: self.blksize,
            payload: self.octets(start, length, room)?,
            count,
            last,
        })
    }

    fn octets<'a>(
        &'a mut self,
        start: u64,
        length: usize,
        room: &'a mut [u8],
    ) -> Result<&'a [u8], Refusal> {
        if let Content::Memory(octets) = &self.content {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            return octets
                .get(start..start.saturating_add(length))
                .ok_or(CHANGED);
        }
        if length == 0 || length > self.ahead.len() {
            let part = &mut room[..length];
            self.content.read(start, part)?;
            return Ok(part);
        }
        let within = start
            .checked_sub(self.ahead_at)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| skip + length <= self.ahead.len());
        let skip = if let Some(skip) = within {
            skip
        } else {
            let left = usize::try_from(self.content.size() - start).unwrap_or(usize::MAX);
            // The tail of the file is read as the end of a full buffer, which
            // keeps the buffer's length its only length.
            let back = self.ahead.len().saturating_sub(left);
            self.ahead_at = u64::MAX;
            let from = start - back as u64;
            self.content.read(from, &mut self.ahead)?;
            self.ahead_at = from;
            back
        };
        Ok(&self.ahead[skip..skip + length])
    }
}

/// Where a block of a text begins: in the file, and within a pair.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    offset: u64,
    encoder: Encoder,
}

/// A text on its way to netascii. Only reading it tells where a block begins, so
/// the places of the blocks of the current window are remembered.
#[derive(Debug)]
struct Text {
    /// The block to which the first mark belongs.
    first: u64,
    marks: VecDeque<Mark>,
}

impl Text {
    fn new() -> Text {
        Text {
            first: 1,
            marks: VecDeque::from([Mark::default()]),
        }
    }

    fn blocks<'a>(
        &mut self,
        content: &Content,
        blksize: usize,
        first: u64,
        count: u64,
        room: &'a mut [u8],
    ) -> Result<Blocks<'a>, Refusal> {
        // Blocks before the first one are acknowledged.
        while self.first < first && self.marks.len() > 1 {
            self.marks.pop_front();
            self.first += 1;
        }
        let mut made = 0;
        let mut blocks = 0;
        let mut last = false;
        while blocks < count && !last {
            let index = usize::try_from(first + blocks - self.first).map_err(|_| CHANGED)?;
            let mut mark = *self.marks.get(index).ok_or(CHANGED)?;
            let length = mark.fill(content, &mut room[made..made + blksize])?;
            last = length < blksize;
            made += length;
            blocks += 1;
            if !last && index + 1 == self.marks.len() {
                self.marks.push_back(mark);
            }
        }
        Ok(Blocks {
            blksize,
            payload: &room[..made],
            count: blocks,
            last,
        })
    }
}

impl Mark {
    /// Fills a block from here on; less than full means the end of the file.
    fn fill(&mut self, content: &Content, block: &mut [u8]) -> Result<usize, Refusal> {
        let mut piece = [0; TEXT_PIECE_BYTES];
        let mut made = 0;
        while made < block.len() {
            let left = content.size() - self.offset;
            if left == 0 && !self.encoder.is_pending() {
                break;
            }
            let want = usize::try_from(left)
                .unwrap_or(TEXT_PIECE_BYTES)
                .min(TEXT_PIECE_BYTES)
                .min(block.len() - made);
            content.read(self.offset, &mut piece[..want])?;
            let (taken, more) = self.encoder.encode(&piece[..want], &mut block[made..]);
            self.offset += taken as u64;
            made += more;
        }
        Ok(made)
    }
}
