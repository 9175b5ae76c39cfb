//! The `bbot-agent` program: what was asked for, done, and the exit status.

use std::process::ExitCode;

use bbot_agent::cli::{self, Invocation};
use bbot_agent::diag;
use bbot_agent::error::{Error, Result};

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    match cli::parse(args, &|name| std::env::var_os(name)).and_then(perform) {
        Ok(code) => code,
        Err(error) => {
            diag::fatal(&error).emit();
            ExitCode::from(error.class().exit_code())
        }
    }
}

fn perform(invocation: Invocation) -> Result<ExitCode> {
    match invocation {
        Invocation::Help => {
            let pager = std::env::var("PAGER").ok();
            cli::page(cli::help().as_bytes(), pager.as_deref())?;
        }
        Invocation::Version => cli::print(cli::version().as_bytes())?,
        Invocation::PrintMan => cli::print(cli::man().as_bytes())?,
        Invocation::PrintCompletion(cli::Shell::Bash) => {
            cli::print(cli::bash_completion().as_bytes())?;
        }
        other => return Err(Error::new(format!("not done yet: {other:?}"))),
    }
    Ok(ExitCode::SUCCESS)
}
