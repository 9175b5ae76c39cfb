//! `--status --failed`: the evidence of failed guests, newest first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{STATE_LINK, SUMMARY, published};
use crate::diag;
use crate::durable;
use crate::error::{Context as _, Result};
use crate::json::Value;

/// The maximum size of a summary, in bytes. The agent writes a few thousand.
const MAX_SUMMARY_BYTES: u64 = 1 << 20;

/// A failure that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedGuest {
    /// Its directory.
    pub path: PathBuf,
    /// Its summary; `None` if it cannot be read.
    summary: Option<Value>,
}

/// The state of a failed guest that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// Its subvolume.
    pub path: PathBuf,
    /// The bytes that it took of the disk when it was made.
    pub bytes: u64,
    /// Whether the guest's memory is in it.
    pub has_memory: bool,
}

/// The failures in `directory`, in no order.
pub fn failed_guests(directory: &Path) -> Result<Vec<FailedGuest>> {
    let paths =
        published(directory).context(|| format!("unable to list {}", directory.display()))?;
    let read = |path: PathBuf| FailedGuest {
        summary: summary(&path).ok(),
        path,
    };
    Ok(paths.into_iter().map(read).collect())
}

fn summary(path: &Path) -> io::Result<Value> {
    let text = durable::read(&path.join(SUMMARY), MAX_SUMMARY_BYTES)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    Value::parse(&text).map_err(io::Error::other)
}

impl FailedGuest {
    fn name(&self) -> &std::ffi::OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Its state, if that is kept and still there.
    #[must_use]
    pub fn state(&self) -> Option<KeptState> {
        let path = fs::read_link(self.path.join(STATE_LINK)).ok()?;
        let state = self.summary.as_ref()?.get(STATE_LINK)?;
        path.is_dir().then_some(KeptState {
            path,
            bytes: state.get("bytes")?.as_u64()?,
            has_memory: state.get("memory")?.as_bool()?,
        })
    }
}

/// Sorts failures, the newest first.
fn newest_first(failed: &mut [FailedGuest]) {
    failed.sort_by(|a, b| (b.name(), &b.path).cmp(&(a.name(), &a.path)));
}

/// The failures for people: three lines each, and one more for a state that is kept.
#[must_use]
pub fn text(mut failed: Vec<FailedGuest>) -> String {
    newest_first(&mut failed);
    let mut text = String::new();
    for guest in &failed {
        let FailedGuest { path, summary } = guest;
        let word = |name| {
            let value = summary.as_ref().and_then(|summary| summary.get(name));
            value.and_then(Value::as_str).unwrap_or("?")
        };
        let task = match word("task") {
            "?" => String::new(),
            task => format!("{task} on "),
        };
        let state = guest.state().map(|state| {
            let what = match state.has_memory {
                true => "memory and disk",
                false => "disk only",
            };
            format!(
                "  state     {what}, {} MiB, for --resume",
                state.bytes >> 20
            )
        });
        let lines = [
            format!(
                "{} {task}{}: {}",
                word("time"),
                word("machine"),
                word("what")
            ),
            format!("  reason    {}", word("reason")),
            format!("  evidence  {}", path.display()),
        ];
        for line in lines.into_iter().chain(state) {
            // The words of guests and controllers, for a terminal.
            diag::escape(&mut text, &line);
            text.push('\n');
        }
    }
    text
}

/// The failures for programs: what each summary has, whether `--resume` can start the guest
/// again, and its `path`.
#[must_use]
pub fn json(mut failed: Vec<FailedGuest>) -> Value {
    newest_first(&mut failed);
    let object = |guest: FailedGuest| {
        let is_resumable = guest.state().is_some();
        let FailedGuest { path, summary } = guest;
        let mut members = match summary {
            Some(Value::Object(members)) => members,
            _ => Vec::new(),
        };
        members.push(("resumable".to_owned(), is_resumable.into()));
        members.push(("path".to_owned(), path.display().to_string().into()));
        Value::Object(members)
    };
    Value::Array(failed.into_iter().map(object).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn failures_are_listed_newest_first_and_damaged_ones_too() {
        let directory = std::env::temp_dir().join(format!("bbot-list-{}", std::process::id()));
        assert_eq!(failed_guests(&directory).unwrap(), []);
        for (name, summary) in [
            (
                "20260101T000000Z-a",
                "{\"time\":\"t\",\"machine\":\"a\",\"task\":\"x/1\",\"what\":\"build timeout\",\
                 \"reason\":\"it \\u001b[2Jslept\"}",
            ),
            ("20260102T000000Z-b", "{\"mach"),
            (
                "20251231T000000Z-d",
                "{\"machine\":\"d\",\"state\":{\"bytes\":5242880,\"memory\":true}}",
            ),
            ("20260103T000000Z-c.partial", "{}"),
        ] {
            fs::create_dir_all(directory.join(name)).unwrap();
            fs::write(directory.join(name).join(SUMMARY), summary).unwrap();
        }
        let old = directory.join("20251231T000000Z-d");
        std::os::unix::fs::symlink(&directory, old.join(STATE_LINK)).unwrap();
        let failed = failed_guests(&directory).unwrap();
        let shown = directory.display();
        assert_eq!(
            text(failed.clone()),
            format!(
                "? ?: ?\n  reason    ?\n  evidence  {shown}/20260102T000000Z-b\n\
                 t x/1 on a: build timeout\n  reason    it \\u{{1b}}[2Jslept\n  evidence  \
                 {shown}/20260101T000000Z-a\n? d: ?\n  reason    ?\n  evidence  \
                 {shown}/20251231T000000Z-d\n  state     memory and disk, 5 MiB, for --resume\n"
            )
        );
        let json = json(failed);
        let json = json.as_array().unwrap();
        assert_eq!(json.len(), 3);
        let resumable = |n: usize| json[n].get("resumable").and_then(Value::as_bool);
        assert_eq!((resumable(0), resumable(2)), (Some(false), Some(true)));
        assert_eq!(json[1].get("task").unwrap().as_str(), Some("x/1"));
        assert!(
            json[0]
                .get("path")
                .unwrap()
                .as_str()
                .unwrap()
                .ends_with("-b")
        );
        fs::remove_dir_all(directory).unwrap();
    }
}
