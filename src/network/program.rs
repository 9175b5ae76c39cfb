//! The `iptables` program: run to its end, but not for ever.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::Bridge;
use crate::error::{Class, Context as _, Error, Result};
use crate::sys::poll;
use crate::sys::process::Process;
use crate::trace;

/// Seconds that iptables waits for another iptables to finish.
const WAIT: &str = "5";

/// How long it may take in all: nothing else is done meanwhile.
const LIMIT: Duration = Duration::from_secs(10);

/// `--check` ends with this if there is no such rule, and with others if it cannot
/// tell (the lock is taken, memory is short).
const MISSING: i32 = 1;

/// How the rules are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(PathBuf);

impl Program {
    /// Looks for the program, and whether its rules would see bridged packets.
    pub(super) fn probe(bridge: &Bridge) -> Result<Program> {
        let path = find("iptables").ok_or_else(|| {
            Error::new("unable to find the program iptables")
                .with_class(Class::Config)
                .hint("install it: apt-get install iptables")
        })?;
        const SYSCTL: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        let called = match fs::read_to_string(SYSCTL) {
            Ok(text) => text.trim() != "0",
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(
                    Error::new(format!("unable to redirect by iptables: no {SYSCTL}"))
                        .with_class(Class::Config)
                        .hint("load it: modprobe br_netfilter"),
                );
            }
            Err(error) => return Err(error).context(|| format!("unable to read {SYSCTL}")),
        };
        if !called && !bridge.calls_iptables {
            return Err(Error::new(format!(
                "unable to redirect by iptables: bridge {} does not pass packets through it",
                bridge.name
            ))
            .with_class(Class::Config)
            .hint(format!(
                "turn it on: ip link set {} type bridge nf_call_iptables 1",
                bridge.name
            ))
            .hint("or everywhere: sysctl net.bridge.bridge-nf-call-iptables=1"));
        }
        Ok(Program(path))
    }

    /// The program that a record names.
    pub(super) fn at(path: &str) -> Program {
        Program(path.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Does `action` with a rule: table and chain first, then the rest of it.
    pub(super) fn run(&self, action: &str, rule: &[String]) -> Result<()> {
        let (exit, said) = self.end(action, rule)?;
        if exit.success() {
            return Ok(());
        }
        let reason = said.lines().next().unwrap_or_default();
        let line = self.line(action, rule);
        Err(Error::new(format!(
            "unable to run {line}: {exit}: {reason}"
        )))
    }

    /// Removes a rule; one that is gone already is fine.
    pub(super) fn remove(&self, rule: &[String]) -> Result<()> {
        self.run("-D", rule).or_else(|error| {
            // Its own status does not tell "no such rule" from a failure.
            match self.end("-C", rule) {
                Ok((exit, _)) if exit.code() == Some(MISSING) => Ok(()),
                _ => Err(error),
            }
        })
    }

    fn line(&self, action: &str, rule: &[String]) -> String {
        let program = self.0.display();
        format!("{program} -w {WAIT} -t {}", words(action, rule).join(" "))
    }

    /// Runs it to its end: how it ended, and the beginning of what it said.
    fn end(&self, action: &str, rule: &[String]) -> Result<(ExitStatus, String)> {
        let unable = || format!("unable to run {}", self.line(action, rule));
        trace!(3, "run", "{}", self.line(action, rule));
        let mut command = Command::new(&self.0);
        command
            .args(["-w", WAIT, "-t"])
            .args(words(action, rule))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(command, &[], None).context(unable)?;
        let exit = process.wait(Some(Instant::now() + LIMIT)).context(unable)?;
        // What is not done by now is killed with `process`.
        let exit = exit.ok_or_else(|| {
            let reason = format!("not done in {} seconds", LIMIT.as_secs());
            Error::new(format!("{}: {reason}", unable()))
        })?;
        let mut said = Vec::new();
        if let Some(mut stderr) = process.take_stderr() {
            // Only what is there: a child of its own may hold the other end.
            let ready = &mut [false];
            if poll::readable(&[stderr.as_fd()], ready, Some(Instant::now())).context(unable)? {
                said.resize(4096, 0);
                let length = stderr.read(&mut said).context(unable)?;
                said.truncate(length);
            }
        }
        Ok((exit, String::from_utf8_lossy(&said).into_owned()))
    }
}

/// The arguments from the table on.
fn words<'a>(action: &'a str, rule: &'a [String]) -> Vec<&'a str> {
    let mut words: Vec<&str> = rule.iter().map(String::as_str).collect();
    words.insert(words.len().min(1), action);
    words
}

/// The program `name`, from the path or where administrators' programs are.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
