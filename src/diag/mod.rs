//! Diagnostics in build2's manner: lower case, no full stop, `unable to <verb>
//! <noun>: <reason>`, followed by `info:` lines.
//!
//! Levels: 0 errors only, 1 what matters, 2 essential steps, 3 every operation,
//! 4 for the user in trouble, 5 and 6 for the developer.
//!
//! A record is built whole and written by one write(2), so that lines of other
//! processes cannot split it. What guests and networks said ends up in records,
//! so control characters are escaped here, once, for terminals and logs alike.
//! Standard error may be closed or full: nothing here fails or panics for it.
//!
//! An error or warning that comes again and again is said once, then counted
//! (`repeats`); at level 3 and above every record is wanted.

mod repeats;

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::sys::stat::fstat;

use self::repeats::{Repeats, Verdict};
use crate::error::Error;

/// How records look and which are shown.
#[derive(Debug)]
struct Settings {
    level: u8,
    /// Each line gets its `<n>` (sd-daemon(3)).
    systemd: bool,
    /// The subject of all records, for instance `libfoo/1.2.3 on linux-gcc`.
    scope: Option<String>,
    /// A progress line stands on the terminal, to be wiped before a record.
    progress: bool,
    /// The records of the last hour.
    repeats: Repeats,
}

static SETTINGS: Mutex<Settings> = Mutex::new(Settings {
    level: 1,
    systemd: false,
    scope: None,
    progress: false,
    repeats: Repeats::new(),
});

fn settings() -> MutexGuard<'static, Settings> {
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the level (0 to 6) and whether lines carry systemd's priorities.
pub fn configure(level: u8, systemd: bool) {
    let mut settings = settings();
    settings.level = level;
    settings.systemd = systemd;
}

/// Whether standard error is the journal: `$JOURNAL_STREAM`, `stream` here, is
/// its device and inode (systemd.exec(5)). A child whose error output goes
/// elsewhere inherits the variable, so it says nothing by itself.
#[must_use]
pub fn is_journal(stream: Option<&OsStr>) -> bool {
    let Some((device, inode)) = stream
        .and_then(OsStr::to_str)
        .and_then(|text| text.split_once(':'))
    else {
        return false;
    };
    fstat(std::io::stderr())
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

/// Whether traces of `level` are shown.
#[must_use]
pub fn enabled(level: u8) -> bool {
    settings().level >= level
}

/// The severity of a record, and its priority under systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Critical,
    Error,
    Warning,
    Info,
    Trace,
}

impl Severity {
    fn label(self) -> &'static str {
        match self {
            Severity::Critical | Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
            Severity::Trace => "trace",
        }
    }

    /// syslog(3) levels, as sd-daemon(3) wants them.
    fn priority(self) -> u8 {
        match self {
            Severity::Critical => 2,
            Severity::Error => 3,
            Severity::Warning => 4,
            Severity::Info => 6,
            Severity::Trace => 7,
        }
    }
}

/// A record under construction: a line and the `info:` lines that explain it.
#[derive(Debug)]
#[must_use = "a record is written by emit()"]
pub struct Record {
    severity: Severity,
    lines: Vec<(Severity, String)>,
}

impl Record {
    fn new(severity: Severity, text: impl fmt::Display) -> Record {
        Record {
            severity,
            lines: vec![(severity, text.to_string())],
        }
    }

    /// Adds an `info:` line.
    pub fn info(mut self, text: impl fmt::Display) -> Record {
        self.lines.push((Severity::Info, text.to_string()));
        self
    }

    /// Writes the record, if its level is shown.
    pub fn emit(self) {
        let mut settings = settings();
        let least = match self.severity {
            Severity::Critical | Severity::Error => 0,
            Severity::Warning | Severity::Info => 1,
            Severity::Trace => 2,
        };
        if settings.level < least {
            return;
        }
        let again = if settings.level < 3 && self.may_repeat() {
            let settings = &mut *settings;
            let line = &self.lines[0].1;
            let scope = settings.scope.as_deref();
            match settings
                .repeats
                .said(self.severity, scope, line, Instant::now())
            {
                Verdict::First => None,
                Verdict::Again(times) => Some(times),
                Verdict::Counted => return,
            }
        } else {
            None
        };
        self.write(&mut settings, again);
    }

    fn may_repeat(&self) -> bool {
        matches!(self.severity, Severity::Error | Severity::Warning)
    }

    /// Writes the record; one that is said again has its advice left out.
    fn write(&self, settings: &mut Settings, again: Option<u64>) {
        let mut text = String::new();
        if std::mem::take(&mut settings.progress) {
            text.push_str(WIPE);
        }
        let systemd = settings.systemd;
        for (i, (severity, line)) in self.lines.iter().enumerate() {
            let scope = settings.scope.as_deref().filter(|_| i == 0);
            match again {
                None => render(&mut text, *severity, scope, line, systemd),
                Some(times) => {
                    let line = format!("{line} ({times} more times)");
                    render(&mut text, *severity, scope, &line, systemd);
                    break;
                }
            }
        }
        write(text.as_bytes());
    }
}

/// Says how often what was said once came again, for whatever is still to be
/// told, and takes the progress line away: to be called before the program
/// ends.
pub fn end_repeats() {
    end_progress();
    let mut settings = settings();
    let all = settings.repeats.take(|_| true);
    tell(&mut settings, all);
}

fn tell(settings: &mut Settings, repeats: Vec<repeats::Repeat>) {
    let outer = settings.scope.take();
    for repeat in repeats.into_iter().filter(|repeat| repeat.untold > 0) {
        let record = Record::new(repeat.severity, &repeat.line);
        settings.scope = repeat.scope;
        record.write(settings, Some(repeat.untold));
    }
    settings.scope = outer;
}

