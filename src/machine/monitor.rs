//! QEMU's monitor in JSON (QMP): messages, commands, and the deadlines of answers.
//!
//! [`Protocol`] turns bytes into messages and commands into bytes; it does no
//! I/O. [`Monitor`] puts it on a descriptor. A guest may have taken QEMU over, so
//! lines are bounded, JSON is read strictly, and a message that is not understood is
//! dropped or ends the connection. The process is then still controlled by its pidfd.
//!
//! Format: QEMU's `docs/interop/qmp-spec.txt`; events: `qapi/run-state.json`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::json::Value;

/// The longest line that is read. A greeting or an event has some hundred bytes, the
/// state of all disks with their backing files some 100 KiB at most.
const MAX_LINE: usize = 1024 * 1024;

/// The number of events that are kept for evidence, and the size of each, in bytes.
const MAX_EVENTS: usize = 64;
const MAX_EVENT_BYTES: usize = 2048;

/// The time for QEMU to answer. `stop` waits for disk writes.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The reason of a connection that QEMU closed.
pub const CLOSED: &str = "closed by qemu";
/// The reasons of one that is closed for a line: one longer than any that QEMU sends, or
/// one that is not JSON in UTF-8.
const LONG_LINE: &str = "line too long";
const NOT_JSON: &str = "not JSON";

/// A message of QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first line, with QEMU's version.
    Greeting(String),
    /// The answer to the command of that id, with its value.
    Return(u64, Value),
    /// The refusal of the command of that id, with the reason.
    Refused(u64, String),
    /// Something happened; the name and the data.
    Event(String, Value),
}

/// The protocol, without I/O.
#[derive(Debug, Default)]
pub struct Protocol {
    buffer: Vec<u8>,
    /// The length of the start of `buffer` that holds no newline.
    scanned: usize,
    last_id: u64,
    /// The last events, as QEMU wrote them.
    events: VecDeque<String>,
}

impl Protocol {
    /// Adds what was read.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message. Other JSON values are skipped. After an error, its
    /// reason, the connection is of no use.
    pub fn next_message(&mut self) -> Result<Option<Message>, &'static str> {
        loop {
            let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') else {
                self.scanned = self.buffer.len();
                return if self.scanned > MAX_LINE {
                    Err(LONG_LINE)
                } else {
                    Ok(None)
                };
            };
            let end = self.scanned + at;
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.scanned = 0;
            if line.len() > MAX_LINE {
                return Err(LONG_LINE);
            }
            let text = std::str::from_utf8(&line).map_err(|_| NOT_JSON)?;
            if text.trim().is_empty() {
                continue;
            }
            let value = Value::parse(text).map_err(|_| NOT_JSON)?;
            if let Some(message) = message(&value) {
                if matches!(message, Message::Event(..)) && text.len() <= MAX_EVENT_BYTES {
                    self.events.push_back(text.trim().to_owned());
                    let excess = self.events.len().saturating_sub(MAX_EVENTS);
                    self.events.drain(..excess);
                }
                return Ok(Some(message));
            }
        }
    }

    /// The id and the bytes of a command.
    pub fn command(&mut self, name: &str, arguments: Option<Value>) -> (u64, Vec<u8>) {
        self.last_id += 1;
        let id = self.last_id;
        let mut members = vec![("execute", Value::from(name))];
        members.extend(arguments.map(|arguments| ("arguments", arguments)));
        members.push(("id", Value::from(id)));
        (id, format!("{}\n", Value::object(members)).into_bytes())
    }
}

fn message(value: &Value) -> Option<Message> {
    if let Some(greeting) = value.get("QMP") {
        let version = greeting.get("version")?.get("qemu")?;
        let part = |name| version.get(name).and_then(Value::as_u64);
        return Some(Message::Greeting(format!(
            "{}.{}.{}",
            part("major")?,
            part("minor")?,
            part("micro")?
        )));
    }
    if let Some(name) = value.get("event") {
        let data = value.get("data").cloned().unwrap_or(Value::Null);
        return Some(Message::Event(name.as_str()?.to_owned(), data));
    }
    let id = value.get("id")?.as_u64()?;
    if let Some(result) = value.get("return") {
        return Some(Message::Return(id, result.clone()));
    }
    let reason = value.get("error")?.get("desc")?.as_str()?;
    Some(Message::Refused(id, reason.to_owned()))
}

/// A command that was sent and not answered yet.
#[derive(Debug)]
struct Pending {
    id: u64,
    name: &'static str,
    due: Instant,
}

