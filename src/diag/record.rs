//! One record of diagnostics, and its text.

use std::fmt::{self, Write as _};
use std::time::Instant;

use super::repeats::{Repeat, RepeatDecision};
use super::{Diagnostics, EVIDENCE, RECENT_LEVEL, TaskScope, WIPE, diagnostics};

/// The severity of a record, and its priority under systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
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
    /// The level from which on it is shown.
    level: u8,
    lines: Vec<(Severity, String)>,
    /// Fields of the journal besides those of the task.
    fields: Vec<(&'static str, String)>,
}

impl Record {
    pub(super) fn new(severity: Severity, text: impl fmt::Display) -> Record {
        Record {
            severity,
            level: match severity {
                Severity::Critical | Severity::Error => 0,
                Severity::Warning | Severity::Info => 1,
                Severity::Trace => 2,
            },
            lines: vec![(severity, text.to_string())],
            fields: Vec::new(),
        }
    }

    pub(super) fn with_level(mut self, level: u8) -> Record {
        self.level = level;
        self
    }

    /// Adds an `info:` line.
    pub fn info(mut self, text: impl fmt::Display) -> Record {
        self.lines.push((Severity::Info, text.to_string()));
        self
    }

    /// Adds the directory with the evidence of a failure, in the journal as a field, too.
    pub fn evidence(mut self, path: impl fmt::Display) -> Record {
        self.fields.push(("BBOT_EVIDENCE", path.to_string()));
        self.info(format_args!("{EVIDENCE}{path}"))
    }

    /// Writes the record, if its level is shown.
    pub fn emit(self) {
        let mut diagnostics = diagnostics();
        let now = Instant::now();
        if self.level <= RECENT_LEVEL || diagnostics.level >= self.level {
            let scope = diagnostics.scope.as_ref().map(ToString::to_string);
            let text = self.text(scope.as_deref(), None, false);
            diagnostics.recent.push(now, text);
        }
        if diagnostics.level < self.level {
            return;
        }
        let mut times = None;
        if diagnostics.level < 3 && self.may_repeat() {
            let diagnostics = &mut *diagnostics;
            let (scope, line) = (diagnostics.scope.as_ref(), &self.lines[0].1);
            match diagnostics.repeats.note(self.severity, scope, line, now) {
                RepeatDecision::Write => {}
                RepeatDecision::WriteCount(count) => times = Some(count),
                RepeatDecision::Skip => return,
            }
        }
        self.write(&mut diagnostics, times);
    }

    fn may_repeat(&self) -> bool {
        matches!(self.severity, Severity::Error | Severity::Warning)
    }

    /// Writes the record; a repeated one with the number of times and without its
    /// advice.
    pub(super) fn write(&self, diagnostics: &mut Diagnostics, times: Option<u64>) {
        let scope = diagnostics.scope.as_ref().map(ToString::to_string);
        let text = |systemd| self.text(scope.as_deref(), times, systemd);
        if let Some(journal) = &diagnostics.journal {
            let fields = diagnostics.scope.as_ref().map(TaskScope::fields);
            let mut fields = fields.unwrap_or_default();
            fields.extend(self.fields.iter().cloned());
            let priority = self.severity.priority();
            if journal.send(priority, text(false).trim_end(), &fields) {
                return;
            }
        }
        let mut line = text(diagnostics.systemd);
        if std::mem::take(&mut diagnostics.progress) {
            line.insert_str(0, WIPE);
        }
        diagnostics.output.write(line.as_bytes());
        diagnostics.report_lost();
    }

    fn text(&self, scope: Option<&str>, times: Option<u64>, systemd: bool) -> String {
        let mut text = String::new();
        for (i, (severity, line)) in self.lines.iter().enumerate() {
            let scope = scope.filter(|_| i == 0);
            let Some(times) = times else {
                render(&mut text, *severity, scope, line, systemd);
                continue;
            };
            let line = match times {
                1 => format!("{line} (again)"),
                _ => format!("{line} (again, {times} times since it was last reported)"),
            };
            render(&mut text, *severity, scope, &line, systemd);
            break;
        }
        text
    }
}

impl Diagnostics {
    /// Writes the counts of repeated records.
    pub(super) fn write_counts(&mut self, repeats: Vec<Repeat>) {
        let outer = self.scope.take();
        let now = Instant::now();
        for repeat in repeats {
            if let Some(summary) = repeat.summary(now).filter(|_| self.level > 0) {
                self.scope = repeat.scope;
                Record::new(Severity::Info, summary).write(self, None);
            }
        }
        self.scope = outer;
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
    fn the_scope_stands_between_label_and_text() {
        let scope = TaskScope {
            package: "libfoo/1".to_owned(),
            machine: "gcc".to_owned(),
            session: "17".to_owned(),
        };
        assert_eq!(
            rendered(Severity::Warning, Some(&scope.to_string()), "slow", false),
            "warning: libfoo/1 on gcc (session 17): slow\n"
        );
    }
}
