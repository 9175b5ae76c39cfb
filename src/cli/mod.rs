//! Command line: one table of options, from which the parser, `--help`, the
//! manual page and the completion are made.
//!
//! Options come from the command line, from the environment variable
//! `BBOT_AGENT_OPTIONS` and from `--options-file`, the former winning over the
//! latter. Parsing judges form only and stores; what an option refers to is
//! looked at by the module that uses it, with one exception: directories that
//! were named must exist, since a slip there should not wait for the first turn.

mod flags;
mod input;
mod interactive;
mod options;
mod output;
mod parse;
mod proxies;
mod render;
mod similar;
mod sources;
mod value;

use std::path::PathBuf;

pub use self::input::input;
pub use self::options::{Dump, Options, Space, Turns};
pub use self::output::{print, print_on};
pub use self::parse::parse;
pub use self::render::text;

/// The mode that the command line asks for, with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Turns of the loop. There is at least one controller, or `fake_request`.
    Run(Box<Options>),
    /// Enumerate, bootstrapping as needed, and print the machine headers.
    DumpMachines(Box<Options>),
    /// Examine the host.
    Check(Box<Options>, Format),
    /// Say what running agents are doing.
    Status(StatusOf, Format),
    /// Print it again and again.
    Follow(StatusOf, Format),
    /// Follow the console of a guest that runs, of this machine if there is one.
    Console(StatusOf, Option<String>),
    /// Run a throw-away copy of this machine on the terminal.
    Shell(Box<Options>, String),
    /// Start the failed guest again whose evidence is in this directory.
    Resume(Box<Options>, PathBuf),
    /// Print the failed guests whose evidence is kept.
    Failed(StatusOf, Format),
    /// Remove what crashed agents left behind.
    Gc {
        /// Whose: `run_dir`, toolchain, instance, machines and so on.
        options: Box<Options>,
        /// Only say what would be removed.
        dry_run: bool,
    },
    /// Print a [`text`].
    Print(AboutText),
}

/// The texts about the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AboutText {
    /// `-h`: one line for each option.
    Summary,
    /// `--help`
    Help,
    /// `--version`
    Version,
    /// A systemd unit.
    Unit(Unit),
    /// The manual page, in the man(7) macros.
    Manual,
    /// The completion of a shell.
    Completion(Shell),
    /// The linked components.
    Licenses,
}

/// Whose status is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusOf {
    /// Of every agent below a directory.
    All {
        /// `--run-dir`, or for failed guests `--state`.
        directory: PathBuf,
    },
    /// Of one agent.
    One {
        /// `--run-dir`, or for failed guests `--state`.
        directory: PathBuf,
        /// `--toolchain-name`.
        toolchain_name: String,
        /// `--instance`.
        instance: u16,
    },
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines.
    Text,
    /// One JSON object.
    Json,
}

/// The units that can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `bbot-agent@.service`
    Service,
    /// `bbot-agent-once@.service`
    Once,
    /// `bbot-agent-once@.timer`
    Timer,
    /// needrestart's `bbot-agent.conf`
    Needrestart,
}

/// The shells with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}
