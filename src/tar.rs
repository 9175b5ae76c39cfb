//! Lists the members of a tar archive without unpacking it: the artifacts of a
//! build.
//!
//! The formats in use are read: ustar (POSIX.1-1988), pax (POSIX.1-2001, `path` and
//! `size`), GNU (long names, numbers in base 256), and the format before them.
//! The archive comes from a guest and its members are uploaded from their places in
//! it. Members that are not plain files or directories are refused, and so are names
//! that lead out of the archive.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};

use crate::error::{Context, Error};

const BLOCK: usize = 512;

/// The maximum size of a pax header or a GNU long name, in bytes.
const MAX_HEADER: u64 = 64 << 10;

/// A plain file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path: relative, without `.` and `..`.
    pub name: String,
    /// The offset of its contents in the archive.
    pub offset: u64,
    /// The size of its contents in bytes.
    pub size: u64,
}

/// ArchiveLimits beyond which an archive is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Plain files; directories may be as many.
    pub members: usize,
    /// Bytes of one path.
    pub name: usize,
    /// Bytes of one file.
    pub size: u64,
}

impl Default for ArchiveLimits {
    /// 1,000 files, paths of 4,096 bytes (`PATH_MAX`), each of 1 GiB.
    fn default() -> ArchiveLimits {
        ArchiveLimits {
            members: 1000,
            name: 4096,
            size: 1 << 30,
        }
    }
}

/// The plain files of `archive`, in their order.
pub fn members<R: Read + Seek>(
    archive: &mut R,
    limits: ArchiveLimits,
) -> Result<Vec<Member>, Error> {
    let length = archive.seek(SeekFrom::End(0));
    let mut reader = Reader {
        length: length.context(|| "unable to read archive")?,
        archive,
        at: 0,
        limits,
    };
    match reader.members() {
        Ok(members) => Ok(members),
        Err(Fault::Bad(what)) => Err(Error::new(format!("invalid tar archive: {what}"))),
        Err(Fault::Io(error)) => Err(error).context(|| "unable to read archive"),
    }
}

/// The reason for which an archive is refused.
enum Fault {
    /// The archive is not acceptable.
    Bad(String),
    /// The archive cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

type Result<T, E = Fault> = std::result::Result<T, E>;

fn bad(what: impl Into<String>) -> Fault {
    Fault::Bad(what.into())
}

struct Reader<'a, R> {
    archive: &'a mut R,
    length: u64,
    at: u64,
    limits: ArchiveLimits,
}

/// The values of an extended header for the member that follows it.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    size: Option<u64>,
}

impl<R: Read + Seek> Reader<'_, R> {
    fn members(&mut self) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        let mut names = HashSet::new();
        let mut extended = Extended::default();
        let mut count = 0;
        while let Some(header) = self.header()? {
            count += 1;
            // Each member may have an extended header of its own.
            if count > self.limits.members.saturating_mul(2) {
                return Err(self.too_many());
            }
            let kind = header.0[156];
            match kind {
                b'x' => {
                    let records = self.contents(&header)?;
                    extended.add_pax(&records)?;
                }
                b'L' => {
                    let name = self.contents(&header)?;
                    extended.path = Some(text(until_nul(&name))?);
                }
                // Global headers are comments, as `git archive` writes them.
                b'g' => {
                    let records = self.contents(&header)?;
                    let mut global = Extended::default();
                    global.add_pax(&records)?;
                    if global.path.is_some() || global.size.is_some() {
                        return Err(bad("path or size for all members"));
                    }
                }
                _ => {
                    let extended = std::mem::take(&mut extended);
                    if let Some(member) = self.member(&header, extended)? {
                        if !names.insert(member.name.clone()) {
                            return Err(bad(format!("member '{}' twice", member.name)));
                        }
                        if members.len() == self.limits.members {
                            return Err(self.too_many());
                        }
                        members.push(member);
                    }
                }
            }
        }
        Ok(members)
    }

    fn too_many(&self) -> Fault {
        bad(format!("more than {} members", self.limits.members))
    }

    /// The next header, `None` at the mark of the end.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        if self.length - self.at < BLOCK as u64 {
            return Err(bad(format!("unexpected end at offset {}", self.at)));
        }
        self.read(&mut block)?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let header = Header(block);
        // The sum of all bytes, its own field as if it were blank.
        let sum: u64 = header.0.iter().map(|b| u64::from(*b)).sum();
        let own: u64 = header.0[148..156].iter().map(|b| u64::from(*b)).sum();
        if header.number(148..156)? != sum - own + 8 * u64::from(b' ') {
            let at = self.at - BLOCK as u64;
            return Err(bad(format!("wrong header checksum at offset {at}")));
        }
        Ok(Some(header))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.archive.seek(SeekFrom::Start(self.at))?;
        self.archive.read_exact(buffer)?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    /// Skips `size` bytes and the padding of their last block.
    fn skip(&mut self, size: u64) -> Result<()> {
        // No overflow: the size has been checked against the archive.
        let end = self.at + size.next_multiple_of(BLOCK as u64);
        // Some writers omit the padding at the end of the archive, and the end mark.
        if end > self.length {
            return Err(bad(format!("unexpected end at offset {}", self.length)));
        }
        self.at = end;
        Ok(())
    }

    /// The contents of an extended header.
    fn contents(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = header.number(124..136)?;
        if size > MAX_HEADER {
            return Err(bad(format!("extended header of {size} bytes")));
        }
        let start = self.at;
        self.check_inside(size)?;
        let mut contents = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read(&mut contents)?;
        self.at = start;
        self.skip(size)?;
        Ok(contents)
    }

    fn check_inside(&self, size: u64) -> Result<()> {
        if size > self.length - self.at {
            return Err(bad(format!("unexpected end at offset {}", self.length)));
        }
        Ok(())
    }

    /// A member, if it is a plain file.
    fn member(&mut self, header: &Header, extended: Extended) -> Result<Option<Member>> {
        let raw = extended.path.map_or_else(|| header.name(), Ok)?;
        let of_member = |fault| match fault {
            Fault::Bad(what) => bad(format!("{what} in member '{}'", raw.escape_debug())),
            Fault::Io(_) => fault,
        };
        let refuse = |what: &str| Err(of_member(bad(what)));
        let is_directory = match header.0[156] {
            // Before ustar, a directory was a file whose name ends in a slash.
            b'0' | 0 | b'7' => raw.ends_with('/'),
            b'5' => true,
            b'1' => return refuse("hard link"),
            b'2' => return refuse("symbolic link"),
            b'3' | b'4' => return refuse("device"),
            b'6' => return refuse("fifo"),
            b'S' => return refuse("sparse file"),
            kind => return refuse(&format!("unknown type '{}'", kind.escape_ascii())),
        };
        let name = path(&raw, self.limits.name).map_err(of_member)?;
        let size = extended.size.map_or_else(|| header.number(124..136), Ok)?;
        if is_directory {
            // Some writers give directories a size, but never contents.
            return Ok(None);
        }
        if name.is_empty() {
            return refuse("no name");
        }
        if size > self.limits.size {
            return refuse(&format!("more than {} bytes", self.limits.size));
        }
        self.check_inside(size).map_err(of_member)?;
        let offset = self.at;
        self.skip(size).map_err(of_member)?;
        Ok(Some(Member { name, offset, size }))
    }
}

