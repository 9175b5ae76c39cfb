//! UDP sockets: destination address, segmentation offload, batches.
//!
//! System calls by number rather than through libc: musl's sendmmsg(3) is a loop
//! of sendmsg(2), and its wrappers copy control messages, for POSIX has other
//! types in `struct msghdr` than the kernel. The structures here are the
//! kernel's (linux/socket.h, `struct user_msghdr` and `struct mmsghdr`).

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, RcvBuf, RcvBufForce, SndBuf, SndBufForce};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, getsockopt, setsockopt,
    socket,
};

/// Room for one datagram: UDP's largest payload, and a coalesced one (UDP_GRO).
pub const SLOT: usize = 65536;

/// Most datagrams in one [`send_batch`].
pub const BATCH: usize = 64;

/// linux/udp.h.
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// `struct user_msghdr`.
#[repr(C)]
struct Message {
    name: *mut libc::sockaddr_in,
    name_length: u32,
    parts: *mut libc::iovec,
    part_count: usize,
    control: *mut Control,
    control_length: usize,
    flags: u32,
}

const _: () = assert!(size_of::<Message>() == 56);

/// `struct mmsghdr`.
#[repr(C)]
struct Numbered {
    message: Message,
    length: u32,
}

const _: () = assert!(size_of::<Numbered>() == 64);

/// Room for the control messages of one datagram, aligned as `struct cmsghdr`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Octets of `struct cmsghdr`: a `size_t` and two `int`.
const CONTROL_HEADER: usize = 16;

/// A bound IPv4 socket, non-blocking and close-on-exec.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    coalesces: bool,
}

impl Socket {
    /// Binds a new socket to `address`; port 0 takes any free one. If the address
    /// is 0.0.0.0, datagrams tell where they were sent to.
    ///
    /// # Errors
    ///
    /// Those of socket(2) and bind(2).
    pub fn bind(address: SocketAddrV4) -> io::Result<Socket> {
        let fd = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        if address.ip().is_unspecified() {
            setsockopt(&fd, Ipv4PacketInfo, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrIn::from(address))?;
        // Linux 5.0; without it, datagrams come one by one.
        let coalesces = set_int(fd.as_fd(), libc::SOL_UDP, UDP_GRO, 1).is_ok();
        Ok(Socket { fd, coalesces })
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2), which a bound socket does not have.
    pub fn local_address(&self) -> io::Result<SocketAddrV4> {
        let address: SockaddrIn = getsockname(self.fd.as_raw_fd())?;
        Ok(address.into())
    }

    /// Asks for buffers of so many octets, beyond the system's limits if we may
    /// (`CAP_NET_ADMIN`). Returns what the receive buffer has come to.
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2), which a socket does not have. Less than what was
    /// asked for is no error.
    pub fn set_buffers(&self, receive: usize, send: usize) -> io::Result<usize> {
        // The kernel doubles what it is told and reports the double, of which
        // about a half is meant for its own bookkeeping.
        if setsockopt(&self.fd, RcvBufForce, &receive).is_err() {
            let _ = setsockopt(&self.fd, RcvBuf, &receive);
        }
        if setsockopt(&self.fd, SndBufForce, &send).is_err() {
            let _ = setsockopt(&self.fd, SndBuf, &send);
        }
        Ok(getsockopt(&self.fd, RcvBuf)?)
    }

