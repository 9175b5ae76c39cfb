//! A file with a state that is valid until the host is restarted.

use std::path::PathBuf;

use super::Boot;
use crate::durable;
use crate::error::reason;
use crate::json::Value;
use crate::trace;

/// The largest file in bytes.
const MAX_BOOT_FILE_BYTES: u64 = 1 << 20;

/// The file of a state: an object, with the id of the boot.
#[derive(Debug)]
pub struct BootFile {
    path: PathBuf,
    /// Its text, so that a state that is the same is not written again.
    text: String,
}

impl BootFile {
    /// Opens the file at `path`. Returns also its state, if that is of this boot and can
    /// be read.
    pub fn open(path: PathBuf) -> (BootFile, Option<Value>) {
        let text = durable::read(&path, MAX_BOOT_FILE_BYTES).unwrap_or_default();
        let text = String::from_utf8(text).unwrap_or_default();
        let state = Value::parse(&text).ok().filter(|state| {
            state.get("boot").and_then(Value::as_str) == Boot::current().0.as_deref()
        });
        (BootFile { path, text }, state)
    }

    /// Writes a state, without members an empty file. Without the file the next agent
    /// begins anew, so that a failure is no error.
    pub fn write(&mut self, state: Vec<(&str, Value)>) {
        let text = if state.is_empty() {
            String::new()
        } else {
            let boot = ("boot", Boot::current().0.into());
            Value::object([boot].into_iter().chain(state)).to_string()
        };
        if text == self.text {
            return;
        }
        if let Err(error) = durable::publish(&self.path, text.as_bytes()) {
            trace!(2, "write", "{}: {}", self.path.display(), reason(&error));
        }
        self.text = text;
    }
}
