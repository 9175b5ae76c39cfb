//! Requests among the agents of a host: the guest of a task makes room for a task of
//! higher priority.
//!
//! An agent that performs a task listens on the socket `control` in its run directory.
//! Another agent connects and writes a line, `pause <agent>` or `interrupt <agent>`. The
//! answer is a line, too: `paused`, `interrupted` or `refused <why>`. A paused guest goes
//! on when the connection ends, by whatever cause: the kernel closes that of an agent that
//! was killed.

mod client;
mod lines;

use std::cell::{Ref, RefCell};
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{Context as _, Result};
use crate::sys::unix::listen;

pub use client::{PausedGuest, demand};
pub use lines::{Demand, DemandAnswer, DemandOf};
use lines::{Line, is_for_now, read_line};

/// The name of the socket in the run directory of an agent.
const SOCKET: &str = "control";

/// The time limit for a request after its connection was made.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The socket of this agent. Clones share it.
#[derive(Clone, Debug)]
pub struct ControlSocket(Rc<RefCell<ControlListener>>);

/// The listening socket and its one connection.
#[derive(Debug)]
pub struct ControlListener {
    path: PathBuf,
    listener: UnixListener,
    client: Option<Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    line: Vec<u8>,
    /// The time limit of its request; `None` once it has made it.
    until: Option<Instant>,
}

impl ControlSocket {
    /// Listens in the run directory of this agent.
    pub fn open(run_dir: &Path) -> Result<ControlSocket> {
        let path = run_dir.join(SOCKET);
        let listener = listen(&path).and_then(|listener| {
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.context(|| format!("unable to make socket {}", path.display()))?;
        Ok(ControlSocket(Rc::new(RefCell::new(ControlListener {
            path,
            listener,
            client: None,
        }))))
    }

    /// The socket, for [`ControlListener::fds`].
    pub fn socket(&self) -> Ref<'_, ControlListener> {
        self.0.borrow()
    }

    /// When [`ControlSocket::next`] is to be called, if nothing comes in before.
    pub fn deadline(&self) -> Option<Instant> {
        self.0
            .borrow()
            .client
            .as_ref()
            .and_then(|client| client.until)
    }

    /// Takes a request that has come in.
    pub fn next(&self, now: Instant) -> Option<DemandOf> {
        let socket = &mut *self.0.borrow_mut();
        while let Ok((mut stream, _)) = socket.listener.accept() {
            if socket.client.is_some() {
                let busy = DemandAnswer::Refused("it is busy with another request".to_owned());
                let _ = stream.write_all(busy.line().as_bytes());
            } else if stream.set_nonblocking(true).is_ok() {
                socket.client = Some(Client {
                    stream,
                    line: Vec::new(),
                    until: Some(now + REQUEST_TIMEOUT),
                });
            }
        }
        let client = socket.client.as_mut()?;
        let until = client.until?;
        match read_line(&mut client.stream, &mut client.line) {
            Line::Whole => {
                client.until = None;
                let demand = DemandOf::parse(&client.line);
                if demand.is_none() {
                    let unknown = DemandAnswer::Refused("it does not know this".to_owned());
                    let _ = client.stream.write_all(unknown.line().as_bytes());
                    socket.client = None;
                }
                demand
            }
            Line::Part if now < until => None,
            Line::Part | Line::Lost => {
                socket.client = None;
                None
            }
        }
    }

    /// Whether the agent whose request was taken has closed the connection.
    pub fn is_released(&self) -> bool {
        let socket = &mut *self.0.borrow_mut();
        socket.client.as_mut().is_none_or(|client| {
            // Whatever follows a request is no part of the protocol.
            !matches!(client.stream.read(&mut [0; 16]), Err(error) if is_for_now(&error))
        })
    }

    /// Answers the request. The connection lasts after [`DemandAnswer::Paused`] only.
    pub fn answer(&self, answer: &DemandAnswer) {
        let socket = &mut *self.0.borrow_mut();
        if let Some(client) = &mut socket.client {
            // A line fits into the empty buffer of a socket.
            let sent = client.stream.write_all(answer.line().as_bytes());
            if sent.is_err() || *answer != DemandAnswer::Paused {
                socket.client = None;
            }
        }
    }

    /// Ends the connection.
    pub fn hang_up(&self) {
        self.0.borrow_mut().client = None;
    }
}

impl ControlListener {
    /// The descriptors to poll.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let client = self.client.iter().map(|client| client.stream.as_fd());
        client.chain([self.listener.as_fd()])
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufRead as _};