/// A message of [`Monitor::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The greeting, with QEMU's version.
    Greeting(String),
    /// QEMU carried out the command, with this value.
    Done(&'static str, Value),
    /// The command was refused, with the reason.
    Refused(&'static str, String),
    /// An event: name and data.
    Event(String, Value),
    /// The connection is closed, with the reason.
    Lost(&'static str),
}

/// The protocol on a descriptor.
#[derive(Debug)]
pub struct Monitor {
    /// `None` once the connection is closed.
    fd: Option<OwnedFd>,
    protocol: Protocol,
    pending: VecDeque<Pending>,
    unsent: Vec<u8>,
}

impl Monitor {
    /// Uses `fd`, a non-blocking stream socket.
    pub fn new(fd: OwnedFd) -> Monitor {
        Monitor {
            fd: Some(fd),
            protocol: Protocol::default(),
            pending: VecDeque::new(),
            unsent: Vec::new(),
        }
    }

    /// The descriptor to poll, while the connection is open.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Sends a command without arguments, to be answered by `due`. A command that is
    /// still unanswered is not sent again, so that a QEMU that does not answer costs no
    /// memory.
    pub fn send(&mut self, name: &'static str, due: Instant) {
        self.send_with(name, None, due);
    }

    /// As [`Monitor::send`], with an object of arguments.
    pub fn send_with(&mut self, name: &'static str, arguments: Option<Value>, due: Instant) {
        if self.fd.is_none() || self.pending.iter().any(|p| p.name == name) {
            return;
        }
        let (id, bytes) = self.protocol.command(name, arguments);
        self.pending.push_back(Pending { id, name, due });
        self.unsent.extend_from_slice(&bytes);
        self.flush();
    }

    /// The last events, as QEMU wrote them, a line each.
    pub fn events(&self) -> Vec<&str> {
        self.protocol.events.iter().map(String::as_str).collect()
    }

    /// Gives QEMU the descriptor `file` by the name `name` (`getfd`, qapi `misc.json`).
    pub fn send_file(&mut self, name: &str, file: BorrowedFd<'_>, due: Instant) -> nix::Result<()> {
        self.flush();
        let is_ready = self.unsent.is_empty();
        let fd = self.fd.as_ref().filter(|_| is_ready).ok_or(Errno::EPIPE)?;
        let arguments = Value::object([("fdname", Value::from(name))]);
        let name = "getfd";
        let (id, bytes) = self.protocol.command(name, Some(arguments));
        self.pending.push_back(Pending { id, name, due });
        // A command of this size is sent as a whole or not at all.
        let (files, parts) = ([file.as_raw_fd()], [IoSlice::new(&bytes)]);
        let control = [ControlMessage::ScmRights(&files)];
        sendmsg::<()>(fd.as_raw_fd(), &parts, &control, MsgFlags::empty(), None).map(drop)
    }

    /// The earliest time at which an answer is due.
    pub fn due(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.due).min()
    }

    /// A command whose answer is overdue, once for each.
    pub fn overdue(&mut self, now: Instant) -> Option<&'static str> {
        let at = self.pending.iter().position(|p| p.due <= now)?;
        self.pending.remove(at).map(|pending| pending.name)
    }

    /// The next messages of QEMU, up to 64 KiB of them.
    pub fn read(&mut self) -> Vec<Said> {
        const MAX_READS: usize = 16;
        let mut said = Vec::new();
        self.flush();
        let mut buffer = [0; 4096];
        for _ in 0..MAX_READS {
            let Some(fd) = &self.fd else { break };
            match nix::unistd::read(fd, &mut buffer) {
                // Reset: QEMU ended without reading all commands.
                Ok(0) | Err(Errno::ECONNRESET) => self.lose(CLOSED, &mut said),
                Ok(count) => {
                    self.protocol.receive(&buffer[..count]);
                    self.messages(&mut said);
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => self.lose(error.desc(), &mut said),
            }
        }
        said
    }

    fn messages(&mut self, said: &mut Vec<Said>) {
        loop {
            let message = match self.protocol.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(why) => return self.lose(why, said),
            };
            match message {
                Message::Greeting(version) => said.push(Said::Greeting(version)),
                Message::Event(name, data) => said.push(Said::Event(name, data)),
                // An answer without a command is ignored.
                Message::Return(id, value) => {
                    said.extend(self.answered(id).map(|name| Said::Done(name, value)));
                }
                Message::Refused(id, reason) => {
                    said.extend(self.answered(id).map(|name| Said::Refused(name, reason)));
                }
            }
        }
    }

    fn answered(&mut self, id: u64) -> Option<&'static str> {
        let at = self.pending.iter().position(|p| p.id == id)?;
        self.pending.remove(at).map(|pending| pending.name)
    }

    fn lose(&mut self, why: &'static str, said: &mut Vec<Said>) {
        self.fd = None;
        self.pending.clear();
        said.push(Said::Lost(why));
    }

    fn flush(&mut self) {
        while let (Some(fd), false) = (&self.fd, self.unsent.is_empty()) {
            match nix::unistd::write(fd, &self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::EINTR) => {}
                // Full: tried again later, until the answer is overdue. Closed: found
                // out by reading.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \
         \"major\": 7}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";

    fn all(input: &[u8], step: usize) -> Result<Vec<Message>, &'static str> {
        let mut protocol = Protocol::default();
        let mut messages = Vec::new();
        for bytes in input.chunks(step) {
            protocol.receive(bytes);
            while let Some(message) = protocol.next_message()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let input = format!(
            "{GREETING}{{\"return\": {{}}, \"id\": 1}}\r\n{{\"timestamp\": {{\"seconds\": 1}}, \
             \"event\": \"STOP\"}}\r\n{{\"id\": 2, \"error\": {{\"class\": \"GenericError\", \
             \"desc\": \"no\"}}}}\r\n"
        );
        let whole = all(input.as_bytes(), usize::MAX).unwrap();
        assert_eq!(
            whole,
            [
                Message::Greeting("7.2.22".into()),
                Message::Return(1, Value::Object(Vec::new())),
                Message::Event("STOP".into(), Value::Null),
                Message::Refused(2, "no".into()),
            ]
        );
        for step in [1, 2, 7, 64] {
            assert_eq!(all(input.as_bytes(), step).unwrap(), whole);
        }
    }

    #[test]
    fn a_line_without_end_is_not_collected() {
        assert_eq!(all(&vec![b'x'; 10 * MAX_LINE], 4096), Err(LONG_LINE));
    }

    #[test]
    fn what_is_not_json_ends_the_conversation() {
        for input in ["hello\n", "{\"QMP\": \n", "\u{0}\n", "{}{}\n"] {
            assert_eq!(all(input.as_bytes(), 9), Err(NOT_JSON), "{input}");
        }
        assert_eq!(all(b"\xff\xfe\n", 9), Err(NOT_JSON));
    }

    #[test]
    fn json_that_is_no_message_is_skipped() {
        let input =
            b"[]\n{}\n7\n{\"event\": 3}\n{\"return\": 1}\n{\"QMP\": 1}\n\n{\"event\":\"A\"}\n";
        assert_eq!(
            all(input, 100).unwrap(),
            [Message::Event("A".into(), Value::Null)]
        );
    }

    #[test]
    fn no_mutation_of_a_conversation_is_read_differently_in_pieces() {
        let seed = format!(
            "{GREETING}{{\"return\":{{}},\"id\":1}}\n{{\"event\":\"SHUTDOWN\",\"data\":\
             {{\"guest\":true,\"reason\":\"guest-reset\"}}}}\n"
        );
        // The same numbers in every run (Knuth's MMIX generator).
        let mut state = 1_u64;
        let mut random = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % bound
        };
        for _ in 0..2000 {
            let mut input = seed.clone().into_bytes();
            for _ in 0..=random(4) {
                let at = random(input.len());
                match random(3) {
                    0 => input[at] = u8::try_from(random(256)).unwrap(),
                    1 => input.truncate(at.max(1)),
                    _ => input.insert(at, b"{}[]\",:\\\n"[random(9)]),
                }
            }
            assert_eq!(all(&input, 1 + random(40)), all(&input, usize::MAX));
        }
    }

    #[test]
    fn a_command_is_one_line_with_an_id() {
        let mut protocol = Protocol::default();
        let _ = protocol.command("qmp_capabilities", None);
        let (id, bytes) = protocol.command("stop", None);
        assert_eq!(id, 2);
        assert_eq!(bytes, b"{\"execute\":\"stop\",\"id\":2}\n");
        let arguments = Value::object([("filename", Value::from("a\nb"))]);
        assert_eq!(
            protocol.command("screendump", Some(arguments)).1,
            b"{\"execute\":\"screendump\",\"arguments\":{\"filename\":\"a\\nb\"},\"id\":3}\n"
        );
    }

    #[test]
    fn the_same_question_is_not_asked_twice_at_once() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut monitor = Monitor::new(ours.into());
        let start = Instant::now();
        monitor.send("stop", start + ANSWER_TIMEOUT);
        monitor.send("stop", start + ANSWER_TIMEOUT);
        assert_eq!(monitor.due(), Some(start + ANSWER_TIMEOUT));
        assert_eq!(monitor.overdue(start), None);
        assert_eq!(monitor.overdue(start + ANSWER_TIMEOUT), Some("stop"));
        assert_eq!(monitor.overdue(start + ANSWER_TIMEOUT), None);
        drop(theirs);
        assert_eq!(monitor.read(), [Said::Lost(CLOSED)]);
        assert!(monitor.fd().is_none());
    }
}
