//! The `bbot-agent` program: runs what the command line asks for and returns the
//! exit status.

use std::process::ExitCode;

use crate::cli::{self, Format, Invocation, Options, StatusOf};
use crate::error::{Class, Result};
use crate::sys::start;
use crate::{agent, check, console, delivery, diag, evidence, host_status, lock, watch};

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    start::normalize();
    let mut args = std::env::args_os().skip(1).peekable();
    let ended = if args.peek().is_some_and(|first| first == delivery::MODE) {
        delivery::serve().map(|()| ExitCode::SUCCESS)
    } else {
        cli::parse(args, &|name| std::env::var_os(name)).and_then(perform)
    };
    let code = match ended {
        Ok(code) => code,
        Err(error) => {
            diag::fatal(&error).emit();
            ExitCode::from(error.class().exit_code())
        }
    };
    diag::end();
    code
}

fn perform(invocation: Invocation) -> Result<ExitCode> {
    match invocation {
        Invocation::Print(text) => cli::print(cli::text(text).as_bytes())?,
        Invocation::Status(of, format) => return host_status::show(&of, format),
        Invocation::Follow(of, format) => {
            host_status::follow(&of, format, &watch::Watch::start()?)?;
        }
        Invocation::Console(of, machine) => {
            let (_, statuses) = host_status::files(&of)?;
            console::follow(&statuses, machine.as_deref(), &watch::Watch::start()?)?;
        }
        Invocation::Shell(options, machine) => {
            configure(&options);
            agent::shell(&options, &machine)?;
        }
        Invocation::Resume(options, directory) => {
            configure(&options);
            agent::resume(&options, &directory)?;
        }
        Invocation::Failed(of, format) => show_failed(&of, format)?,
        Invocation::Run(options) => {
            configure(&options);
            return agent::run(&options).map(ExitCode::from);
        }
        Invocation::DumpMachines(options) => {
            configure(&options);
            return agent::dump_machines(&options).map(ExitCode::from);
        }
        Invocation::Check(options, format) => return examine(&options, format),
        Invocation::Gc { options, dry_run } => {
            configure(&options);
            return agent::collect(&options, dry_run).map(ExitCode::from);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `--status --failed`: the failed guests whose evidence is kept.
fn show_failed(of: &StatusOf, format: Format) -> Result<()> {
    let (state, agents) = match of {
        StatusOf::All { directory } => (directory, lock::directories(directory)?),
        StatusOf::One {
            directory,
            toolchain_name,
            instance,
        } => {
            let agent = lock::directory(directory, toolchain_name, *instance);
            (directory, vec![agent])
        }
    };
    let mut failed = Vec::new();
    for agent in agents {
        failed.extend(evidence::failed_guests(&evidence::directory(&agent))?);
    }
    let out = match format {
        Format::Json => format!("{}\n", evidence::json(failed)),
        Format::Text if failed.is_empty() => {
            format!("no failed guest is kept under {}\n", state.display())
        }
        Format::Text => evidence::text(failed),
    };
    cli::print(out.as_bytes())
}

fn configure(options: &Options) {
    diag::configure(options.verbose, options.systemd_daemon);
}

/// `--check`: 0, or 78 with failures.
fn examine(options: &Options, format: Format) -> Result<ExitCode> {
    configure(options);
    let watch = watch::Watch::start()?;
    let mut printed = Ok(());
    let report = check::examine(options, &watch, &mut |finding| {
        if format == Format::Text && printed.is_ok() {
            printed = cli::print(finding.text().as_bytes());
        }
    });
    printed?;
    let last = match format {
        Format::Text => report.summary(),
        Format::Json => format!("{}\n", report.json()),
    };
    cli::print(last.as_bytes())?;
    Ok(match report.count(check::Grade::Failure) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(Class::Config.exit_code()),
    })
}