    /// Whether datagrams of one sender may come coalesced.
    #[must_use]
    pub fn coalesces(&self) -> bool {
        self.coalesces
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_int(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` is a live int for the length of the call, and its size is
    // what is passed.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A datagram in an [`Inbox`].
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub peer: SocketAddrV4,
    /// Where it was sent to, if the socket listens on all addresses.
    pub to: Option<Ipv4Addr>,
    /// It was sent to a broadcast or multicast address (known under the same
    /// condition).
    pub broadcast: bool,
    /// Its octets; several datagrams in a row if it was coalesced.
    pub octets: &'a [u8],
    /// The length of each of the coalesced datagrams but the last.
    pub segment: Option<usize>,
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
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("slots", &self.messages.len())
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl Inbox {
    /// Room for `slots` datagrams of any length.
    #[must_use]
    pub fn new(slots: usize) -> Inbox {
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

    /// Takes up to `most` datagrams that have already come in, without waiting.
    /// They replace the former ones. Returns how many there are.
    ///
    /// # Errors
    ///
    /// Those of recvmmsg(2); `EAGAIN` (`WouldBlock`) if there is none.
    pub fn receive(&mut self, socket: &Socket, most: usize) -> io::Result<usize> {
        self.filled = 0;
        let most = most.min(self.messages.len());
        for numbered in &mut self.messages[..most] {
            numbered.message.name_length = NAME_LENGTH;
            numbered.message.control_length = size_of::<Control>();
            numbered.message.flags = 0;
        }
        // SAFETY: the first `most` messages point to live memory of this Inbox of
        // the lengths that they state, and nothing else has a reference to it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.fd.as_raw_fd(),
                self.messages.as_mut_ptr(),
                most,
                libc::MSG_DONTWAIT,
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

    /// The datagram in slot `index`, if the last [`Inbox::receive`] filled it.
    #[must_use]
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
            segment: None,
        };
        let control = &self.controls[index].0;
        let used = numbered.message.control_length.min(control.len());
        datagram.read_control(&control[..used]);
        Some(datagram)
    }
}

/// Octets of a `struct sockaddr_in`.
const NAME_LENGTH: u32 = 16;
const _: () = assert!(size_of::<libc::sockaddr_in>() == NAME_LENGTH as usize);

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
            match (kind, content) {
                // struct in_pktinfo: int index, local address, header's address.
                (
                    (libc::IPPROTO_IP, libc::IP_PKTINFO),
                    [_, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3, ..],
                ) => {
                    let local = Ipv4Addr::new(*s0, *s1, *s2, *s3);
                    let header = Ipv4Addr::new(*d0, *d1, *d2, *d3);
                    self.to = Some(local);
                    self.broadcast = local != header;
                }
                ((libc::SOL_UDP, UDP_GRO), [s0, s1, s2, s3, ..]) => {
                    self.segment = usize::try_from(i32::from_ne_bytes([*s0, *s1, *s2, *s3]))
                        .ok()
                        .filter(|&segment| segment > 0);
                }
                _ => {}
            }
            control = control
                .get(length.next_multiple_of(8)..)
                .unwrap_or_default();
        }
    }
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// To whom.
    pub peer: SocketAddrV4,
    /// From which of our addresses, if the system is not to choose.
    pub from: Option<Ipv4Addr>,
}

impl Route {
    fn name(&self) -> libc::sockaddr_in {
        libc::sockaddr_in {
            // AF_INET is 2, in a u16 as in everything else.
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(2),
            sin_port: self.peer.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(*self.peer.ip()).to_be(),
            },
            sin_zero: [0; 8],
        }
    }

    /// Writes the control messages and returns their length.
    fn control(&self, segment: Option<u16>, control: &mut Control) -> usize {
        let mut at = 0;
        let mut put = |level: i32, kind: i32, content: &[u8]| {
            let length = CONTROL_HEADER + content.len();
            let room = &mut control.0[at..];
            room[..8].copy_from_slice(&(length as u64).to_ne_bytes());
            room[8..12].copy_from_slice(&level.to_ne_bytes());
            room[12..16].copy_from_slice(&kind.to_ne_bytes());
            room[16..length].copy_from_slice(content);
            at += length.next_multiple_of(8);
        };
        if let Some(from) = self.from {
            let mut content = [0; 12];
            content[4..8].copy_from_slice(&from.octets());
            put(libc::IPPROTO_IP, libc::IP_PKTINFO, &content);
        }
        if let Some(segment) = segment {
            put(libc::SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
        }
        at
    }
}

/// Sends `parts`, in one go, as one datagram, or as datagrams of `segment` octets
/// each (the last one may be shorter), cut by the kernel or the device.
///
/// # Errors
///
/// Those of sendmsg(2). `EINVAL`, `EMSGSIZE`, `EIO` or `EOPNOTSUPP` of a send with
/// `segment` say that it does not work on this route.
pub fn send(
    socket: &Socket,
    route: &Route,
    parts: &[IoSlice<'_>],
    segment: Option<u16>,
) -> io::Result<()> {
    let mut name = route.name();
    let mut control = Control([0; 64]);
    let message = Message {
        name: &raw mut name,
        name_length: NAME_LENGTH,
        // IoSlice has the layout of struct iovec, and sendmsg(2) only reads.
        parts: parts.as_ptr().cast_mut().cast(),
        part_count: parts.len(),
        control_length: route.control(segment, &mut control),
        control: &raw mut control,
        flags: 0,
    };
    // SAFETY: `message` and all that it points to live beyond the call, with the
    // lengths that it states; the kernel reads and keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendmsg,
            socket.fd.as_raw_fd(),
            &raw const message,
            libc::MSG_NOSIGNAL,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends datagrams of two parts each, up to [`BATCH`] of them, by one system
/// call. Returns how many were sent; those behind a failing one are not.
///
/// # Errors
///
/// Those of sendmmsg(2) for the first datagram.
pub fn send_batch(
    socket: &Socket,
    route: &Route,
    datagrams: &[[IoSlice<'_>; 2]],
) -> io::Result<usize> {
    let mut name = route.name();
    let mut control = Control([0; 64]);
    let control_length = route.control(None, &mut control);
    let count = datagrams.len().min(BATCH);
    let mut messages: [Numbered; BATCH] = std::array::from_fn(|index| Numbered {
        message: Message {
            name: &raw mut name,
            name_length: NAME_LENGTH,
            // As in `send`.
            parts: datagrams.get(index).map_or(std::ptr::null_mut(), |parts| {
                parts.as_ptr().cast_mut().cast()
            }),
            part_count: 2,
            control: &raw mut control,
            control_length,
            flags: 0,
        },
        length: 0,
    });
    // SAFETY: the first `count` messages and all that they point to live beyond
    // the call, with the lengths that they state; the kernel writes nothing but
    // the lengths in `messages`, and keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendmmsg,
            socket.fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
