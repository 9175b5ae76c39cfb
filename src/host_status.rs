//! `--status`: the agents of a host, and the parts of the host that they have.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{self, Format, StatusOf};
use crate::error::{Class, Error, Result};
use crate::json::Value;
use crate::ledger::{self, HostClaim};
use crate::watch::{self, Watch};
use crate::{diag, lock, status};

/// The interval of `--follow`.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);

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
                diag::failure(&error).emit();
                report.code = error.class().exit_code();
                continue;
            }
        };
        let owner = path.parent().and_then(Path::file_name);
        let is_of_agent = |claim: &&HostClaim| owner == Some(claim.owner.as_ref());
        let claim = claims.iter().find(is_of_agent);
        let (text, alive) = status::text(&state, now, claim.map(HostClaim::line));
        report.text.push_str(&text);
        let mut object = status::json(&state, now);
        if let (Value::Object(members), Some(claim)) = (&mut object, claim) {
            members.push(("claim".to_owned(), claim.json()));
        }
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
    let report = report(of)?;
    let out = match format {
        Format::Json => format!("{}\n", Value::Array(report.objects)),
        Format::Text => report.text,
    };
    cli::print(out.as_bytes())?;
    Ok(match report.running {
        0 => ExitCode::from(report.code),
        _ => ExitCode::SUCCESS,
    })
}

/// Prints the status again and again at the same place of a terminal, until a signal.
///
/// # Errors
///
/// Of class [`Class::Usage`] without a terminal.
pub fn follow(of: &StatusOf, watch: &Watch) -> Result<()> {
    if !io::stdout().is_terminal() {
        let error = Error::new("unable to follow the status: standard output is no terminal");
        return Err(error
            .with_class(Class::Usage)
            .hint("for programs: --status=json prints it once"));
    }
    cli::print(CLEAR_BELOW.as_bytes())?;
    loop {
        let text = report(of)?.text;
        let lines = text.replace('\n', &format!("{CLEAR_LINE}\n"));
        cli::print(format!("{HOME}{lines}{CLEAR_BELOW}").as_bytes())?;
        let _ = watch.pause(REDRAW_INTERVAL);
        if watch.stop().is_some() {
            return Ok(());
        }
    }
}
