//! The journal's own protocol (systemd.io, "Native Journal Protocol"): a datagram for
//! each record, with fields that journalctl(1) selects by.

use std::os::unix::net::UnixDatagram;

/// The socket of the journal.
const SOCKET: &str = "/run/systemd/journal/socket";

/// A connection to the journal.
#[derive(Debug)]
pub(super) struct SystemJournal(UnixDatagram);

impl SystemJournal {
    /// Connects to the journal; `None` if there is none.
    pub(super) fn connect() -> Option<SystemJournal> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(SystemJournal(socket))
    }

    /// Sends a record. Returns whether the journal has it: it is not waited for.
    pub(super) fn send(&self, priority: u8, message: &str, fields: &[(&str, String)]) -> bool {
        self.0.send(&datagram(priority, message, fields)).is_ok()
    }
}

fn datagram(priority: u8, message: &str, fields: &[(&str, String)]) -> Vec<u8> {
    let mut text = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=bbot-agent\n").into_bytes();
    let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in fields.chain([("MESSAGE", message)]) {
        // With its length, a value may contain newlines.
        text.extend_from_slice(name.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(&(value.len() as u64).to_le_bytes());
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_lines() {
        let fields = [("BBOT_SESSION", "a/1".to_owned())];
        assert_eq!(
            datagram(3, "error: x\ninfo: y", &fields),
            b"PRIORITY=3\nSYSLOG_IDENTIFIER=bbot-agent\n\
              BBOT_SESSION\n\x03\0\0\0\0\0\0\0a/1\n\
              MESSAGE\n\x10\0\0\0\0\0\0\0error: x\ninfo: y\n"
        );
    }
}
