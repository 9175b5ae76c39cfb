//! The TFTP server alone: for conformance tests, benches and by hand.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write as _;
use std::net::SocketAddrV4;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use bbot_agent::diag;
use bbot_agent::error::{Error, Result};
use bbot_agent::tftp::{Map, Served, ServerSettings, TftpServer};
use bbot_agent::watch::Watch;
use lexopt::Arg;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const USAGE: &str = "\
usage: tftp-serve --listen ADDR:PORT [--get DIR] [--put DIR] [options]

  --listen ADDR:PORT  where to listen; port 0 takes a free one
  --get DIR           where GETs read; without it they are refused
  --put DIR           where PUTs write; without it they are refused
  --limit BYTES       the largest upload (default: none)
  --quiet             no line for each request
  --help              this text

Prints the address, then a line for each request. SIGTERM ends it.
";

struct Settings {
    listen: SocketAddrV4,
    map: Map,
    config: ServerSettings,
    quiet: bool,
}

fn main() -> ExitCode {
    match settings().and_then(|settings| settings.map_or(Ok(()), |settings| serve(&settings))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            diag::fatal(&error).emit();
            ExitCode::FAILURE
        }
    }
}

/// What the command line says; `None` if it was only asking.
fn settings() -> Result<Option<Settings>> {
    let mut listen = None;
    let mut map = Map::new();
    let mut config = ServerSettings::default();
    let mut quiet = false;

    let wrong = |error: lexopt::Error| Error::new(error.to_string()).hint("try --help");
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Arg::Long("listen") => {
                let value = parser.value().map_err(wrong)?;
                let text = value.to_string_lossy();
                listen = Some(text.parse::<SocketAddrV4>().map_err(|_| {
                    Error::new(format!("--listen: '{text}' is not an IPv4 ADDR:PORT"))
                })?);
            }
            Arg::Long("get") => map = map.get(directory("--get", &mut parser)?),
            Arg::Long("put") => map = map.put(directory("--put", &mut parser)?),
            Arg::Long("limit") => {
                let value = parser.value().map_err(wrong)?;
                let text = value.to_string_lossy();
                config.upload_most = text.parse().map_err(|_| {
                    Error::new(format!("--limit: '{text}' is not a number of bytes"))
                })?;
            }
            Arg::Long("quiet") => quiet = true,
            Arg::Short('h') | Arg::Long("help") => {
                print!("{USAGE}");
                return Ok(None);
            }
            other => return Err(wrong(other.unexpected())),
        }
    }
    let listen = listen.ok_or_else(|| Error::new("--listen is missing").hint("try --help"))?;
    Ok(Some(Settings {
        listen,
        map,
        config,
        quiet,
    }))
}

fn directory(option: &str, parser: &mut lexopt::Parser) -> Result<PathBuf> {
    let value = parser
        .value()
        .map_err(|error| Error::new(error.to_string()))?;
    let path = PathBuf::from(value);
    if !path.is_dir() {
        let path = path.display();
        return Err(Error::new(format!("{option}: {path} is not a directory")));
    }
    Ok(path)
}

fn serve(settings: &Settings) -> Result<()> {
    // Before the address is told, for a signal may follow at once.
    let watch = Watch::start()?;
    let mut server = TftpServer::bind(settings.listen, settings.config.clone())?;
    server.set_map(settings.map.clone());
    say(&format!("listening on {}", server.local_addr()?));
    loop {
        let served = server.serve(watch.until(None), &[watch.fd()])?;
        watch.tick(Instant::now());
        if watch.stop().is_some() {
            return Ok(());
        }
        if !settings.quiet
            && let Some(line) = describe(&served)
        {
            say(&line);
        }
    }
}

/// The line for a request, when there is nothing more to be said about it.
fn describe(served: &Served) -> Option<String> {
    Some(match served {
        Served::Sent { peer, name, size } => format!("{peer} GET {name}: {size} bytes"),
        Served::Uploaded { peer, upload, size } => {
            format!("{peer} PUT {}: {size} bytes", upload.name)
        }
        Served::Refused {
            peer,
            request: Some((kind, name)),
            refusal,
        } => format!("{peer} {kind} {name}: {refusal}"),
        Served::Refused { peer, refusal, .. } => format!("{peer} ?: {refusal}"),
        Served::Failed {
            peer,
            kind,
            name,
            reason,
            ..
        } => format!("{peer} {kind} {name}: failed: {reason}"),
        Served::Requested { .. } | Served::Deferred(_) | Served::Deadline | Served::Ready(_) => {
            return None;
        }
    })
}

/// Prints a line, unless nobody reads: the server does not wait for its log.
fn say(line: &str) {
    let mut text = String::with_capacity(line.len() + 1);
    diag::escape(&mut text, line);
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    let mut set = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut set, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        // Nobody is left to be told that nobody reads.
        let _ = stdout.write_all(text.as_bytes());
        let _ = stdout.flush();
    }
}
