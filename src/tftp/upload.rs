//! The guard of a file that is being uploaded: invisible until it is complete.
//!
//! On file systems with `O_TMPFILE` the file has no name until then, and a killed
//! process leaves nothing behind. On others it has a hidden name in the same directory.
//! It replaces an old file by an exchange of names or a rename, so that readers get
//! either file complete.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use super::map::{PART_PREFIX, PART_SUFFIX};
use super::netascii::Decoder;
use super::packet::Mode;
use super::tree::Place;
use crate::diag;
use crate::error::reason;
use crate::sys::file::{self, Access};

/// Small blocks are gathered up to so many octets before they are written.
const GATHER_BYTES: usize = 64 * 1024;

/// Permissions of an uploaded file, before the umask.
const MODE: u32 = 0o666;

/// A file under way. Dropped, it was never there.
#[derive(Debug)]
pub struct UploadFile {
    place: Place,
    file: File,
    /// The hidden name of the file, where it must have one; once it is in place, that
    /// of the file that it replaced.
    part: Option<String>,
    decoder: Option<Decoder>,
    gathered: Vec<u8>,
    written: u64,
    /// The file that it replaced: freeing it takes a while, for which the last ACK does
    /// not wait.
    _replaced: Option<File>,
}

impl UploadFile {
    /// Begins a file at `place`.
    pub fn create(place: Place, mode: Mode) -> io::Result<UploadFile> {
        let (file, part) = match file::create_unnamed(place.directory.as_fd(), MODE) {
            Ok(file) => (file, None),
            Err(error) if lacks_unnamed(&error) => {
                let (file, name) = create_hidden(&place)?;
                (file, Some(name))
            }
            Err(error) => return Err(error),
        };
        Ok(UploadFile {
            place,
            file,
            part,
            decoder: (mode == Mode::Netascii).then(Decoder::default),
            gathered: Vec::new(),
            written: 0,
            _replaced: None,
        })
    }

    /// Octets of the file so far.
    pub fn size(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    /// Whether the file system has room for `size` octets, as far as it says.
    pub fn has_room(&self, size: u64) -> bool {
        file::room(self.file.as_fd()).is_none_or(|room| size <= room)
    }

    /// Appends the payload of a block. What is not written yet is written by
    /// [`UploadFile::commit`] at the latest.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        if let Some(decoder) = &mut self.decoder {
            decoder.decode(payload, &mut self.gathered);
        } else if self.gathered.is_empty() && payload.len() >= GATHER_BYTES / 4 {
            self.file.write_all_at(payload, self.written)?;
            self.written += payload.len() as u64;
            return Ok(());
        } else {
            if self.gathered.len() + payload.len() > GATHER_BYTES {
                self.write_gathered()?;
            }
            self.gathered.extend_from_slice(payload);
        }
        if self.gathered.len() >= GATHER_BYTES {
            self.write_gathered()?;
        }
        Ok(())
    }

    fn write_gathered(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.gathered, self.written)?;
        self.written += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }

    /// Writes what is left, and gives the file its name, in place of an old one.
    ///
    /// # Errors
    ///
    /// Those of write(2), linkat(2), rename(2), and those that a file system keeps for
    /// close(2). The old file, if any, is then still there.
    pub fn commit(&mut self) -> io::Result<()> {
        if let Some(decoder) = &mut self.decoder {
            decoder.finish(&mut self.gathered);
        }
        if !self.gathered.is_empty() {
            self.write_gathered()?;
        }
        file::flush(self.file.as_fd())?;
        let directory = self.place.directory.as_fd();
        if self.part.is_none() {
            match file::link_unnamed(self.file.as_fd(), directory, &self.place.name) {
                // It takes a name to replace another one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let part = hidden_name();
                    file::link_unnamed(self.file.as_fd(), directory, &part)?;
                    self.part = Some(part);
                }
                result => return result,
            }
        }
        if let Some(part) = &self.part {
            self._replaced = file::open_beneath(directory, &self.place.name, Access::Look).ok();
            // A rename over a file has ext4 and btrfs write the new one out first.
            if file::exchange_within(directory, part, &self.place.name).is_err() {
                file::rename_within(directory, part, &self.place.name)?;
                self.part = None;
            } else if file::remove(directory, part).is_ok() {
                self.part = None;
            }
        }
        Ok(())
    }
}

impl Drop for UploadFile {
    fn drop(&mut self) {
        let Some(part) = self.part.take() else {
            return;
        };
        match file::remove(self.place.directory.as_fd(), &part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                diag::warning(format_args!(
                    "unable to remove unfinished upload {part}: {}",
                    reason(&error)
                ))
                .emit();
            }
            _ => {}
        }
    }
}

/// Whether the file system (or the kernel) has no files without a name.
fn lacks_unnamed(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT | Errno::ENOSYS)
    )
}

/// A name that no other upload of this process has, and that none is refused
/// for: the names in a directory are not for a guest to choose.
fn hidden_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PART_PREFIX}{}-{number}{PART_SUFFIX}", std::process::id())
}

fn create_hidden(place: &Place) -> io::Result<(File, String)> {
    // What a killed process of the same id left behind may be in the way.
    for _ in 0..64 {
        let name = hidden_name();
        match file::create_new(place.directory.as_fd(), &name, MODE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return Ok((result?, name)),
        }
    }
    Err(Errno::EEXIST.into())
}
