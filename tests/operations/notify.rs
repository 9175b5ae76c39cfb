//! systemd, played by a socket: what it is told, and how often.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::super::support::{Process, isolated};
use super::{Host, signal};

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn new(host: &Host) -> Manager {
        let socket = UnixDatagram::bind(host.path("notify")).unwrap();
        Manager(socket)
    }

    /// The next message within `patience`.
    fn next(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 1024];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Waits for a message that begins so.
    fn expect(&self, beginning: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            if let Some(message) = self.next(Duration::from_millis(100)) {
                if message.starts_with(beginning) {
                    return message;
                }
                heard.push(message);
            }
        }
        panic!("no {beginning} but {heard:?}");
    }
}

#[test]
fn systemd_hears_of_readiness_status_and_stopping() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let manager = Manager::new(&host);
        let child = host
            .agent(&["--systemd-daemon", &host.spool()])
            .env("NOTIFY_SOCKET", host.path("notify"))
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Process(child);
        manager.expect("READY=1");
        assert_eq!(manager.expect("STATUS=idle"), "STATUS=idle: no task");
        let quiet = manager.next(Duration::from_millis(500));
        assert_eq!(quiet, None, "nobody asked for a watchdog");
        signal(&child.0, Signal::SIGTERM);
        manager.expect("STOPPING=1");
        assert!(child.0.wait().unwrap().success());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut said).unwrap();
        for line in ["<6>info: bbot agent ", "<6>info: idle: no task\n"] {
            assert!(said.contains(line), "{said}");
        }
        assert!(said.lines().all(|line| line.starts_with('<')), "{said}");
    });
}

#[test]
fn the_watchdog_is_fed_while_idle_and_starves_with_the_agent() {
    const WATCHDOG: Duration = Duration::from_millis(600);
    isolated(|| {
        let Some(host) = Host::new() else { return };
        let manager = Manager::new(&host);
        let child = host
            .agent(&[&host.spool()])
            .env("NOTIFY_SOCKET", host.path("notify"))
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .spawn()
            .unwrap();
        let mut child = Process(child);
        manager.expect("STATUS=idle");
        for _ in 0..5 {
            let message = manager.next(WATCHDOG);
            assert_eq!(message.as_deref(), Some("WATCHDOG=1"));
        }
        signal(&child.0, Signal::SIGSTOP);
        while manager.next(WATCHDOG).is_some() {}
        assert_eq!(manager.next(WATCHDOG), None, "a stopped agent feeds nobody");
        signal(&child.0, Signal::SIGCONT);
        manager.expect("WATCHDOG=1");
        signal(&child.0, Signal::SIGTERM);
        assert!(child.0.wait().unwrap().success());
    });
}
