//! A file with a state that is valid until the host is restarted.

use std::path::{Path, PathBuf};

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
    /// Opens the file at `path`, which is this agent's. Returns also its state, if that is
    /// of this boot and can be read.
    pub fn open(path: PathBuf) -> (BootFile, Option<Value>) {
        durable::tidy(&path);
        let (text, state) = read(&path);
        (BootFile { path, text }, state)
    }

    /// The state in the file at `path`, which is another agent's.
    pub fn peek(path: &Path) -> Option<Value> {
        read(path).1
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

fn read(path: &Path) -> (String, Option<Value>) {
    let text = durable::read(path, MAX_BOOT_FILE_BYTES).unwrap_or_default();
    let text = String::from_utf8(text).unwrap_or_default();
    let state = Value::parse(&text)
        .ok()
        .filter(|state| state.get("boot").and_then(Value::as_str) == Boot::current().0.as_deref());
    (text, state)
}