/// An error that the agent goes on after.
pub fn error(text: impl fmt::Display) -> Record {
    Record::new(Severity::Error, text)
}

/// Something that is not as it should be.
pub fn warning(text: impl fmt::Display) -> Record {
    Record::new(Severity::Warning, text)
}

/// Something that the operator wants to know.
pub fn info(text: impl fmt::Display) -> Record {
    Record::new(Severity::Info, text)
}

/// The record of an [`Error`] with its advice, which the agent goes on after.
pub fn failure(error: &Error) -> Record {
    describe(Severity::Error, error)
}

/// The record of an [`Error`] that ends the program.
pub fn fatal(error: &Error) -> Record {
    describe(Severity::Critical, error)
}

fn describe(severity: Severity, error: &Error) -> Record {
    error
        .hints()
        .fold(Record::new(severity, error), |record, hint| {
            record.info(hint)
        })
}

/// Writes `trace: <who>: <what>`; called through [`crate::trace!`].
pub fn trace(who: &str, what: fmt::Arguments<'_>) {
    Record::new(Severity::Trace, format_args!("{who}: {what}")).emit();
}

/// Traces at a level, as `trace: <function>: <text>`, formatting nothing when
/// that level is not shown.
///
/// ```
/// bbot_agent::trace!(3, "enumerate_machines", "skipping {}: no link", "/m/a");
/// ```
#[macro_export]
macro_rules! trace {
    ($level:expr, $who:expr, $($what:tt)+) => {
        if $crate::diag::enabled($level) {
            $crate::diag::trace($who, format_args!($($what)+));
        }
    };
}

/// While it lives, every record says what it is about.
#[derive(Debug)]
pub struct Scope(Option<String>);

impl Scope {
    /// Starts a scope; the former one is back when this one ends.
    #[must_use]
    pub fn new(about: impl Into<String>) -> Scope {
        Scope(settings().scope.replace(about.into()))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let mut settings = settings();
        let ended = settings.scope.take();
        if ended.is_some() {
            let of_it = settings.repeats.take(|repeat| repeat.scope == ended);
            settings.scope = ended;
            tell(&mut settings, of_it);
        }
        settings.scope = self.0.take();
    }
}

/// Carriage return and erase to the end of the line (ECMA-48 CR, EL).
const WIPE: &str = "\r\x1b[K";

/// Columns of the progress line. A longer one would wrap and could not be
/// taken back.
const COLUMNS: usize = 79;

/// Shows `line` in place of the former progress line, cut to fit. The caller
/// has made sure that standard error is a terminal.
pub fn progress(line: &str) {
    let mut safe = String::new();
    escape(&mut safe, line);
    let mut text = String::from(WIPE);
    if safe.chars().count() > COLUMNS {
        text.extend(safe.chars().take(COLUMNS - 3));
        text.push_str("...");
    } else {
        text.push_str(&safe);
    }
    settings().progress = true;
    write(text.as_bytes());
}

/// Takes the progress line away.
pub fn end_progress() {
    if std::mem::take(&mut settings().progress) {
        write(WIPE.as_bytes());
    }
}

fn render(out: &mut String, severity: Severity, scope: Option<&str>, text: &str, systemd: bool) {
    let mut lines = text.lines();
    let mut line = lines.next().unwrap_or_default();
    let mut first = true;
    loop {
        if systemd {
            // Writing to a String does not fail.
            let _ = write!(out, "<{}>", severity.priority());
        }
        if first {
            out.push_str(severity.label());
            out.push_str(": ");
            if let Some(scope) = scope {
                escape(out, scope);
                out.push_str(": ");
            }
        } else {
            out.push_str("  ");
        }
        escape(out, line);
        out.push('\n');
        first = false;
        match lines.next() {
            Some(next) => line = next,
            None => return,
        }
    }
}

/// Appends `text` with control and format characters made visible, so that no
/// guest can steer a terminal or forge a line.
pub fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        let invisible = matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if (c.is_control() && c != '\t') || invisible {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

fn write(bytes: &[u8]) {
    // Nobody is left to be told when standard error is closed or full.
    let _ = std::io::stderr().write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(severity: Severity, scope: Option<&str>, text: &str, systemd: bool) -> String {
        let mut out = String::new();
        render(&mut out, severity, scope, text, systemd);
        out
    }

    #[test]
    fn every_line_carries_its_priority_under_systemd() {
        assert_eq!(
            rendered(Severity::Error, None, "a\nb", true),
            "<3>error: a\n<3>  b\n"
        );
    }

    #[test]
    fn a_guest_cannot_steer_the_terminal() {
        assert_eq!(
            rendered(Severity::Info, None, "\x1b[31mred\u{202e}", false),
            "info: \\u{1b}[31mred\\u{202e}\n"
        );
    }

    #[test]
    fn a_stream_that_is_not_ours_is_not_the_journal() {
        assert!(!is_journal(None));
        assert!(!is_journal(Some(OsStr::new("8:1:2"))));
        assert!(!is_journal(Some(OsStr::new("0:0"))));
        let stat = fstat(std::io::stderr()).unwrap();
        let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(Some(OsStr::new(&stream))));
    }

    #[test]
    fn the_scope_stands_between_label_and_text() {
        assert_eq!(
            rendered(Severity::Warning, Some("libfoo/1 on gcc"), "slow", false),
            "warning: libfoo/1 on gcc: slow\n"
        );
    }
}
