//! The agent that asks.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use super::SOCKET;
use super::lines::{Demand, DemandAnswer, Line, read_line};
use crate::error::{Context as _, Error, Result};
use crate::sys::poll::{Wait, Waited};
use crate::sys::unix::connect;

/// A guest that is paused as long as this lives.
#[derive(Debug)]
pub struct PausedGuest {
    _stream: UnixStream,
}

/// Asks the agent with the run directory `directory` to make room, in the name of
/// `agent`, and waits for its answer until `deadline`. The guest is paused as long as
/// the value lasts.
///
/// # Errors
///
/// If it does not answer: it has ended, performs no task, or is stopped.
pub fn demand(
    directory: &Path,
    demand: Demand,
    agent: &str,
    deadline: Instant,
    wait: &mut Wait<'_>,
) -> Result<(DemandAnswer, PausedGuest)> {
    let path = directory.join(SOCKET);
    let unable = || {
        let agent = directory.file_name().unwrap_or_default();
        format!(
            "unable to {} the task of {}",
            demand.keyword(),
            agent.display()
        )
    };
    let connected = connect(&path).and_then(|mut stream| {
        stream.set_nonblocking(true)?;
        stream.write_all(format!("{} {agent}\n", demand.keyword()).as_bytes())?;
        Ok(stream)
    });
    let mut stream = connected.context(unable)?;
    let mut line = Vec::new();
    loop {
        match read_line(&mut stream, &mut line) {
            Line::Whole => break,
            Line::Part => {}
            Line::Lost => return Err(Error::new(format!("{}: no answer", unable()))),
        }
        let why = match wait(&[stream.as_fd()], deadline).context(unable)? {
            Waited::Readable => continue,
            Waited::Deadline => "no answer in time, its process may be stopped",
            Waited::Stopped => "the agent was told to stop",
        };
        return Err(Error::new(format!("{}: {why}", unable())));
    }
    let answer = DemandAnswer::parse(&String::from_utf8_lossy(&line));
    let answer = answer.ok_or_else(|| Error::new(format!("{}: invalid answer", unable())))?;
    Ok((answer, PausedGuest { _stream: stream }))
}
