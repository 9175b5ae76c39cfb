//! The systemd units and the exception for needrestart, as `--print-unit` prints
//! them and `make install` installs them.
//!
//! They are files next to this one, with two places to fill in: the directory
//! of the program, and the lines that confine it, which the services share.

/// The default directory of the program.
pub const BIN_DIR: &str = "/usr/local/bin";

const HARDENING: &str = include_str!("units/hardening");

/// `bbot-agent@.service`: an agent, with the toolchain as instance.
pub fn service() -> String {
    filled(include_str!("units/bbot-agent@.service"))
}

/// `bbot-agent-once@.service`: one turn.
pub fn once() -> String {
    filled(include_str!("units/bbot-agent-once@.service"))
}

/// `bbot-agent-once@.timer`: turns.
pub fn timer() -> String {
    filled(include_str!("units/bbot-agent-once@.timer"))
}

/// `bbot-agent.conf`: needrestart leaves the services alone.
pub fn needrestart() -> String {
    include_str!("units/needrestart.conf").to_owned()
}

fn filled(template: &str) -> String {
    template
        .replace("@BINDIR@", BIN_DIR)
        .replace("@HARDENING@\n", HARDENING)
}
