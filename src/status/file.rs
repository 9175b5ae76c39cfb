//! The state file in the run directory, which `--status` reads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Moment, State, StatusSettings};
use crate::durable;
use crate::error::{Context as _, Error, Result};
use crate::json::Value;
use crate::lock;
use crate::sys::procfs::start_time;

/// The name of the state file in an agent's run directory.
pub(super) const NAME: &str = "status.json";

/// The state file in an agent's run directory.
pub fn file_in(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The maximum size of a state file, in bytes. The agent writes a few thousand.
const MAX_BYTES: u64 = 1 << 20;

/// Replaces a file. An error is reported, and the agent goes on without the file.
pub(super) fn publish(path: &Path, text: &str, what: &str) {
    if let Err(error) = durable::publish(path, text.as_bytes()) {
        let reason = crate::error::reason(&error);
        let text = format!("unable to write {what} {}: {reason}", path.display());
        crate::diag::warning(text).emit();
    }
}

/// The text of the state file, as a value.
pub(super) fn document(config: &StatusSettings, started: Moment, state: &State) -> Value {
    let members = [
        ("version", Value::from(env!("CARGO_PKG_VERSION"))),
        ("pid", u64::from(std::process::id()).into()),
        ("pid_start", own_start().into()),
        ("started", started.wall.as_secs().into()),
        ("toolchain", Value::from(&*config.toolchain)),
        ("instance", u64::from(config.instance).into()),
    ];
    Value::object(members.into_iter().chain(state.json()))
}

/// The start time of this process, as proc(5) has it.
fn own_start() -> u64 {
    static START: OnceLock<u64> = OnceLock::new();
    *START.get_or_init(|| start_time(std::process::id()).unwrap_or(0))
}

/// Reads the state file at `path`; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Value>> {
    let unable = || format!("unable to read status {}", path.display());
    let text = match durable::read(path, MAX_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => String::from_utf8(text.context(unable)?).context(unable)?,
    };
    match Value::parse(&text) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(Error::new(unable()).hint("it is not a JSON object")),
        Err(error) => Err(error).context(unable),
    }
}

/// The state files of every agent under the run directory, in order of name.
pub fn find(run_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = lock::directories(run_dir)?
        .iter()
        .map(|dir| file_in(dir))
        .collect();
    files.retain(|path| path.is_file());
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_state_file_of_another_form_is_an_error() {
        let path = std::env::temp_dir().join(format!("bbot-agent-state-{}", std::process::id()));
        assert_eq!(read(&path).unwrap(), None);
        for text in ["", "[]", "{\"phase\":", "\u{1b}[2J"] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text:?}");
        }
        fs::remove_file(&path).unwrap();
    }
}
