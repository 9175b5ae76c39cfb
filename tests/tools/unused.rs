//! The whole program as one crate with private modules, so that the compiler
//! names what only tests use. `make check` lints it; nothing runs it.

// Tests name types that the program only infers.
#![allow(unreachable_pub, unused_imports, clippy::wildcard_imports)]

#[path = "../../src/lib.rs"]
mod bbot_agent;
// Paths in the modules begin with `crate`.
use bbot_agent::*;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
