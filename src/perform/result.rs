//! The result that a worker has uploaded.

use std::io::{BufRead as _, BufReader, Read as _};

use super::BuildSettings;
use crate::error::{Context as _, Result};
use crate::lz4;
use crate::manifest::{ResultManifest, Shortener, sanitize};
use crate::tftp::Upload;

/// How many bytes are kept beyond those that fit into a result, which is cut at the same
/// place of a log: a third from its start. Lines are shorter.
const SLACK_BYTES: usize = 64 << 10;

/// Reads a result, or says in a clause what is wrong with it. Logs may hold whatever
/// compilers print, so the text is made fit to be a manifest first. Of each log no more
/// is kept than a controller takes.
pub(super) fn read(
    upload: &Upload,
    config: &BuildSettings,
) -> Result<Result<ResultManifest, String>> {
    let unable = || format!("unable to read upload {}", upload.path.display());
    let file = upload.open()?.take(config.upload_limit);
    let mut input = BufReader::new(file);
    let most = usize::try_from(config.result_limit).unwrap_or(usize::MAX / 2);
    let mut text = Shortener::new(most / 3 + SLACK_BYTES, most - most / 3 + SLACK_BYTES);
    let name = &upload.name;
    if name.ends_with(".lz4") {
        let unpacked = lz4::decode(&mut input, config.upload_limit, &mut |piece| {
            text.push(piece);
        });
        if let Err(error) = unpacked {
            return Ok(Err(format!(
                "the worker uploaded a {name} that cannot be unpacked ({error})"
            )));
        }
    } else {
        loop {
            let piece = input.fill_buf().context(unable)?;
            let length = piece.len();
            if length == 0 {
                break;
            }
            text.push(piece);
            input.consume(length);
        }
    }
    let text = text.finish();
    let result = ResultManifest::parse(sanitize(&text).as_bytes(), name);
    Ok(result.map_err(|error| format!("the worker uploaded an invalid result manifest ({error})")))
}
