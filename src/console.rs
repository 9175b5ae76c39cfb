//! `--console`: the console of a guest that runs, followed until the guest has ended.
//!
//! The agent of the guest is another process, which takes no notice: its status file says
//! which guest runs, and its run directory has the console.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli;
use crate::durable;
use crate::error::{Class, Context as _, Error, Result};
use crate::json::Value;
use crate::machine::capture::plain_text;
use crate::machine::{self, CONSOLE_LOG};
use crate::status::{self, Phase};
use crate::sys::poll::is_hung_up;
use crate::watch::{self, Watch};

/// The end of the console that is printed at once, in bytes.
const MAX_START_BYTES: u64 = 64 * 1024;

/// The longest part of a line that is kept until the rest comes, in bytes.
const MAX_PENDING_BYTES: usize = 64 * 1024;

/// The interval of looks at the console.
const INTERVAL: Duration = Duration::from_millis(200);

/// The number of looks without output after which a line without an end is printed.
const LOOKS_FOR_END: u32 = 5;

/// A guest of an agent.
#[derive(Clone, Debug)]
struct RunningGuest {
    status: PathBuf,
    /// Machine, task and session of the agent.
    subject: [Option<String>; 3],
    machine: String,
    /// The number of an auxiliary machine, from 1.
    auxiliary: Option<usize>,
}

impl RunningGuest {
    /// The guests of the agent with this status file: that of its bootstrap or build, and
    /// those of auxiliary machines.
    fn all(status: &Path) -> Vec<RunningGuest> {
        let state = match live_work(status) {
            Some((state, work)) if status::has_guest(&work) => state,
            _ => return Vec::new(),
        };
        let text = |name| state.get(name).and_then(Value::as_str).map(str::to_owned);
        let guest = RunningGuest {
            status: status.to_owned(),
            subject: ["machine", "task", "session"].map(text),
            machine: text("machine").unwrap_or_default(),
            auxiliary: None,
        };
        let names = state.get("auxiliary").and_then(Value::as_array);
        let names = names.unwrap_or_default().iter().enumerate();
        let auxiliary = names.map(|(index, name)| RunningGuest {
            machine: name.as_str().unwrap_or_default().to_owned(),
            auxiliary: Some(index + 1),
            ..guest.clone()
        });
        let auxiliary: Vec<_> = auxiliary.collect();
        [vec![guest], auxiliary].concat()
    }

    /// Whether the same task, or bootstrap, is still under way.
    fn runs(&self) -> bool {
        let now = RunningGuest::all(&self.status);
        now.first().is_some_and(|now| now.subject == self.subject)
    }

    fn console(&self) -> PathBuf {
        let directory = self.status.with_file_name("");
        match self.auxiliary {
            None => directory.join(CONSOLE_LOG),
            Some(number) => machine::auxiliary_run_dir(&directory, number).join(CONSOLE_LOG),
        }
    }
}

/// The state of the agent with this status file, if it is alive, and the word for its work.
fn live_work(status: &Path) -> Option<(Value, String)> {
    let state = status::json(&status::read(status).ok()??, watch::moment());
    let work = state.get("work").and_then(Value::as_str)?.to_owned();
    let is_alive = state.get("alive").and_then(Value::as_bool) == Some(true);
    is_alive.then_some((state, work))
}

/// Prints the console of the guest of one of the agents with these status files, of
/// `machine` if it is given, until the guest has ended or a signal comes in.
pub fn follow(statuses: &[PathBuf], machine: Option<&str>, watch: &Watch) -> Result<()> {
    let running: Vec<RunningGuest> = statuses
        .iter()
        .flat_map(|path| RunningGuest::all(path))
        // The guest of a build starts when its auxiliary machines are up.
        .filter(|guest| guest.console().exists())
        .collect();
    let names = || {
        let names: Vec<&str> = running.iter().map(|guest| &*guest.machine).collect();
        names.join(", ")
    };
    let mut wanted = running.iter().filter(|guest| match machine {
        Some(machine) => machine == guest.machine,
        None => guest.auxiliary.is_none(),
    });
    let guest = match (wanted.next(), wanted.next()) {
        (Some(guest), None) => guest,
        (Some(_), Some(_)) => {
            return Err(Error::new("several guests are running")
                .with_class(Class::Usage)
                .hint(format!(
                    "name the machine, --console=<machine>: {}",
                    names()
                ))
                .hint("or the agent: --toolchain-name, --instance"));
        }
        (None, _) => {
            let error = Error::new(match machine {
                Some(machine) => format!("no guest of machine {machine} is running"),
                None if running.is_empty() => "no guest is running".to_owned(),
                None => "only auxiliary guests are running".to_owned(),
            });
            let is_shell = |status: &PathBuf| {
                live_work(status).is_some_and(|(_, work)| work == Phase::Shell.keyword())
            };
            return Err(match running.is_empty() {
                true if statuses.iter().any(is_shell) => {
                    error.hint("the console of a shell (--shell) is on its terminal")
                }
                true => error,
                false => error.hint(format!("guests are running of: {}", names())),
            });
        }
    };
    let path = guest.console();
    let unable = || format!("unable to read console {}", path.display());
    let mut log = FollowedLog::open(&path).context(unable)?;
    let mut lines = ConsoleLines::default();
    let mut looks = 0;
    loop {
        let runs = guest.runs();
        loop {
            let bytes = log.read().context(unable)?;
            if bytes.is_empty() {
                break;
            }
            looks = 0;
            if !cli::print_on(lines.take(&bytes).as_bytes())? {
                return Ok(());
            }
        }
        looks += 1;
        if (looks == LOOKS_FOR_END || !runs) && !cli::print_on(lines.rest().as_bytes())? {
            return Ok(());
        }
        if !runs || is_hung_up(io::stdout().as_fd()) {
            return Ok(());
        }
        let _ = watch.pause(INTERVAL);
        if watch.stop().is_some() {
            return Ok(());
        }
    }
}

