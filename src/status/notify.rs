//! systemd's notification socket (sd_notify(3)), a datagram per message.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The socket of systemd, and the interval of its watchdog.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    address: SocketAddr,
    /// `WATCHDOG_USEC`, when it is meant for this process.
    pub(super) watchdog: Option<Duration>,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; `None` if
    /// there is no such manager.
    pub fn from_env(env: &dyn Fn(&str) -> Option<OsString>) -> io::Result<Option<Notify>> {
        let Some(name) = env("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(&name)?,
            _ => {
                let text = "neither an absolute path nor an abstract name";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not block the agent.
        socket.set_nonblocking(true)?;
        let number = |name: &str| {
            env(name)
                .as_deref()
                .and_then(OsStr::to_str)
                .and_then(|text| text.parse::<u64>().ok())
        };
        let for_us = env("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(std::process::id().into());
        let watchdog = number("WATCHDOG_USEC")
            .filter(|usec| for_us && *usec > 0)
            .map(Duration::from_micros);
        Ok(Some(Notify {
            socket,
            address,
            watchdog,
        }))
    }

    /// Sends one message, `NAME=value` lines. One that cannot be sent is lost:
    /// the next one says as much.
    pub(super) fn send(&self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            crate::trace!(4, "notify", "unable to notify the service manager: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Board, Phase, StatusSettings};
    use super::*;

    fn environment(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        |name: &str| {
            pairs
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| OsString::from(value))
        }
    }

    #[test]
    fn abstract_sockets_are_reached() {
        let name = format!("bbot-agent-notify-{}", std::process::id());
        let listener =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let env = |wanted: &str| (wanted == "NOTIFY_SOCKET").then(|| format!("@{name}").into());
        let notify = Notify::from_env(&env).unwrap().unwrap();
        notify.send("READY=1");
        let mut buffer = [0; 64];
        let length = listener.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
    }

    #[test]
    fn the_manager_is_asked_for_time_while_a_guest_ends() {
        let name = format!("bbot-agent-extend-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let env = |wanted: &str| (wanted == "NOTIFY_SOCKET").then(|| format!("@{name}").into());
        let now = super::super::Moment {
            instant: std::time::Instant::now(),
            monotonic: Duration::ZERO,
            wall: Duration::ZERO,
        };
        let mut board = Board::new(now);
        let config = StatusSettings {
            notify: Notify::from_env(&env).unwrap(),
            ..StatusSettings::default()
        };
        board.configure(config, now);
        let heard = || {
            let mut buffer = [0; 64];
            let messages = std::iter::from_fn(|| {
                let length = listener.recv(&mut buffer).ok()?;
                Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
            });
            messages.collect::<Vec<_>>()
        };
        heard();
        board.stopping();
        assert_eq!(heard(), ["STOPPING=1"]);
        board.enter(Phase::Building, "", None, now);
        heard();
        board.stopping();
        assert_eq!(heard(), ["STOPPING=1", "EXTEND_TIMEOUT_USEC=60000000"]);
    }

    #[test]
    fn a_watchdog_for_another_process_is_not_ours() {
        let env = environment(&[
            ("NOTIFY_SOCKET", "/run/x"),
            ("WATCHDOG_USEC", "1000000"),
            ("WATCHDOG_PID", "1"),
        ]);
        assert_eq!(Notify::from_env(&env).unwrap().unwrap().watchdog, None);
        let env = environment(&[("NOTIFY_SOCKET", "/run/x"), ("WATCHDOG_USEC", "1000000")]);
        assert_eq!(
            Notify::from_env(&env).unwrap().unwrap().watchdog,
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn without_a_socket_nobody_is_notified() {
        assert!(Notify::from_env(&environment(&[])).unwrap().is_none());
        assert!(Notify::from_env(&environment(&[("NOTIFY_SOCKET", "x")])).is_err());
    }
}
