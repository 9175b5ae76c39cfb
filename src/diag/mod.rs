//! Diagnostics in build2's manner: lower case, no full stop, `unable to <verb>
//! <noun>: <reason>`, followed by `info:` lines.
//!
//! Levels: 0 errors only, 1 what matters, 2 essential steps, 3 every operation,
//! 4 for the user in trouble, 5 and 6 for the developer.
//!
//! A record is built whole and written by one write(2), so that lines of other
//! processes cannot split it. Records contain the words of guests and controllers, so
//! control characters are escaped here, for terminals and logs alike. Standard error
//! may be closed, full or without a reader: no function here fails, or waits for it.
//!
//! A repeated error or warning is written once, then counted (`repeats`); in the end the
//! number is written as an `info:` line. At level 3 and above every record is written. The last records, up to level 2 also those that are
//! not shown, are kept for the evidence of a failed guest (`recent`).

mod journal;
mod output;
mod recent;
mod record;
mod repeats;

use std::ffi::OsStr;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::stat::fstat;

use self::journal::SystemJournal;
use self::output::StandardError;
use self::recent::RecentRecords;
use self::record::Severity;
use self::repeats::Repeats;
use crate::error::{Error, Result};

pub use self::record::{Record, escape};

/// How records look and which are shown.
#[derive(Debug)]
struct Diagnostics {
    level: u8,
    /// Each line gets its `<n>` (sd-daemon(3)).
    systemd: bool,
    /// The journal, if standard error leads there.
    journal: Option<SystemJournal>,
    /// The subject of all records.
    scope: Option<TaskScope>,
    /// A progress line stands on the terminal, to be wiped before a record.
    progress: bool,
    /// The records of the last hour.
    repeats: Repeats,
    /// The last records.
    recent: RecentRecords,
    output: StandardError,
}

static DIAGNOSTICS: Mutex<Diagnostics> = Mutex::new(Diagnostics {
    level: 1,
    systemd: false,
    journal: None,
    scope: None,
    progress: false,
    repeats: Repeats::new(),
    recent: RecentRecords::new(),
    output: StandardError::new(),
});

fn diagnostics() -> MutexGuard<'static, Diagnostics> {
    DIAGNOSTICS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the level (0 to 6), and whether lines carry systemd's priorities. If
/// `$JOURNAL_STREAM` names standard error, records go to the journal.
pub fn configure(level: u8, systemd: bool) {
    let is_journal = is_journal(std::env::var_os("JOURNAL_STREAM").as_deref());
    let mut diagnostics = diagnostics();
    diagnostics.level = level;
    diagnostics.systemd = systemd || is_journal;
    diagnostics.journal = is_journal.then(SystemJournal::connect).flatten();
}

/// Whether standard error is the journal: `$JOURNAL_STREAM`, `stream` here, is
/// its device and inode (systemd.exec(5)). A child whose error output goes
/// elsewhere inherits the variable.
fn is_journal(stream: Option<&OsStr>) -> bool {
    let Some((device, inode)) = stream
        .and_then(OsStr::to_str)
        .and_then(|text| text.split_once(':'))
    else {
        return false;
    };
    fstat(std::io::stderr())
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

/// The level up to which records are kept that are not shown. The agent writes none of
/// these in an idle turn.
const RECENT_LEVEL: u8 = 2;

/// Whether traces of `level` are shown, or kept for evidence.
pub fn enabled(level: u8) -> bool {
    level <= RECENT_LEVEL || diagnostics().level >= level
}

/// The last records, at most 64 KiB, each with its age in seconds at `now`.
pub fn recent(now: Instant) -> String {
    diagnostics().recent.text(now)
}

/// The task that records are about, if there is one.
pub fn scope() -> Option<TaskScope> {
    diagnostics().scope.clone()
}

/// Ends the diagnostics of the program: writes the pending counts of repeated records,
/// clears the progress line, and waits a moment for a reader that is behind.
pub fn end() {
    /// The time that a reader has.
    const GRACE: Duration = Duration::from_secs(1);
    end_progress();
    let mut diagnostics = diagnostics();
    let all = diagnostics.repeats.take(|_| true);
    diagnostics.write_counts(all);
    diagnostics.output.drain(GRACE);
    diagnostics.report_lost();
}

/// Writes records that the reader of standard error has not taken so far.
pub fn flush() {
    let mut diagnostics = diagnostics();
    diagnostics.output.flush();
    diagnostics.report_lost();
}

/// Whether [`flush`] has something to write.
pub fn is_behind() -> bool {
    diagnostics().output.is_behind()
}

impl Diagnostics {
    /// Reports records that were lost because standard error was not read.
    fn report_lost(&mut self) {
        if let Some(count) = self.output.take_lost() {
            let text = format!("{count} diagnostics were lost: standard error was not read");
            Record::new(Severity::Warning, text).write(self, None);
        }
    }
}

/// An error after which the agent goes on.
pub fn error(text: impl fmt::Display) -> Record {
    Record::new(Severity::Error, text)
}

/// A condition that the operator should mend.
pub fn warning(text: impl fmt::Display) -> Record {
    Record::new(Severity::Warning, text)
}

/// News for the operator.
pub fn info(text: impl fmt::Display) -> Record {
    Record::new(Severity::Info, text)
}

/// The record of an [`Error`] with its advice, after which the agent goes on.
pub fn failure(error: &Error) -> Record {
    describe(Severity::Error, error)
}

/// Reports the error of an action whose failure changes nothing for the caller.
pub fn report<T>(done: Result<T>) {
    if let Err(error) = done {
        failure(&error).emit();
    }
}

/// The record of an [`Error`] that ends the program.
pub fn fatal(error: &Error) -> Record {
    describe(Severity::Critical, error)
}

fn describe(severity: Severity, error: &Error) -> Record {
    let record = Record::new(severity, error);
    error
        .hints()
        .fold(record, |record, hint| match hint.strip_prefix(EVIDENCE) {
            Some(path) => record.evidence(path),
            None => record.info(hint),
        })
}

/// The beginning of a line, or of a hint of an error, that names the directory with the
/// evidence of a failure.
pub const EVIDENCE: &str = "evidence in ";

/// Writes `trace: <who>: <what>`; called through [`crate::trace!`].
pub fn trace(level: u8, who: &str, what: fmt::Arguments<'_>) {
    Record::new(Severity::Trace, format_args!("{who}: {what}"))
        .with_level(level)
        .emit();
}

/// Traces at a level, as `trace: <function>: <text>`, formatting nothing when
/// that level is neither shown nor kept.
///
/// ```
/// bbot_agent::trace!(3, "enumerate_machines", "skipping {}: no link", "/m/a");
/// ```
#[macro_export]
macro_rules! trace {
    ($level:expr, $who:expr, $($what:tt)+) => {
        if $crate::diag::enabled($level) {
            $crate::diag::trace($level, $who, format_args!($($what)+));
        }
    };
}

/// The task that records are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskScope {
    /// Package and version, `libfoo/1.2.3`.
    pub package: String,
    /// The name of the machine.
    pub machine: String,
    /// The controller's session; empty if there is none.
    pub session: String,
}

