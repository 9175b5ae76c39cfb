//! Receiving UDP datagrams in batches, with where they were sent to.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

use super::udp::{CONTROL_HEADER, Control, Message, NAME_LENGTH, Numbered, SLOT};

/// A datagram in an [`Inbox`].
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The sender.
    pub peer: SocketAddrV4,
    /// Where it was sent to, if the socket listens on all addresses.
    pub to: Option<Ipv4Addr>,
    /// It was sent to a broadcast or multicast address (known under the same
    /// condition).
    pub broadcast: bool,
    /// Its octets.
    pub octets: &'a [u8],
}

/// Room for a batch of datagrams. Pages that no datagram has reached are not
/// backed by memory.
pub struct Inbox {
    octets: Vec<u8>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
    parts: Vec<libc::iovec>,
    messages: Vec<Numbered>,
    filled: usize,
    /// Whether control messages are expected.
    controlled: bool,
}

// SAFETY: the pointers lead to vectors of the same Inbox, which move with it and
// which nobody else knows.
unsafe impl Send for Inbox {}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("slots", &self.messages.len())
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl Inbox {
    /// Room for `slots` datagrams of any length, at least one. Unless `controlled`,
    /// control messages are not asked for.
    pub fn new(slots: usize, controlled: bool) -> Inbox {
        let slots = slots.max(1);
        let blank = libc::sockaddr_in {
            sin_family: 0,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: 0 },
            sin_zero: [0; 8],
        };
        let mut inbox = Inbox {
            octets: vec![0; slots * SLOT],
            names: vec![blank; slots],
            controls: vec![Control([0; 64]); slots],
            parts: Vec::with_capacity(slots),
            messages: Vec::with_capacity(slots),
            filled: 0,
            controlled,
        };
        // The vectors are never resized from here on, so that what the pointers
        // lead to stays where it is; moving the Inbox does not move it.
        for slot in inbox.octets.chunks_exact_mut(SLOT) {
            inbox.parts.push(libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: SLOT,
            });
        }
        for ((name, control), part) in inbox
            .names
            .iter_mut()
            .zip(&mut inbox.controls)
            .zip(&mut inbox.parts)
        {
            inbox.messages.push(Numbered {
                message: Message {
                    name,
                    name_length: 0,
                    parts: part,
                    part_count: 1,
                    control,
                    control_length: 0,
                    flags: 0,
                },
                length: 0,
            });
        }
        inbox
    }

    /// Takes up to `most` datagrams that have already come in; with `wait`, waits
    /// for the first one as long as the socket says ([`super::udp::Socket`]).
    /// They replace the former ones. Returns how many there are.
    ///
    /// # Errors
    ///
    /// Those of recvmmsg(2); `EAGAIN` (`WouldBlock`) if there is none.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        most: usize,
        wait: bool,
    ) -> io::Result<usize> {
        self.filled = 0;
        let most = most.min(self.messages.len());
        if most == 1 && !self.controlled {
            return self.receive_one(socket, wait);
        }
        for numbered in &mut self.messages[..most] {
            numbered.message.name_length = NAME_LENGTH;
            numbered.message.control_length = size_of::<Control>();
            numbered.message.flags = 0;
        }
        let flags = if wait {
            libc::MSG_WAITFORONE
        } else {
            libc::MSG_DONTWAIT
        };
        // SAFETY: the first `most` messages point to live memory of this Inbox of
        // the lengths that they state, and nothing else has a reference to it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                most,
                flags,
                std::ptr::null_mut::<libc::timespec>(),
            )
        };
        match usize::try_from(result) {
            Ok(count) => {
                self.filled = count.min(most);
                Ok(self.filled)
            }
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// The same for one datagram without control messages, by the lighter call:
    /// the path of every lock-step transfer.
    fn receive_one(&mut self, socket: BorrowedFd<'_>, wait: bool) -> io::Result<usize> {
        let mut name_length = NAME_LENGTH;
        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
        // SAFETY: the first slot and the first name are live memory of the lengths
        // that are passed, and nothing else has a reference to them.
        let result = unsafe {
            libc::recvfrom(
                socket.as_raw_fd(),
                self.octets.as_mut_ptr().cast(),
                SLOT,
                flags,
                self.names.as_mut_ptr().cast(),
                &raw mut name_length,
            )
        };
        let length = u32::try_from(result).map_err(|_| io::Error::last_os_error())?;
        self.messages[0].length = length;
        self.messages[0].message.control_length = 0;
        self.filled = 1;
        Ok(1)
    }

    /// The datagram in slot `index`, if the last [`Inbox::receive`] filled it.
    pub fn get(&self, index: usize) -> Option<Datagram<'_>> {
        if index >= self.filled {
            return None;
        }
        let numbered = &self.messages[index];
        let name = &self.names[index];
        let length = usize::try_from(numbered.length).ok()?.min(SLOT);
        let start = index * SLOT;
        let mut datagram = Datagram {
            peer: SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                u16::from_be(name.sin_port),
            ),
            to: None,
            broadcast: false,
            octets: &self.octets[start..start + length],
        };
        let control = &self.controls[index].0;
        let used = numbered.message.control_length.min(control.len());
        datagram.read_control(&control[..used]);
        Some(datagram)
    }
}

impl Datagram<'_> {
    /// Reads control messages: `size_t` length with header, `int` level, `int`
    /// type, content, padding to 8 octets (cmsg(3)).
    fn read_control(&mut self, mut control: &[u8]) {
        while let Some((header, _)) = control.split_first_chunk::<CONTROL_HEADER>() {
            let [l0, l1, l2, l3, l4, l5, l6, l7, level @ .., t0, t1, t2, t3] = *header;
            let length = u64::from_ne_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
            let Ok(length) = usize::try_from(length) else {
                return;
            };
            let Some(content) = control.get(CONTROL_HEADER..length) else {
                return;
            };
            let kind = (
                i32::from_ne_bytes(level),
                i32::from_ne_bytes([t0, t1, t2, t3]),
            );
            // struct in_pktinfo: int index, local address, header's address.
            if let (
                (libc::IPPROTO_IP, libc::IP_PKTINFO),
                [_, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3, ..],
            ) = (kind, content)
            {
                let local = Ipv4Addr::new(*s0, *s1, *s2, *s3);
                let header = Ipv4Addr::new(*d0, *d1, *d2, *d3);
                self.to = Some(local);
                self.broadcast = local != header;
            }
            control = control
                .get(length.next_multiple_of(8)..)
                .unwrap_or_default();
        }
    }
}
