//! The state of a machine whose guest failed, for evidence.
//!
//! QEMU is asked at once and answers while the agent does something else. All that it
//! says, and the file with the screen, may be the work of a guest that took it over: it
//! is bounded, and text has no control characters.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use super::capture::plain_text;
use super::monitor::{ANSWER_TIMEOUT, Said};
use super::{Spec, VirtualMachine, script};
use crate::durable;
use crate::evidence::{EvidenceFile, MAX_FILE_BYTES};
use crate::json::Value;
use crate::sys::file::{Access, open_directory, open_plain, read_at_most};

/// The size of the end of the console that is evidence, in bytes.
const MAX_CONSOLE_BYTES: u64 = 1 << 20;

/// The number of processors up to which the registers of all of them are asked for. They
/// have some 3 KiB each, and an answer is bounded.
const MAX_REGISTER_SETS: u32 = 64;

/// A format of the picture of the screen.
#[derive(Clone, Copy, Debug)]
struct ScreenFormat {
    /// The name of the file, in QEMU's own directory and among the evidence.
    name: &'static str,
    /// The first bytes of such a file.
    magic: &'static [u8],
}

/// Since QEMU 7.1, if it was built with libpng.
const PNG: ScreenFormat = ScreenFormat {
    name: "screen.png",
    magic: b"\x89PNG\r\n\x1a\n",
};

const PPM: ScreenFormat = ScreenFormat {
    name: "screen.ppm",
    magic: b"P6\n",
};

/// The questions, by their commands.
const SCREEN: &str = "screendump";
const BLOCK: &str = "query-block";
const REGISTERS: &str = "human-monitor-command";

/// The answers of QEMU so far.
#[derive(Debug)]
pub(super) struct Inspection {
    /// The questions without an answer.
    open: Vec<&'static str>,
    due: Instant,
    screen: ScreenFormat,
    has_screen: bool,
    block: Option<Value>,
    registers: Option<String>,
    /// The questions that were refused, with the reasons.
    refused: Vec<String>,
}

impl VirtualMachine {
    /// Suspends the guest and asks QEMU for its state: the screen, the disks, the
    /// registers. [`VirtualMachine::handle`] takes the answers.
    pub fn inspect(&mut self, now: Instant) {
        self.suspend(now);
        if self.exited.is_some() || self.monitor.fd().is_none() {
            return;
        }
        self.inspection = Some(Inspection {
            open: vec![SCREEN, BLOCK, REGISTERS],
            due: now + ANSWER_TIMEOUT,
            screen: PNG,
            has_screen: false,
            block: None,
            registers: None,
            refused: Vec::new(),
        });
        let due = now + ANSWER_TIMEOUT;
        self.ask_for_screen(PNG, Some("png"), due);
        self.monitor.send(BLOCK, due);
        let all = if self.cpus <= MAX_REGISTER_SETS {
            " -a"
        } else {
            ""
        };
        let line = Value::object([("command-line", format!("info registers{all}").into())]);
        self.monitor.send_with(REGISTERS, Some(line), due);
    }

    /// QEMU gets the file by the directory that is its own, whoever its user is.
    fn ask_for_screen(&mut self, format: ScreenFormat, word: Option<&str>, due: Instant) {
        let path = format!("/proc/self/fd/{}/{}", self.files.vnc_directory, format.name);
        let mut arguments = vec![("filename", Value::from(path))];
        arguments.extend(word.map(|word| ("format", word.into())));
        let arguments = Value::object(arguments);
        self.monitor.send_with(SCREEN, Some(arguments), due);
    }

    /// Whether QEMU has answered every question, or cannot.
    pub fn is_inspected(&self) -> bool {
        self.exited.is_some()
            || self.monitor.fd().is_none()
            || self.inspection.as_ref().is_none_or(|i| i.open.is_empty())
    }