/// One block of the archive.
struct Header([u8; BLOCK]);

impl Header {
    /// A number: octal digits between blanks, or, with the first bit set, the
    /// bytes of a big-endian integer.
    fn number(&self, field: std::ops::Range<usize>) -> Result<u64> {
        let bytes = &self.0[field];
        if let [first, rest @ ..] = bytes
            && *first >= 0x80
        {
            let mut number = u64::from(first & 0x7F);
            for byte in rest {
                if number >> 56 != 0 {
                    return Err(bad("number out of range"));
                }
                number = number << 8 | u64::from(*byte);
            }
            return Ok(number);
        }
        let digits = until_nul(bytes).trim_ascii();
        digits.iter().try_fold(0, |number: u64, digit| match digit {
            // At most twelve digits, so no overflow.
            b'0'..=b'7' => Ok(number << 3 | u64::from(digit - b'0')),
            _ => Err(bad("octal digit expected in a header")),
        })
    }

    /// The name with ustar's prefix.
    fn name(&self) -> Result<String> {
        let name = text(until_nul(&self.0[..100]))?;
        let prefix = until_nul(&self.0[345..500]);
        // GNU's own format has times there.
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return Ok(name);
        }
        Ok(format!("{}/{name}", text(prefix)?))
    }
}

impl Extended {
    /// Reads the records of a pax header: `<length> <key>=<value>\n`.
    fn add_pax(&mut self, mut records: &[u8]) -> Result<()> {
        let wrong = || bad("malformed pax header");
        while !records.is_empty() {
            let space = records.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
            let length = decimal(&records[..space]).and_then(|n| usize::try_from(n).ok());
            let length = length.filter(|n| *n > space && *n <= records.len());
            let (record, rest) = records.split_at(length.ok_or_else(wrong)?);
            records = rest;
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(text(value)?),
                b"size" => self.size = Some(decimal(value).ok_or_else(wrong)?),
                _ if key.starts_with(b"GNU.sparse.") => return Err(bad("sparse file")),
                _ => {}
            }
        }
        Ok(())
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    digits.parse().ok()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

fn text(bytes: &[u8]) -> Result<String> {
    let text = String::from_utf8(bytes.to_vec());
    text.map_err(|_| bad(format!("name '{}' is not UTF-8", bytes.escape_ascii())))
}

/// The path of a member in its plainest form; empty for the top directory.
fn path(raw: &str, limit: usize) -> Result<String> {
    if raw.len() > limit {
        return Err(bad("name too long"));
    }
    if raw.starts_with('/') {
        return Err(bad("absolute path"));
    }
    if raw.contains(|c: char| c == '\\' || c.is_control()) {
        return Err(bad("backslash or control character"));
    }
    let parts: Vec<&str> = raw.split('/').filter(|p| !matches!(*p, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(bad("'..' in the path"));
    }
    Ok(parts.join("/"))
}
