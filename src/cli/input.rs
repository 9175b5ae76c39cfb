//! Files that the command line names, `-` being standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Context as _, Error, Result};

/// What is read at most, in bytes.
const LIMIT: u64 = 16 << 20;

/// What is in the file `path`, or comes from standard input if that is `-`.
///
/// # Errors
///
/// Those of open(2) and read(2), and more than 16 MiB.
pub fn input(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("unable to read {}", path.display());
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).context(what)?)
    };
    let mut text = Vec::new();
    source
        .take(LIMIT + 1)
        .read_to_end(&mut text)
        .context(what)?;
    if text.len() as u64 > LIMIT {
        return Err(Error::new(format!(
            "{}: it is larger than {LIMIT} bytes",
            what()
        )));
    }
    Ok(text)
}
