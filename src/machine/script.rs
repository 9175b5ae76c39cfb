//! A script in the run directory that starts the machine again, for an operator who
//! looks for the reason of a failure.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::firmware::STORE;
use super::qemu::{self, Spec};
use super::tpm;
use crate::durable;

/// The name of the script.
pub(super) const NAME: &str = "start-machine.sh";

/// The tap of the script, so that it does not depend on the agent's.
const TAP: &str = "bbot-by-hand";

/// Writes the script.
pub(super) fn write(path: &Path, spec: &Spec) -> io::Result<()> {
    durable::publish(path, text(spec).as_bytes())
}

/// The text of the script.
pub(super) fn text(spec: &Spec) -> String {
    let word = |text: &str| {
        let mut word = String::new();
        quote(&mut word, text);
        word
    };
    let comment: String = spec.label.chars().filter(|c| !c.is_control()).collect();
    let mut text = format!("#!/bin/sh\n# Starts {comment} by hand.\n");
    let source = word(&spec.source.to_string_lossy());
    let bridge = word(&spec.bridge);
    let store = spec.firmware.as_ref().map_or_else(String::new, |firmware| {
        let template = word(&firmware.template.to_string_lossy());
        format!("[ -s {STORE} ] || cp -- {template} {STORE}\n")
    });
    let tpm = spec.tpm.map_or_else(String::new, |_| {
        let line = tpm::command_line(&format!("path={}", tpm::SOCKET));
        let line = quoted(line[0].as_ref(), &line[1..]);
        format!(
            "{line} &\nwhile [ ! -S {} ] && kill -0 $!; do sleep 0.1; done\n",
            tpm::SOCKET
        )
    });
    // cp(1) shares the blocks, and needs no program of btrfs.
    let _ = write!(
        text,
        "# The machine is a copy, which is removed at the end. Its console is here; for\n\
         # QEMU's monitor type Ctrl-a c. No TFTP server answers its requests.\n\
         set -eu\n\
         source={source}\n\
         copy=${{source%/*}}/.by-hand\n\
         command -v ip >/dev/null || {{ echo 'no program ip (iproute2)' >&2; exit 1; }}\n\
         mkdir -- \"$copy\"\n\
         trap 'rm -rf -- \"$copy\"; ip link delete {TAP} 2>/dev/null' EXIT\n\
         trap 'exit 1' HUP INT TERM\n\
         cp -a --reflink=auto -- \"$source/.\" \"$copy\"\n\
         cd -- \"$copy\"\n\
         {store}ip tuntap add dev {TAP} mode tap vnet_hdr\n\
         ip link set dev {TAP} master {bridge} up\n\
         {tpm}{}\n",
        quoted(&spec.qemu, &qemu::argv_by_hand(spec, TAP))
    );
    text
}

/// A command as a shell takes it.
pub(super) fn quoted(program: &Path, arguments: &[OsString]) -> String {
    let mut line = String::new();
    quote(&mut line, &program.to_string_lossy());
    for argument in arguments {
        line.push(' ');
        quote(&mut line, &argument.to_string_lossy());
    }
    line
}

fn quote(line: &mut String, word: &str) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+@%".contains(c);
    if word.chars().all(is_plain) && !word.is_empty() {
        line.push_str(word);
    } else {
        line.push('\'');
        line.push_str(&word.replace('\'', "'\\''"));
        line.push('\'');
    }
}