impl TaskScope {
    /// The fields of the journal.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("BBOT_PACKAGE", &self.package),
            ("BBOT_MACHINE", &self.machine),
            ("BBOT_SESSION", &self.session),
        ];
        let text = fields.map(|(name, value)| (name, value.clone()));
        text.into()
    }
}

impl fmt::Display for TaskScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.package, self.machine)?;
        if !self.session.is_empty() {
            write!(f, " (session {})", self.session)?;
        }
        Ok(())
    }
}

/// A span of time in which every record names the task.
#[derive(Debug)]
pub struct Scope(Option<TaskScope>);

impl Scope {
    /// Starts a scope; the former one is back when this one ends.
    #[must_use]
    pub fn new(task: TaskScope) -> Scope {
        Scope(diagnostics().scope.replace(task))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let mut diagnostics = diagnostics();
        let ended = diagnostics.scope.take();
        if ended.is_some() {
            let repeats = diagnostics.repeats.take(|repeat| repeat.scope == ended);
            diagnostics.scope = ended;
            diagnostics.write_counts(repeats);
        }
        diagnostics.scope = self.0.take();
    }
}

/// Carriage return and erase to the end of the line (ECMA-48 CR, EL).
const WIPE: &str = "\r\x1b[K";

/// Columns of the progress line: those of a terminal of 80 but for the last one, in
/// which some terminals wrap.
const COLUMNS: usize = 79;

/// Shows `subject` and `rest` in place of the former progress line. If they do not fit,
/// the subject is cut. Standard error has to be a terminal.
pub fn progress(subject: &str, rest: &str) {
    let mut diagnostics = diagnostics();
    if diagnostics.output.is_behind() {
        return;
    }
    diagnostics.progress = true;
    let line = format!("{WIPE}{}", fitted(subject, rest));
    diagnostics.output.write(line.as_bytes());
}

/// Clears the progress line.
pub fn end_progress() {
    let mut diagnostics = diagnostics();
    if std::mem::take(&mut diagnostics.progress) {
        diagnostics.output.write(WIPE.as_bytes());
    }
}

fn fitted(subject: &str, rest: &str) -> String {
    let (mut line, mut end) = (String::new(), String::new());
    escape(&mut line, subject);
    escape(&mut end, rest);
    let room = COLUMNS.saturating_sub(end.chars().count());
    if line.chars().count() > room {
        line = line.chars().take(room.saturating_sub(3)).collect();
        line.push_str("...");
    }
    line.push_str(&end);
    line.chars().take(COLUMNS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_stream_is_not_the_journal() {
        assert!(!is_journal(None));
        assert!(!is_journal(Some(OsStr::new("8:1:2"))));
        assert!(!is_journal(Some(OsStr::new("0:0"))));
        let stat = fstat(std::io::stderr()).unwrap();
        let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(Some(OsStr::new(&stream))));
    }

    #[test]
    fn a_long_progress_line_keeps_its_times() {
        assert_eq!(fitted("idle", ": 1s"), "idle: 1s");
        let line = fitted(&"x".repeat(200), ": 42s of 1h30m");
        assert_eq!(line.len(), COLUMNS);
        assert!(line.ends_with("xxx...: 42s of 1h30m"));
    }
}
