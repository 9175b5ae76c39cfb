//! The lines of requests and answers.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;

/// The maximum length of a line, in bytes.
pub(super) const MAX_LINE: usize = 256;

/// The request to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// To end. Its task is given back.
    Interrupt,
    /// To stop, and to keep its memory, until the connection ends.
    Pause,
}

/// A request of another agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemandOf {
    /// The request itself.
    pub demand: Demand,
    /// The agent that asks.
    pub agent: String,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DemandAnswer {
    /// The guest is paused.
    Paused,
    /// The guest is gone.
    Interrupted,
    /// Neither, because.
    Refused(String),
}

impl Demand {
    const ALL: [(&str, Demand); 2] = [("interrupt", Demand::Interrupt), ("pause", Demand::Pause)];

    pub(super) fn keyword(self) -> &'static str {
        match self {
            Demand::Interrupt => "interrupt",
            Demand::Pause => "pause",
        }
    }
}

impl DemandOf {
    pub(super) fn parse(line: &[u8]) -> Option<DemandOf> {
        let (word, agent) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let (_, demand) = Demand::ALL.into_iter().find(|(known, _)| *known == word)?;
        let is_name = |c: u8| c.is_ascii_graphic();
        (!agent.is_empty() && agent.bytes().all(is_name)).then(|| DemandOf {
            demand,
            agent: agent.to_owned(),
        })
    }
}

impl DemandAnswer {
    pub(super) fn line(&self) -> String {
        match self {
            DemandAnswer::Paused => "paused\n".to_owned(),
            DemandAnswer::Interrupted => "interrupted\n".to_owned(),
            DemandAnswer::Refused(why) => format!("refused {why}\n"),
        }
    }

    pub(super) fn parse(line: &str) -> Option<DemandAnswer> {
        match line.split_once(' ') {
            Some(("refused", why)) => Some(DemandAnswer::Refused(why.to_owned())),
            None if line == "paused" => Some(DemandAnswer::Paused),
            None if line == "interrupted" => Some(DemandAnswer::Interrupted),
            _ => None,
        }
    }
}

/// A line that is being received.
pub(super) enum Line {
    /// All, without its end.
    Whole,
    /// A part.
    Part,
    /// It will not be whole: the peer has gone, or the line is too long.
    Lost,
}

pub(super) fn read_line(stream: &mut UnixStream, line: &mut Vec<u8>) -> Line {
    let mut buffer = [0; MAX_LINE];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Line::Lost,
            Ok(length) => line.extend_from_slice(&buffer[..length]),
            Err(error) if is_for_now(&error) => return Line::Part,
            Err(_) => return Line::Lost,
        }
        if let Some(end) = line.iter().position(|c| *c == b'\n') {
            line.truncate(end);
            return Line::Whole;
        }
        if line.len() >= MAX_LINE {
            return Line::Lost;
        }
    }
}

pub(super) fn is_for_now(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted)
}
