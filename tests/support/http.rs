//! An HTTP server on loopback that does what a test tells it to, well-behaved
//! or not: each connection is handed to a closure.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, setsockopt,
    socket, sockopt,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// A request as it came in.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection in the hands of a test.
pub struct Connection {
    stream: Box<dyn Stream>,
    /// The socket under it, for what TLS has no word for.
    socket: TcpStream,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Request>>>,
    /// Which connection this is, from 0.
    pub number: usize,
}

impl Connection {
    /// Reads a whole request, and has the server remember it.
    pub fn request(&mut self) -> io::Result<Request> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte()?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ');
        let mut request = Request {
            method: first.next().unwrap().to_owned(),
            target: first.next().unwrap().to_owned(),
            ..Request::default()
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            let header = (name.to_ascii_lowercase(), value.trim().to_owned());
            request.headers.push(header);
        }
        let length = request.header("content-length").unwrap_or("0");
        request.body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut request.body)?;
        self.seen.lock().unwrap().push(request.clone());
        Ok(request)
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Reads `count` bytes of the request.
    pub fn take(&mut self, count: usize) {
        let _ = self.stream.read_exact(&mut vec![0; count]);
    }

    /// Sends bytes; that the peer has gone is no failure of the test.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
        let _ = self.stream.flush();
    }

    /// Sends a whole answer.
    pub fn answer(&mut self, status: &str, body: &str) {
        self.send(answer(status, body));
    }

    /// Waits until the kernel of the peer has all that was sent.
    pub fn await_receipt(&self) {
        let (local, peer) = (self.socket.local_addr(), self.socket.peer_addr());
        let ports = [local, peer].map(|address| format!(":{:04X}", address.unwrap().port()));
        super::eventually("the peer has it", || {
            let table = fs::read_to_string("/proc/net/tcp").unwrap();
            let mut rows = table
                .lines()
                .map(|row| row.split_whitespace().collect::<Vec<_>>());
            let row = rows.find(|row| row[1].ends_with(&ports[0]) && row[2].ends_with(&ports[1]));
            // Octets that are not acknowledged, and octets that are not read.
            row.unwrap()[4].starts_with("00000000:")
        });
    }

    /// Ends the connection with a reset instead of an orderly end.
    pub fn reset(self) {
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&self.socket, sockopt::Linger, &linger).unwrap();
    }

    /// Says nothing until the peer goes away, or the server is dropped.
    pub fn hang(&mut self) {
        let pause = Some(Duration::from_millis(50));
        self.socket.set_read_timeout(pause).unwrap();
        while !self.stopping() {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Sends one byte at a time, one each `pace`, until the peer goes away.
    pub fn dribble(&mut self, bytes: impl Iterator<Item = u8>, pace: Duration) {
        for byte in bytes {
            if self.stopping() || self.stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(pace);
        }
    }

    /// Sends `chunk` again and again until the peer goes away.
    pub fn flood(&mut self, chunk: &[u8]) {
        while !self.stopping() && self.stream.write_all(chunk).is_ok() {}
    }

    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// A whole answer with a length.
pub fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/manifest;charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A server; dropped, it is gone.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves connections one after the other.
    pub fn start(serve: impl FnMut(Connection) + Send + 'static) -> Server {
        Server::with(TcpListener::bind("127.0.0.1:0").unwrap(), None, serve)
    }

    /// The same on a socket that was bound before, by [`reserved`].
    pub fn start_on(
        listener: TcpListener,
        serve: impl FnMut(Connection) + Send + 'static,
    ) -> Server {
        Server::with(listener, None, serve)
    }

    /// The same with TLS.
    pub fn start_tls(
        identity: &Identity,
        serve: impl FnMut(Connection) + Send + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Server::with(listener, Some(identity.server_config()), serve)
    }

    fn with(
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        mut serve: impl FnMut(Connection) + Send + 'static,
    ) -> Server {
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = (stop.clone(), seen.clone(), connections.clone());
        let thread = thread::spawn(move || {
            let (stop, seen, connections) = shared;
            for socket in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let socket = socket.unwrap();
                socket.set_nodelay(true).unwrap();
                let stream: Box<dyn Stream> = match &tls {
                    None => Box::new(socket.try_clone().unwrap()),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(config.clone()).unwrap();
                        let copy = socket.try_clone().unwrap();
                        Box::new(rustls::StreamOwned::new(session, copy))
                    }
                };
                serve(Connection {
                    stream,
                    socket,
                    stop: stop.clone(),
                    seen: seen.clone(),
                    number: connections.fetch_add(1, Ordering::SeqCst),
                });
            }
        });
        Server {
            address,
            scheme,
            stop,
            seen,
            connections,
            thread: Some(thread),
        }
    }

    /// Answers every request with the same.
    pub fn answering(status: &'static str, body: impl Into<String>) -> Server {
        let body = body.into();
        Server::start(move |mut connection| {
            if connection.request().is_ok() {
                connection.answer(status, &body);
            }
        })
    }

    pub fn url(&self, rest: &str) -> String {
        format!("{}://{}{rest}", self.scheme, self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept; whether it succeeds does not matter.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(
                outcome.is_ok() || thread::panicking(),
                "the HTTP server panicked"
            );
        }
    }
}

