//! `--status`: the agents of a host, and the parts of the host that they have.
//!
//! With `--follow` the same again at each change. On a terminal it has one place: the text
//! is written over the one before, so that nothing flickers.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{self, Format, StatusOf};
use crate::error::{Class, Error, Result};
use crate::json::Value;
use crate::ledger::{self, HostClaim};
use crate::sys::poll::is_hung_up;
use crate::sys::terminal;
use crate::watch::{self, Watch};
use crate::{diag, lock, status};

/// The interval of looks by `--follow`.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Escape sequences (ECMA-48): to the first line, to the end of the line, and to the end
/// of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The run directory, and the status files of agents in it.
pub fn files(of: &StatusOf) -> Result<(&Path, Vec<PathBuf>)> {
    Ok(match of {
        StatusOf::All { directory } => (directory, status::find(directory)?),
        StatusOf::One {
            directory,
            toolchain_name,
            instance,
        } => {
            let dir = lock::directory(directory, toolchain_name, *instance);
            (directory, vec![status::file_in(&dir)])
        }
    })
}

/// The agents at one instant.
#[derive(Default)]
struct Report {
    text: String,
    objects: Vec<Value>,
    /// The objects without the time that has passed. Another report has others.
    facts: Vec<Value>,
    failures: Vec<Error>,
    running: usize,
    /// The exit status if no agent runs.
    code: u8,
}

fn report(of: &StatusOf) -> Result<Report> {
    let (run_dir, paths) = files(of)?;
    let claims = ledger::claims(run_dir)?;
    let now = watch::moment();
    let mut report = Report {
        code: Class::Failure.exit_code(),
        ..Report::default()
    };
    for path in paths {
        let state = match status::read(&path) {
            Ok(Some(state)) => state,
            Ok(None) => continue,
            Err(error) => {
                report.code = error.class().exit_code();
                report.failures.push(error);
                continue;
            }
        };
        let owner = path.parent().and_then(Path::file_name);
        let is_of_agent = |claim: &&HostClaim| owner == Some(claim.owner.as_ref());
        let claim = claims.iter().find(is_of_agent);
        let agent = owner.unwrap_or_default().to_string_lossy();
        let (text, alive) = status::text(&agent, &state, now, claim.map(HostClaim::line));
        report.text.push_str(&text);
        let mut object = status::json(&state, now);
        if let (Value::Object(members), Some(claim)) = (&mut object, claim) {
            members.push(("claim".to_owned(), claim.json()));
        }
        report.facts.push(without_times(&object));
        report.objects.push(object);
        report.running += usize::from(alive);
    }
    // A lone agent says all of it.
    if report.running > 1
        && matches!(of, StatusOf::All { .. })
        && let Some(line) = ledger::use_of_host(&claims)
    {
        report.text = format!("host: {line}\n{}", report.text);
    }
    if report.text.is_empty() {
        report.text = format!("no agent has run under {}\n", run_dir.display());
    }
    Ok(report)
}

/// Prints the status: 0 if an agent is running, else 1.
pub fn show(of: &StatusOf, format: Format) -> Result<ExitCode> {
    let mut report = report(of)?;
    report.emit_failures();
    cli::print(report.take(format).as_bytes())?;
    Ok(match report.running {
        0 => ExitCode::from(report.code),
        _ => ExitCode::SUCCESS,
    })
}

/// An object of a report without the time that has passed.
fn without_times(object: &Value) -> Value {
    let members = match object {
        Value::Object(members) => members.as_slice(),
        _ => &[],
    };
    let lasting = members.iter().filter(|(name, _)| name != "elapsed");
    Value::Object(lasting.cloned().collect())
}

impl Report {
    fn emit_failures(&self) {
        for error in &self.failures {
            diag::failure(error).emit();
        }
    }

    /// Its output.
    fn take(&mut self, format: Format) -> String {
        match format {
            Format::Json => format!("{}\n", Value::Array(std::mem::take(&mut self.objects))),
            Format::Text => std::mem::take(&mut self.text),
        }
    }

    /// Its text, with the failures, to be written over that of another one on a terminal
    /// with so many lines and columns. What does not fit is left out, and counted in the
    /// last line: a terminal that scrolls would have the text at another place.
    fn screen(&self, size: Option<(usize, usize)>) -> String {
        let (lines, columns) = size.unwrap_or((usize::MAX, usize::MAX));
        let mut screen = HOME.to_owned();
        let failures = self.failures.iter().map(|error| format!("error: {error}"));
        let mut text: Vec<_> = self.text.lines().map(str::to_owned).collect();
        text.extend(failures);
        let (room, all) = (lines.saturating_sub(1), text.len());
        text.truncate(room);
        if all > room
            && let Some(last) = text.last_mut()
        {
            *last = format!("... {} more lines", all - room + 1);
        }
        for line in text {
            screen.extend(line.chars().take(columns));
            screen.push_str(CLEAR_LINE);
            screen.push('\n');
        }
        screen + CLEAR_BELOW
    }
}

/// Prints the status at each change, until a signal comes in or the reader is gone: on a
/// terminal at the same place, else a block or, as JSON, a line each.
pub fn follow(of: &StatusOf, format: Format, watch: &Watch) -> Result<()> {
    let stdout = io::stdout();
    let redraws = format == Format::Text && stdout.is_terminal();
    let mut last = None;
    let mut is_first = true;
    loop {
        let mut report = report(of)?;
        let failures: Vec<_> = report.failures.iter().map(Error::to_string).collect();
        let (text, key) = match redraws {
            true => {
                let screen = report.screen(terminal::size(stdout.as_fd()));
                (screen.clone(), screen)
            }
            false => {
                let key = format!("{}{failures:?}", Value::Array(report.facts.clone()));
                (report.take(format), key)
            }
        };
        if last.as_ref() != Some(&key) {
            if !redraws {
                report.emit_failures();
            }
            let parts_blocks = format == Format::Text && !redraws && !is_first;
            let text = if parts_blocks {
                format!("\n{text}")
            } else {
                text
            };
            if !cli::print_on(text.as_bytes())? {
                return Ok(());
            }
            (last, is_first) = (Some(key), false);
        }
        let _ = watch.pause(LOOK_INTERVAL);
        if watch.stop().is_some() || is_hung_up(stdout.as_fd()) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_has_what_fits_the_terminal() {
        let report = Report {
            text: "one: idle\ntwo: building\n".to_owned(),
            failures: vec![Error::new("unable to read status three")],
            ..Report::default()
        };
        assert_eq!(
            report.screen(None),
            "\x1b[Hone: idle\x1b[K\ntwo: building\x1b[K\n\
             error: unable to read status three\x1b[K\n\x1b[J"
        );
        assert_eq!(
            report.screen(Some((4, 6))),
            "\x1b[Hone: i\x1b[K\ntwo: b\x1b[K\nerror:\x1b[K\n\x1b[J"
        );
        assert_eq!(
            report.screen(Some((3, 80))),
            "\x1b[Hone: idle\x1b[K\n... 2 more lines\x1b[K\n\x1b[J"
        );
        assert_eq!(report.screen(Some((1, 80))), "\x1b[H\x1b[J");
    }
}
