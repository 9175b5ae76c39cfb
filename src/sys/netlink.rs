//! netlink(7): messages made of attributes, sent to the kernel and answered.
//!
//! Three things are asked for this way, because the alternatives are worse:
//! port isolation (else `/sys`, which may show another namespace), rules of
//! `nf_tables` (else a program, whose rules outlive us) and, where it is that
//! program nevertheless, connection tracking (else another program).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

/// The kernel answers while sendto(2) is still under way; this is for one that
/// does not answer at all, which would be a bug, here or there.
const ANSWER: TimeVal = TimeVal::new(5, 0);

/// More than any one answer of the kernel (`NLMSG_GOODSIZE` is at most 8 KiB;
/// dumps use up to 32 KiB).
const BUFFER: usize = 64 * 1024;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`: answer even if all is well.
pub const ACK: u16 = 0x04;
/// `NLM_F_DUMP`: answer with everything there is.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`: change it if it exists.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail if it exists.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`: make it if it does not exist.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: put it last.
pub const APPEND: u16 = 0x800;

/// Bit of an attribute's type that says that it contains attributes.
const NESTED: u16 = 0x8000;

/// Messages under construction, one after the other in one buffer.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the message under construction begins.
    start: usize,
    /// The sequence numbers of all messages. No two messages of the process
    /// have the same, so that a late answer is never taken for another's.
    sequences: Vec<u32>,
    /// The messages that will be answered: by an acknowledgement, or by a dump.
    pending: Vec<u32>,
}

impl Batch {
    /// No messages yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Begins a message of type `kind` with the family's own fixed `header`.
    pub fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let sequence = NEXT.fetch_add(1, Ordering::Relaxed);
        self.start = self.bytes.len();
        self.sequences.push(sequence);
        if flags & ACK != 0 || flags & DUMP == DUMP {
            self.pending.push(sequence);
        }
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        self.fix_length();
    }

    /// Adds an attribute to the message.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    /// Adds a text attribute, NUL-terminated.
    pub fn put_text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value);
    }

    /// Adds a number in network byte order, as netfilter wants its numbers.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Adds an attribute that contains those that `inside` adds.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Batch)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        inside(self);
        self.close(start);
    }

    /// Sets the length of the attribute that begins at `start`, pads it to four
    /// bytes, and takes it into the message's length.
    fn close(&mut self, start: usize) {
        // What we send is a few hundred bytes by construction.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.fix_length();
    }

    fn fix_length(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.start).unwrap_or(u32::MAX);
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// An answer of the kernel: type and what follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetlinkMessage<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_seq`: which message it answers.
    pub sequence: u32,
    /// The bytes behind the header.
    pub payload: &'a [u8],
}

/// The messages in `bytes`; ends at the first that is cut short.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkMessage<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = NetlinkMessage {
            kind: u16_at(bytes, 4)?,
            sequence: u32_at(bytes, 8)?,
            payload: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, by type, without the nesting bit; ends at the
/// first that is cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff; // less NESTED and byte order
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the attribute of type `kind` in `bytes`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A netlink socket. What the kernel ties to it goes when it is closed.
#[derive(Debug)]
pub struct NetlinkSocket(OwnedFd);

impl NetlinkSocket {
    /// Connects to the routing subsystem (rtnetlink(7)).
    ///
    /// # Errors
    ///
    /// Those of socket(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn route() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open(SockProtocol::NetlinkRoute)
    }

    /// Connects to netfilter.
    ///
    /// # Errors
    ///
    /// Those of socket(2); `EPROTONOSUPPORT`: the kernel has no netfilter.
    pub fn netfilter() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<NetlinkSocket> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, ReceiveTimeout, &ANSWER)?;
        Ok(NetlinkSocket(fd))
    }

    /// Sends the messages and waits for the acknowledgements that they ask for.
    pub fn request(&self, batch: &Batch) -> io::Result<()> {
        self.exchange(batch, |_| {})
    }

    /// The same, handing each answer that is not an acknowledgement to `each`.
    pub fn exchange(
        &self,
        batch: &Batch,
        mut each: impl FnMut(NetlinkMessage<'_>),
    ) -> io::Result<()> {
        sendto(
            self.0.as_raw_fd(),
            &batch.bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut pending = batch.pending.clone();
        let mut buffer = vec![0; BUFFER];
        while !pending.is_empty() {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT.into()),
                Err(errno) => return Err(errno.into()),
            };
            let ours = |message: &NetlinkMessage<'_>| batch.sequences.contains(&message.sequence);
            for message in messages(&buffer[..length]).filter(ours) {
                match i32::from(message.kind) {
                    // An error stands for the whole batch: netfilter's batches
                    // are transactions, and elsewhere a socket is not used again.
                    libc::NLMSG_ERROR => match u32_at(message.payload, 0) {
                        Some(0) => pending.retain(|sequence| *sequence != message.sequence),
                        Some(errno) => {
                            return Err(io::Error::from_raw_os_error(
                                errno.cast_signed().wrapping_neg(),
                            ));
                        }
                        None => return Err(Errno::EBADMSG.into()),
                    },
                    libc::NLMSG_DONE => {
                        pending.retain(|sequence| *sequence != message.sequence);
                    }
                    _ => each(message),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_ones_counted() {
        let mut batch = Batch::new();
        batch.begin(7, ACK, &[1, 2, 3, 4]);
        batch.put_text(1, "ab");
        batch.nest(2, |inside| inside.put(3, &[9]));
        let message = messages(&batch.bytes).next().unwrap();
        assert_eq!((message.kind, message.sequence), (7, batch.pending[0]));
        assert_eq!(message.payload[..4], [1, 2, 3, 4]);
        let found: Vec<_> = attributes(&message.payload[4..]).collect();
        assert_eq!(found[0], (1, &b"ab\0"[..]));
        assert_eq!(attribute(found[1].1, 3), Some(&[9][..]));
        assert_eq!(batch.bytes.len() % 4, 0);
    }

    #[test]
    fn messages_that_are_cut_short_end_the_list() {
        let mut batch = Batch::new();
        batch.begin(7, 0, &[]);
        batch.begin(8, 0, &[0; 8]);
        let whole = batch.bytes;
        for length in 0..whole.len() {
            let found = messages(&whole[..length]).count();
            assert_eq!(found, usize::from(length >= HEADER), "{length}");
        }
        // A length of zero must not make us go in circles.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }

    #[test]
    fn an_error_of_the_kernel_comes_back_as_errno() {
        let socket = NetlinkSocket::route().unwrap();
        let mut batch = Batch::new();
        // RTM_GETLINK for an interface number that cannot be.
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        batch.begin(18, ACK, &header);
        let error = socket.request(&batch).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
