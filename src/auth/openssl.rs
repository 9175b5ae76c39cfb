//! The openssl program. Its input comes by a pipe; its output and its time are
//! bounded; a signal to the agent ends it.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use super::KeySettings;
use crate::error::{Class, Context as _, Error, Result};
use crate::trace;
use crate::watch::Watch;

/// The maximum length of the output of `openssl version`, in bytes.
const MAX_VERSION: usize = 256;

/// The maximum duration of a command that starts while the agent is stopping.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(2);

/// The openssl program and its version.
#[derive(Debug)]
pub(super) struct Openssl {
    settings: KeySettings,
    watch: Watch,
    /// Major version 3 and later have `pkeyutl` do what `rsautl` did.
    modern: bool,
}

impl Openssl {
    /// Asks openssl for its version.
    pub(super) fn find(settings: &KeySettings, watch: Watch) -> Result<Openssl> {
        let mut openssl = Openssl {
            settings: settings.clone(),
            watch,
            modern: true,
        };
        let program = settings.openssl.display();
        let mut command = Command::new(&settings.openssl);
        command.arg("version");
        let output = openssl
            .exchange(command, b"", MAX_VERSION)
            .map_err(|error| {
                let hint = "install openssl, or name it: --openssl <path>";
                error.with_class(Class::Config).hint(hint)
            })?;
        let version = String::from_utf8_lossy(&output);
        let version = version.lines().next().unwrap_or_default();
        // OpenSSL 3.0.22 25 Aug 2026; LibreSSL counts for itself.
        let Some((name, number)) = version.split_once(' ') else {
            return Err(Error::new(format!("{program} is not openssl: '{version}'"))
                .with_class(Class::Config));
        };
        let major = number.split('.').next().and_then(|n| n.parse::<u32>().ok());
        openssl.modern = name != "OpenSSL" || major.is_none_or(|major| major >= 3);
        trace!(4, "find", "{program}: {version}");
        Ok(openssl)
    }

    /// The command for the private-key operation without a hash.
    pub(super) fn sign_command(&self) -> &'static [&'static str] {
        if self.modern {
            &["pkeyutl", "-sign"]
        } else {
            &["rsautl", "-sign"]
        }
    }

    /// Runs a command on the key, named by the option `key_option`.
    pub(super) fn run(
        &self,
        command: &[&str],
        key_option: &str,
        input: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>> {
        let mut process = Command::new(&self.settings.openssl);
        process
            .args(command)
            .args(&self.settings.options)
            .arg(key_option)
            .arg(&self.settings.key);
        self.exchange(process, input, limit)
            .map_err(|error| error.with_class(Class::Config))
    }

    fn exchange(&self, command: Command, input: &[u8], limit: usize) -> Result<Vec<u8>> {
        // An agent that is stopping may still sign that it gives a task back.
        let time = if self.watch.must_stop() {
            self.settings.timeout.min(STOPPING_TIMEOUT)
        } else {
            self.settings.timeout
        };
        let shown = show(&command);
        trace!(3, "exchange", "{shown}");
        let output = self.watch.run(command, input, limit, time);
        let output = output.context(|| format!("unable to run {shown}"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = String::from_utf8_lossy(&output.stderr);
        let why = explain(&message);
        Err(Error::new(format!(
            "{shown} failed ({}){why}",
            output.status
        )))
    }
}

/// The command as an operator would type it. The key is there by its path only.
fn show(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().map(OsStr::to_string_lossy) {
        text.push(' ');
        text.push_str(&argument);
    }
    text
}

/// The line of openssl's messages that says most: the last error of its stack
/// comes last, the first line is often only "Could not read key".
fn explain(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|l| !l.is_empty());
    match lines.next() {
        Some(first) => format!(": {first}"),
        None => String::new(),
    }
}
