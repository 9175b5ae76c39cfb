//! `--check`: an examination of everything that a turn needs, with a remedy for each
//! problem.
//!
//! It takes no lock, so it works while an agent runs. It makes a tap and a redirect
//! rule of its own and runs the first instructions of a guest; all three are gone
//! afterwards. Controllers get an empty request.

mod controllers;
mod frames;
mod guests;
mod host;
mod machines;
mod network;

use std::fmt::Write as _;

use crate::cli::Options;
use crate::error::Error;
use crate::json::Value;
use crate::watch::Watch;

/// The grade of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As needed.
    Good,
    /// A turn is possible, with a restriction.
    Warning,
    /// No turn is possible.
    Failure,
}

impl Grade {
    /// The word for it, in texts and for programs.
    pub fn keyword(self) -> &'static str {
        match self {
            Grade::Good => "ok",
            Grade::Warning => "warning",
            Grade::Failure => "failure",
        }
    }
}

/// The finding about one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The subject, in a word or two.
    pub subject: String,
    /// The grade of a finding.
    pub grade: Grade,
    /// The state of the subject, in one line.
    pub found: String,
    /// The remedies, one a line.
    pub remedies: Vec<String>,
}

impl Finding {
    fn new(subject: &str, grade: Grade, found: impl Into<String>) -> Finding {
        Finding {
            subject: subject.to_owned(),
            grade,
            found: found.into(),
            remedies: Vec::new(),
        }
    }

    fn good(subject: &str, found: impl Into<String>) -> Finding {
        Finding::new(subject, Grade::Good, found)
    }

    fn warning(subject: &str, found: impl Into<String>) -> Finding {
        Finding::new(subject, Grade::Warning, found)
    }

    fn failure(subject: &str, found: impl Into<String>) -> Finding {
        Finding::new(subject, Grade::Failure, found)
    }

    /// An error, with its advice.
    fn error(subject: &str, error: &Error) -> Finding {
        error.hints().fold(
            Finding::failure(subject, error.to_string()),
            Finding::remedy,
        )
    }

    fn remedy(mut self, line: impl Into<String>) -> Finding {
        self.remedies.push(line.into());
        self
    }

    /// The finding as lines of text.
    pub fn text(&self) -> String {
        let mut raw = format!(
            "{:<8} {:<18} {}\n",
            self.grade.keyword(),
            self.subject,
            self.found.replace('\n', "; ")
        );
        for remedy in &self.remedies {
            // Writing to a String does not fail.
            let _ = writeln!(raw, "{:27} {}", "", remedy.replace('\n', " "));
        }
        let mut safe = String::new();
        for line in raw.lines() {
            // It contains words of controllers and manifests, and goes to a terminal.
            crate::diag::escape(&mut safe, line);
            safe.push('\n');
        }
        safe
    }

    fn json(&self) -> Value {
        let remedies = self.remedies.iter().map(|remedy| Value::from(&**remedy));
        Value::object([
            ("subject", Value::from(&*self.subject)),
            ("status", self.grade.keyword().into()),
            ("found", Value::from(&*self.found)),
            ("remedies", Value::Array(remedies.collect())),
        ])
    }
}

/// All findings.
#[derive(Clone, Debug, Default)]
pub struct Report(Vec<Finding>);

impl Report {
    /// How many findings are of this grade.
    pub fn count(&self, grade: Grade) -> usize {
        self.0
            .iter()
            .filter(|finding| finding.grade == grade)
            .count()
    }

    /// The last line for people.
    pub fn summary(&self) -> String {
        let some = |grade, what| match self.count(grade) {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        format!(
            "{} ok, {}, {}\n",
            self.count(Grade::Good),
            some(Grade::Warning, "warning"),
            some(Grade::Failure, "failure")
        )
    }

    /// The report for programs.
    pub fn json(&self) -> Value {
        let failures = self.count(Grade::Failure) as u64;
        Value::object([
            ("ok", Value::from(failures == 0)),
            ("warnings", (self.count(Grade::Warning) as u64).into()),
            ("failures", failures.into()),
            (
                "checks",
                Value::Array(self.0.iter().map(Finding::json).collect()),
            ),
        ])
    }
}

/// Examines the host. Calls `found` with each finding at once, since some take seconds.
/// A signal ends the examination early.
pub fn examine(options: &Options, watch: &Watch, found: &mut dyn FnMut(&Finding)) -> Report {
    const PROBES: &[fn(&Options, &Watch) -> Vec<Finding>] = &[
        host::system,
        host::directories,
        machines::root,
        machines::each,
        machines::toolchain,
        machines::states,
        network::all,
        guests::qemu,
        guests::tftp,
        controllers::key,
        controllers::all,
        controllers::interactive,
    ];
    let mut report = Report::default();
    for probe in PROBES {
        for finding in probe(options, watch) {
            found(&finding);
            report.0.push(finding);
        }
        watch.tick(crate::watch::moment().instant);
        if watch.must_stop() {
            let finding = Finding::failure("examination", "stopped by a signal");
            found(&finding);
            report.0.push(finding);
            break;
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn a_finding_says_what_to_type() {
        let error = Error::new("no bridge br1")
            .with_class(Class::Config)
            .hint("make it: ip link add br1 type bridge");
        let finding = Finding::error("bridge", &error);
        assert_eq!(
            finding.text(),
            "failure  bridge             no bridge br1\n\
             \x20                           make it: ip link add br1 type bridge\n"
        );
        let report = Report(vec![finding]);
        assert_eq!(
            report.json().to_string(),
            "{\"ok\":false,\"warnings\":0,\"failures\":1,\"checks\":[{\"subject\":\"bridge\",\
             \"status\":\"failure\",\"found\":\"no bridge br1\",\
             \"remedies\":[\"make it: ip link add br1 type bridge\"]}]}"
        );
    }

    #[test]
    fn text_of_controllers_cannot_steer_the_terminal() {
        let finding = Finding::good("controller", "\x1b[2Jhello");
        assert!(!finding.text().contains('\x1b'));
    }
}
