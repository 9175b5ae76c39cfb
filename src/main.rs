//! The `bbot-agent` program; see the crate `bbot_agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bbot_agent::program::main()
}
