//! A relay in front of a server that breaks connections where it is told to.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bbot_agent::sys::poll;
use nix::sys::socket::{setsockopt, sockopt};

/// Where a connection breaks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// After how many bytes of the request, or of the answer.
    pub after: usize,
    /// Whether it is the answer that is cut; then the server has all of the
    /// request.
    pub answer: bool,
    /// By a reset, or an orderly end.
    pub reset: bool,
}

/// The relay; dropped, it is gone.
pub struct Relay {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// One for each of the next connections; none left: no fault.
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Bytes of each connection that is over, there and back.
    lengths: Arc<Mutex<Vec<(usize, usize)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Relays to a port of loopback.
    pub fn start(port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let faults = Arc::new(Mutex::new(VecDeque::<Fault>::new()));
        let lengths = Arc::new(Mutex::new(Vec::new()));
        let shared = (stop.clone(), faults.clone(), lengths.clone());
        let thread = thread::spawn(move || {
            let (stop, faults, lengths) = shared;
            for client in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let fault = faults.lock().unwrap().pop_front();
                let length = relay(client.unwrap(), port, fault, &stop);
                lengths.lock().unwrap().push(length);
            }
        });
        Relay {
            address,
            stop,
            faults,
            lengths,
            thread: Some(thread),
        }
    }

    pub fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.address)
    }

    /// Breaks the next connection.
    pub fn fault(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// How long request and answer of connection `number` were, once it is over.
    pub fn lengths(&self, number: usize) -> (usize, usize) {
        let over = || self.lengths.lock().unwrap().get(number).copied();
        super::eventually("the connection is over", || over().is_some());
        over().unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking());
        }
    }
}

fn relay(
    mut client: TcpStream,
    port: u16,
    fault: Option<Fault>,
    stop: &AtomicBool,
) -> (usize, usize) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let limit = |answer: bool| match fault {
        Some(fault) if fault.answer == answer => fault.after,
        _ => usize::MAX,
    };
    let (mut there, mut back) = (0, 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        // An answer that is cut before its first byte is one nevertheless: the
        // server has had the request.
        if there >= limit(false) || (back > 0 && back >= limit(true)) {
            break;
        }
        let mut ready = [false; 2];
        let deadline = Instant::now() + Duration::from_millis(200);
        let fds = [client.as_fd(), server.as_fd()];
        poll::readable(&fds, &mut ready, Some(deadline)).unwrap();
        if stop.load(Ordering::SeqCst) {
            break;
        }
        if ready[0] {
            let most = buffer.len().min(limit(false) - there);
            match client.read(&mut buffer[..most]) {
                Ok(count) if count > 0 => {
                    there += count;
                    if server.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
        if ready[1] {
            let most = buffer.len().min(limit(true) - back);
            if most == 0 {
                break;
            }
            match server.read(&mut buffer[..most]) {
                Ok(count) if count > 0 => {
                    back += count;
                    if client.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
    }
    if fault.is_some_and(|fault| fault.reset) {
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&client, sockopt::Linger, &linger).unwrap();
    }
    (there, back)
}