/// A port on which nobody listens.
pub fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A certificate with its key, in PEM files.
#[derive(Debug)]
pub struct Identity {
    pub certificate: PathBuf,
    key: PathBuf,
}

/// A port of ours on which connections are refused until it is listened on.
pub fn reserved() -> (OwnedFd, u16) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let address: SockaddrIn = getsockname(fd.as_raw_fd()).unwrap();
    (fd, address.port())
}

/// Listens on a reserved port.
pub fn listen_on(fd: OwnedFd) -> TcpListener {
    listen(&fd, Backlog::new(16).unwrap()).unwrap();
    TcpListener::from(fd)
}

/// Runs openssl in `dir`.
pub fn openssl(dir: &Path, arguments: &str) {
    let run = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
        .expect("openssl is needed");
    assert!(
        run.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

impl Identity {
    /// A certificate authority, as the manual tells to make one.
    pub fn authority(dir: &Path, name: &str) -> Identity {
        openssl(
            dir,
            &format!(
                "req -x509 {NEW_KEY} -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt"
            ),
        );
        Identity::named(dir, name)
    }

    /// A certificate signed by `self`; `extensions` is the text of an openssl
    /// extension file, or none for X.509 version 1.
    pub fn sign(&self, dir: &Path, name: &str, extensions: Option<&str>) -> Identity {
        openssl(
            dir,
            &format!("req {NEW_KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr"),
        );
        // OpenSSL 3.5 makes version 3 unless it is told otherwise.
        let help = Command::new("openssl").args(["req", "-help"]).output();
        let help = String::from_utf8_lossy(&help.unwrap().stderr).into_owned();
        let (make, more) = match extensions {
            None if help.contains("-x509v1") => {
                // The usual configuration has extensions, which version 1 has not.
                fs::write(
                    dir.join("plain.cnf"),
                    "[req]\ndistinguished_name = dn\n[dn]\n",
                )
                .unwrap();
                ("req -x509v1 -config plain.cnf", "")
            }
            None => ("x509 -req -CAcreateserial", ""),
            Some(text) => {
                fs::write(dir.join("ext"), text).unwrap();
                ("x509 -req -CAcreateserial", " -extfile ext")
            }
        };
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let signer = format!("-CA {certificate} -CAkey {key}");
        openssl(
            dir,
            &format!("{make} -in {name}.csr {signer} -days 2 -out {name}.crt{more}"),
        );
        Identity::named(dir, name)
    }

    fn named(dir: &Path, name: &str) -> Identity {
        Identity {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        }
    }

    fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let certificate = CertificateDer::from_pem_file(&self.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let key = any_supported_type(&key).unwrap();
        // The short way, with_single_cert(), refuses the certificates that a
        // client should refuse.
        let certified = CertifiedKey::new(vec![certificate], key);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        Arc::new(config)
    }
}
