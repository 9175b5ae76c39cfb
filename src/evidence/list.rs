//! `--status --failed`: the evidence of failed guests, newest first.

use std::io;
use std::path::{Path, PathBuf};

use super::{SUMMARY, published};
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
}

/// Sorts failures, the newest first.
fn newest_first(failed: &mut [FailedGuest]) {
    failed.sort_by(|a, b| (b.name(), &b.path).cmp(&(a.name(), &a.path)));
}

/// The failures for people: three lines each.
#[must_use]
pub fn text(mut failed: Vec<FailedGuest>) -> String {
    newest_first(&mut failed);
    let mut text = String::new();
    for FailedGuest { path, summary } in &failed {
        let word = |name| {
            let value = summary.as_ref().and_then(|summary| summary.get(name));
            value.and_then(Value::as_str).unwrap_or("?")
        };
        let task = match word("task") {
            "?" => String::new(),
            task => format!("{task} on "),
        };
        for line in [
            format!(
                "{} {task}{}: {}",
                word("time"),
                word("machine"),
                word("what")
            ),
            format!("  reason    {}", word("reason")),
            format!("  evidence  {}", path.display()),
        ] {
            // The words of guests and controllers, for a terminal.
            diag::escape(&mut text, &line);
            text.push('\n');
        }
    }
    text
}

/// The failures for programs: what each summary has, and its `path`.
#[must_use]
pub fn json(mut failed: Vec<FailedGuest>) -> Value {
    newest_first(&mut failed);
    let object = |FailedGuest { path, summary }| {
        let mut members = match summary {
            Some(Value::Object(members)) => members,
            _ => Vec::new(),
        };
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
            ("20260103T000000Z-c.partial", "{}"),
        ] {
            fs::create_dir_all(directory.join(name)).unwrap();
            fs::write(directory.join(name).join(SUMMARY), summary).unwrap();
        }
        let failed = failed_guests(&directory).unwrap();
        let shown = directory.display();
        assert_eq!(
            text(failed.clone()),
            format!(
                "? ?: ?\n  reason    ?\n  evidence  {shown}/20260102T000000Z-b\n\
                 t x/1 on a: build timeout\n  reason    it \\u{{1b}}[2Jslept\n  evidence  \
                 {shown}/20260101T000000Z-a\n"
            )
        );
        let json = json(failed);
        let json = json.as_array().unwrap();
        assert_eq!(json.len(), 2);
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
