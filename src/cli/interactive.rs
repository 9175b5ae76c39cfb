//! The options of interactive builds, checked against each other.

use super::Options;
use super::parse::clash;
use super::sources::{self, Origin};
use crate::error::Result;
use crate::manifest::InteractiveMode;

/// Refuses options that promise a user a way to the guest that there is not, and a display
/// that everyone reaches.
pub(super) fn require_consistent(options: &Options) -> Result<()> {
    let wrong = |text: &str| Err(sources::usage(&Origin::CommandLine, text));
    let login = options.interactive_login.as_ref();
    match options.interactive_vnc {
        Some(address) if !address.ip().is_loopback() && options.vnc_password.is_none() => {
            wrong("--interactive-vnc at an address that others reach needs --vnc-password")
        }
        // The display is either at an address or at the socket.
        Some(_) if login.is_some_and(|login| login.has('s')) => {
            wrong("%s of --interactive-login and --interactive-vnc do not go together")
        }
        None if login.is_some_and(|login| login.has('p')) => {
            wrong("%p of --interactive-login needs --interactive-vnc")
        }
        _ if options.legacy_request && options.interactive != InteractiveMode::No => {
            Err(clash("--legacy-request", "--interactive"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::parse::parse;

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        for (line, text) in [
            (
                "--interactive-vnc 10.0.0.1 http://a",
                "--interactive-vnc at an address that others reach needs --vnc-password",
            ),
            (
                "--interactive-vnc localhost:1 http://a",
                "invalid value 'localhost:1' of option '--interactive-vnc': expected an IP \
                 address of this host, with or without a port from 5900 to 65000, as 10.0.0.1 \
                 or [fd00::1]:5900",
            ),
            (
                "--interactive-login 100% http://a",
                "invalid value '100%' of option '--interactive-login': expected a text in which \
                 %h, %i, %p, %s or %% follow a percent sign",
            ),
            (
                "--interactive both --interactive-login %h:%p http://a",
                "%p of --interactive-login needs --interactive-vnc",
            ),
            (
                "--interactive both --interactive-vnc 127.0.0.1 --interactive-login %s http://a",
                "%s of --interactive-login and --interactive-vnc do not go together",
            ),
            (
                "--interactive true --legacy-request http://a",
                "--legacy-request and --interactive do not go together",
            ),
        ] {
            let words = line.split_whitespace().map(OsString::from);
            assert_eq!(parse(words, &|_| None).unwrap_err().to_string(), text);
        }
    }
}
