//! The `bbot-agent` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