/// A log that another process writes and rotates.
#[derive(Debug)]
struct FollowedLog {
    path: PathBuf,
    file: File,
}

impl FollowedLog {
    /// Opens the log, and skips all but its end.
    fn open(path: &Path) -> io::Result<FollowedLog> {
        let mut file = durable::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX_START_BYTES)))?;
        Ok(FollowedLog {
            path: path.to_owned(),
            file,
        })
    }

    /// The next part of the log; empty if there is no more so far.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = self.read_file()?;
        if bytes.is_empty() {
            let now = self.file.metadata()?;
            if now.len() < self.file.stream_position()? {
                // Begun anew, for another attempt.
                self.file.rewind()?;
                bytes = self.read_file()?;
            } else if let Ok(next) = durable::open(&self.path)
                && next.metadata()?.ino() != now.ino()
            {
                self.file = next;
                bytes = self.read_file()?;
            }
        }
        Ok(bytes)
    }

    fn read_file(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 16 * 1024];
        let length = self.file.read(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// The output of a guest in lines that are fit for a terminal.
#[derive(Debug, Default)]
struct ConsoleLines {
    /// The beginning of a line.
    pending: Vec<u8>,
}

impl ConsoleLines {
    /// Adds output. Returns the lines that it ends.
    fn take(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let end = match self.pending.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.pending.len() < MAX_PENDING_BYTES => return String::new(),
            None => self.pending.len(),
        };
        let lines: Vec<u8> = self.pending.drain(..end).collect();
        plain_text(&lines)
    }

    /// A line whose end has not come.
    fn rest(&mut self) -> String {
        let line = std::mem::take(&mut self.pending);
        match line.strip_suffix(b"\r") {
            Some(line) => {
                self.pending.push(b'\r');
                plain_text(line)
            }
            None => plain_text(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_are_whole_and_cannot_steer_the_terminal() {
        let mut lines = ConsoleLines::default();
        assert_eq!(lines.take(b"a\x1b[3"), "");
        assert_eq!(lines.take(b"1mb\r"), "");
        assert_eq!(lines.take(b"\nlogin: "), "ab\n");
        assert_eq!(lines.rest(), "login: ");
        assert_eq!(lines.take(b"\x1b]0;x\x07root\r"), "");
        assert_eq!(lines.rest(), "root");
        assert_eq!(lines.take(b"\n\xe2\x80\xae\n"), "\n?\n");
        assert_eq!(
            lines.take(&[b'x'; MAX_PENDING_BYTES]).len(),
            MAX_PENDING_BYTES
        );
        assert_eq!(lines.rest(), "");
    }

    #[test]
    fn a_log_is_followed_when_it_is_rotated_or_begun_anew() {
        let directory = std::env::temp_dir().join(format!("bbot-follow-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("console.log");
        fs::write(&path, vec![b'x'; 100_000]).unwrap();
        let mut log = FollowedLog::open(&path).unwrap();
        let all = |log: &mut FollowedLog| {
            let mut all = Vec::new();
            loop {
                let bytes = log.read().unwrap();
                if bytes.is_empty() {
                    return all;
                }
                all.extend(bytes);
            }
        };
        assert_eq!(all(&mut log).len() as u64, MAX_START_BYTES);
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"end")
            .unwrap();
        fs::rename(&path, directory.join("console.log.1")).unwrap();
        fs::write(&path, "next").unwrap();
        assert_eq!(all(&mut log), b"endnext");
        fs::write(&path, "new").unwrap();
        assert_eq!(all(&mut log), b"new");
        fs::remove_file(&path).unwrap();
        assert_eq!(all(&mut log), b"");
        fs::remove_dir_all(&directory).unwrap();
    }
}
