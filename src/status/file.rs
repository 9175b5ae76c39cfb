//! Small files that others read while we write them, and the state file in
//! particular.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Moment, State, StatusSettings, show};
use crate::error::{Context as _, Error, Result};
use crate::json::Value;

/// The name of the state file in an agent's run directory.
pub(super) const NAME: &str = "status.json";

/// The state file in an agent's run directory.
#[must_use]
pub fn file_in(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The maximum size of a state file, in bytes. The agent writes a few thousand.
const LARGEST: u64 = 1 << 20;

/// Puts a file in place of another in one step, so that a reader sees either.
/// Not synced: after a crash of the system nobody asks for it.
///
/// On the way it has the same hidden name each time, so that one that a killed
/// agent left is taken away by the next one, and there is never more than one.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    // Collectors look for names that end in `.prom`: not this one.
    hidden.push(".new");
    let temporary = path.with_file_name(hidden);
    let written = create_anew(&temporary)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Perhaps it was never made.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Makes a file that nobody else has: what is there may have other names, or be
/// a link that leads elsewhere.
fn create_anew(path: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            File::create_new(path)
        }
        created => created,
    }
}

/// Replaces a file, or says why not: that is no reason to stop working.
pub(super) fn publish(path: &Path, text: &str, what: &str) {
    if let Err(error) = replace(path, text.as_bytes()) {
        let reason = crate::error::reason(&error);
        let text = format!("unable to write {what} {}: {reason}", path.display());
        crate::diag::warning(text).emit();
    }
}

/// The text of the state file, as a value.
pub(super) fn document(config: &StatusSettings, started: Moment, state: &State) -> Value {
    let number = |n: u64| Value::Number(n.to_string());
    let pid = u64::from(std::process::id());
    let mut members: Vec<(String, Value)> = [
        ("version", Value::String(env!("CARGO_PKG_VERSION").into())),
        ("pid", number(pid)),
        ("pid_start", number(own_start())),
        ("started", number(started.wall.as_secs())),
        ("toolchain", Value::String(config.toolchain.clone())),
        ("instance", number(config.instance.into())),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    members.extend(state.json());
    Value::Object(members)
}

/// When this process started, which is asked once.
fn own_start() -> u64 {
    static START: OnceLock<u64> = OnceLock::new();
    *START.get_or_init(|| show::start_time(std::process::id().into()).unwrap_or(0))
}

/// Reads the state file at `path`; `None` if there is none.
///
/// # Errors
///
/// One that cannot be read, is too large or is not what we write.
pub fn read(path: &Path) -> Result<Option<Value>> {
    let unable = || format!("unable to read status {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.context(unable)?,
    };
    let mut text = String::new();
    file.take(LARGEST)
        .read_to_string(&mut text)
        .context(unable)?;
    match Value::parse(&text) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(Error::new(unable()).hint("it is not a JSON object")),
        Err(error) => Err(error).context(unable),
    }
}

/// The state files of every agent under the run directory, in order of name.
///
/// # Errors
///
/// Those of opendir(3) and readdir(3), except that a directory that does not
/// exist has none.
pub fn find(run_dir: &Path) -> Result<Vec<PathBuf>> {
    let unable = || format!("unable to list {}", run_dir.display());
    let entries = match fs::read_dir(run_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(unable)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.context(unable)?.path().join(NAME);
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_the_old_file_or_the_new_one() {
        let name = format!("bbot-agent-file-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.prom");
        replace(&path, b"old").unwrap();
        let reader = File::open(&path).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(replace(&dir.join("no/dir"), b"").is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_a_killed_writer_left_goes_with_the_next_one() {
        let name = format!("bbot-agent-left-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let (path, precious) = (dir.join("a.prom"), dir.join("precious"));
        fs::write(&precious, "p").unwrap();
        // Of whatever process, and not to be written through.
        std::os::unix::fs::symlink(&precious, dir.join(".a.prom.new")).unwrap();
        replace(&path, b"text").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        assert!(!path.is_symlink());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "p");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_state_file_that_is_not_ours_is_an_error() {
        let path = std::env::temp_dir().join(format!("bbot-agent-state-{}", std::process::id()));
        assert_eq!(read(&path).unwrap(), None);
        for text in ["", "[]", "{\"phase\":", "\u{1b}[2J"] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text:?}");
        }
        fs::remove_file(&path).unwrap();
    }
}