    use super::*;
    use crate::sys::poll::{Waited, readable_within};
    use crate::sys::unix::connect;
    use lines::MAX_LINE;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let name = format!("bbot-agent-control-{}-{name}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }

        fn say(&self, text: &str) -> UnixStream {
            let mut stream = connect(&self.0.join(SOCKET)).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn said(stream: UnixStream) -> String {
        let mut text = String::new();
        io::BufReader::new(stream).read_line(&mut text).unwrap();
        text
    }

    #[test]
    fn a_guest_is_paused_as_long_as_the_connection_lasts() {
        let scratch = Scratch::new("pause");
        let control = ControlSocket::open(&scratch.0).unwrap();
        let now = Instant::now();
        assert_eq!(control.next(now), None);
        let stream = scratch.say("pause default-2\n");
        let request = control.next(now).unwrap();
        assert_eq!(
            (request.demand, &*request.agent),
            (Demand::Pause, "default-2")
        );
        // One at a time.
        let other = scratch.say("interrupt x-1\n");
        assert_eq!(control.next(now), None);
        assert_eq!(said(other), "refused it is busy with another request\n");
        control.answer(&DemandAnswer::Paused);
        assert!(!control.is_released());
        drop(stream);
        assert!(control.is_released());
    }

    #[test]
    fn requests_are_bounded_in_size_and_time() {
        let scratch = Scratch::new("hostile");
        let control = ControlSocket::open(&scratch.0).unwrap();
        let start = Instant::now();
        let mut silent = scratch.say("pau");
        assert_eq!(control.next(start), None);
        assert_eq!(control.deadline(), Some(start + REQUEST_TIMEOUT));
        assert_eq!(control.next(start + REQUEST_TIMEOUT), None);
        assert!(silent.write_all(b"se default-2\n").is_err());
        for text in [
            "reboot x\n",
            "pause\n",
            "pause \n",
            "pause a b\n",
            "pause \u{1b}\n",
        ] {
            let stream = scratch.say(text);
            assert_eq!(control.next(start), None, "{text:?}");
            assert_eq!(said(stream), "refused it does not know this\n");
        }
        let mut long = scratch.say(&"x".repeat(MAX_LINE));
        assert_eq!(control.next(start), None);
        assert_eq!(long.read(&mut [0]).unwrap_or(0), 0);
        // The next one is heard.
        let _stream = scratch.say("interrupt default-2\n");
        assert!(control.next(start).is_some());
    }

    #[test]
    fn the_answer_comes_back_or_the_reason_is_said() {
        let scratch = Scratch::new("answer");
        let wait = &mut |fds: &[BorrowedFd<'_>], deadline: Instant| {
            let length = deadline.saturating_duration_since(Instant::now());
            Ok(match readable_within(fds[0], length)? {
                true => Waited::Readable,
                false => Waited::Deadline,
            })
        };
        let mut ask = |milliseconds| {
            let deadline = Instant::now() + Duration::from_millis(milliseconds);
            demand(&scratch.0, Demand::Interrupt, "default-2", deadline, wait)
                .map(|(answer, _)| answer)
                .map_err(|error| error.to_string())
        };
        assert!(ask(0).unwrap_err().contains("No such file"));
        let (send, receive) = std::sync::mpsc::channel();
        let directory = scratch.0.clone();
        let agent = std::thread::spawn(move || {
            let control = ControlSocket::open(&directory).unwrap();
            send.send(()).unwrap();
            let answers = [
                DemandAnswer::Interrupted,
                DemandAnswer::Refused("it is interactive".to_owned()),
            ];
            for answer in answers {
                while control.next(Instant::now()).is_none() {
                    let socket = control.socket();
                    let fds: Vec<_> = socket.fds().collect();
                    let mut ready = vec![false; fds.len()];
                    crate::sys::poll::readable(&fds, &mut ready, control.deadline()).unwrap();
                }
                control.answer(&answer);
            }
        });
        receive.recv().unwrap();
        assert_eq!(ask(5000), Ok(DemandAnswer::Interrupted));
        let refused = DemandAnswer::Refused("it is interactive".to_owned());
        assert_eq!(ask(5000), Ok(refused));
        agent.join().unwrap();
        assert!(ask(0).unwrap_err().contains("No such file"));
    }
}
