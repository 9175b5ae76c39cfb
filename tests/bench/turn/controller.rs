//! A controller on loopback that hands out tasks, takes results and notes when.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::scene::now;

/// What it saw, in the order in which it happened.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When each task was answered with.
    pub tasks: Vec<u64>,
    /// When each result was complete.
    pub results: Vec<u64>,
    /// The last result.
    pub last: String,
}

pub struct Controller {
    pub url: String,
    seen: Arc<Mutex<Seen>>,
    /// How many tasks are left.
    left: Arc<AtomicUsize>,
}

impl Controller {
    /// One with `tasks` tasks for `machine`.
    pub fn start(machine: &str, tasks: usize) -> Controller {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let left = Arc::new(AtomicUsize::new(tasks));
        let task = format!(":\nname: libfoo\nversion: 1.2.3\nmachine: {machine}\n");
        let shared = (seen.clone(), left.clone());
        thread::spawn(move || {
            let (seen, left) = shared;
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Some((target, body)) = request(&mut stream) else {
                    continue;
                };
                if target.contains("result") {
                    let mut seen = seen.lock().unwrap();
                    seen.results.push(now());
                    seen.last = body;
                    answer(&mut stream, "");
                    continue;
                }
                let take = |n: usize| n.checked_sub(1);
                let n = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
                let text = match n {
                    Ok(n) => format!(
                        ": 1\nsession: s/{n}\nresult-url: http://{host}/?build-result\n{task}"
                    ),
                    Err(_) => ": 1\nsession:\n".to_owned(),
                };
                if n.is_ok() {
                    seen.lock().unwrap().tasks.push(now());
                }
                answer(&mut stream, &text);
            }
        });
        Controller {
            url: format!("http://{host}/?build-task"),
            seen,
            left,
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

/// The target and the body of a request.
fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while bytes.len() < head + length {
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
    let target = text.split(' ').nth(1)?.to_owned();
    Some((target, String::from_utf8_lossy(&bytes[head..]).into_owned()))
}

fn answer(stream: &mut TcpStream, body: &str) {
    let text = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/manifest;charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes());
}