    /// Takes an answer to one of the questions; any other message is returned.
    pub(super) fn note_answer(&mut self, said: Said) -> Option<Said> {
        let Some(inspection) = &mut self.inspection else {
            return Some(said);
        };
        let command = match &said {
            Said::Done(command, _) | Said::Refused(command, _) => *command,
            _ => return Some(said),
        };
        let Some(at) = inspection.open.iter().position(|open| *open == command) else {
            return Some(said);
        };
        match said {
            // A QEMU without PNG knows no formats, or not this one.
            Said::Refused(SCREEN, _) if inspection.screen.name == PNG.name => {
                inspection.screen = PPM;
                let due = inspection.due;
                self.ask_for_screen(PPM, None, due);
                return None;
            }
            Said::Refused(command, reason) => {
                inspection.refused.push(format!("{command}: {reason}"));
            }
            Said::Done(SCREEN, _) => inspection.has_screen = true,
            Said::Done(BLOCK, value) => inspection.block = Some(value),
            Said::Done(_, Value::String(text)) => inspection.registers = Some(text),
            _ => {}
        }
        inspection.open.swap_remove(at);
        None
    }

    /// The files of the evidence, and what is missing and why.
    pub fn findings(&self) -> (Vec<EvidenceFile>, Vec<String>) {
        let mut files = vec![
            ("console.txt", plain(&self.whole_console())),
            ("qemu.txt", plain(&self.stderr.tail().bytes())),
        ];
        let events = self.monitor.events().join("\n") + "\n";
        files.push(("events.txt", plain(events.as_bytes())));
        let script = durable::read(&self.files.script, MAX_FILE_BYTES as u64);
        files.extend(script.ok().map(|script| (script::NAME, script)));
        let mut missing = Vec::new();
        if let Some(inspection) = &self.inspection {
            if let Some(block) = &inspection.block {
                files.push(("block.json", format!("{block}\n").into_bytes()));
            }
            if let Some(registers) = &inspection.registers {
                files.push(("registers.txt", plain(registers.as_bytes())));
            }
            if inspection.has_screen {
                match self.read_screen(inspection.screen) {
                    Ok(screen) => files.push((inspection.screen.name, screen)),
                    Err(why) => missing.push(format!("{SCREEN}: {why}")),
                }
            }
            missing.extend(inspection.refused.iter().cloned());
            let silent = inspection.open.iter();
            missing.extend(silent.map(|command| format!("{command}: not answered")));
        }
        (files, missing)
    }

    /// The number of bytes that the guest has written to its console.
    pub fn console_bytes(&self) -> u64 {
        self.console.tail().total()
    }

    /// The end of the console, from its log, or if that is incomplete from memory.
    fn whole_console(&self) -> Vec<u8> {
        let read = || -> std::io::Result<Vec<u8>> {
            let console = end_of(&self.files.console, MAX_CONSOLE_BYTES)?;
            let (length, total) = (console.len() as u64, self.console_bytes());
            // Without a rotation, the older file is of another guest.
            if length == MAX_CONSOLE_BYTES || length >= total {
                return Ok(console);
            }
            let mut older = self.files.console.clone().into_os_string();
            older.push(".1");
            let mut both = end_of(Path::new(&older), MAX_CONSOLE_BYTES - length)?;
            both.extend(console);
            Ok(both)
        };
        let is_logged = self.console.is_logged();
        let log = is_logged.then(read).and_then(Result::ok);
        log.unwrap_or_else(|| self.console.tail().bytes())
    }

    fn read_screen(&self, format: ScreenFormat) -> Result<Vec<u8>, String> {
        let read = || {
            let directory = self.files.vnc.parent().unwrap_or(&self.files.vnc);
            let directory = open_directory(directory)?;
            let mut file = open_plain(directory.as_fd(), format.name, Access::Read)?;
            if !file.metadata()?.is_file() {
                return Err(std::io::Error::other("not a regular file"));
            }
            read_at_most(&mut file, MAX_FILE_BYTES as u64)
        };
        let screen = read().map_err(|error| crate::error::reason(&error))?;
        if !screen.starts_with(format.magic) {
            return Err(format!("{} is no picture", format.name));
        }
        Ok(screen)
    }
}

/// The script that starts a machine again, for one that did not start.
pub fn start_script(spec: &Spec) -> EvidenceFile {
    (script::NAME, script::text(spec).into_bytes())
}

/// The last `most` bytes of a file.
fn end_of(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut file = durable::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok(end)
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    plain_text(bytes).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_file_is_read_whatever_its_length() {
        let path = std::env::temp_dir().join(format!("bbot-end-{}", std::process::id()));
        std::fs::write(&path, "0123456789").unwrap();
        for (most, end) in [(0, ""), (3, "789"), (10, "0123456789"), (99, "0123456789")] {
            assert_eq!(end_of(&path, most).unwrap(), end.as_bytes());
        }
        std::fs::remove_file(&path).unwrap();
    }
}
