//! Files that the command line names, `-` being standard input.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Context as _, Result};
use crate::sys::file::read_at_most;

/// The maximum size of an input file, in bytes.
const LIMIT: u64 = 16 << 20;

/// Reads the file `path`, or standard input if that is `-`.
///
/// # Errors
///
/// Those of open(2) and read(2), and more than 16 MiB.
pub fn input(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("unable to read {}", path.display());
    if path == Path::new("-") {
        read_at_most(&mut io::stdin(), LIMIT).context(what)
    } else {
        read_at_most(&mut File::open(path).context(what)?, LIMIT).context(what)
    }
}
