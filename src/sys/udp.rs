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
use nix::sys::socket::sockopt::{
    Ipv4PacketInfo, RcvBuf, RcvBufForce, ReceiveTimeout, SndBuf, SndBufForce,
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, getsockopt, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// Room for one datagram of any length.
pub const SLOT: usize = 65536;

/// Most datagrams in one [`send_batch`].
pub const BATCH: usize = 64;

/// linux/udp.h.
const UDP_SEGMENT: libc::c_int = 103;

/// `struct user_msghdr`.
#[repr(C)]
pub(super) struct Message {
    pub(super) name: *mut libc::sockaddr_in,
    pub(super) name_length: u32,
    pub(super) parts: *mut libc::iovec,
    pub(super) part_count: usize,
    pub(super) control: *mut Control,
    pub(super) control_length: usize,
    pub(super) flags: u32,
}

const _: () = assert!(size_of::<Message>() == 56);

/// `struct mmsghdr`.
#[repr(C)]
pub(super) struct Numbered {
    pub(super) message: Message,
    pub(super) length: u32,
}

const _: () = assert!(size_of::<Numbered>() == 64);

/// Room for the control messages of one datagram, aligned as `struct cmsghdr`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; 64]);

/// Octets of `struct cmsghdr`: a `size_t` and two `int`.
pub(super) const CONTROL_HEADER: usize = 16;

/// Octets of a `struct sockaddr_in`.
pub(super) const NAME_LENGTH: u32 = 16;
const _: () = assert!(size_of::<libc::sockaddr_in>() == NAME_LENGTH as usize);

/// Octets of an `int`.
const INT_LENGTH: u32 = 4;
const _: () = assert!(size_of::<libc::c_int>() == INT_LENGTH as usize);

/// How long a receive that waits does so, in milliseconds; the kernel rounds it up
/// to its next tick.
const MOMENT: i64 = 2;

/// A bound IPv4 socket, close-on-exec. Sending never waits, receiving only if it
/// is told to, and then for a moment (2 to 10 ms).
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Binds a new socket to `address`; port 0 takes any free one. If the address
    /// is 0.0.0.0, datagrams tell where they were sent to.
    pub fn bind(address: SocketAddrV4) -> io::Result<Socket> {
        let fd = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        if address.ip().is_unspecified() {
            setsockopt(&fd, Ipv4PacketInfo, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrIn::from(address))?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(MOMENT))?;
        let _ = allow_fragments(fd.as_fd());
        Ok(Socket(fd))
    }

    /// The address that the socket is bound to.
    pub fn local_address(&self) -> io::Result<SocketAddrV4> {
        let address: SockaddrIn = getsockname(self.0.as_raw_fd())?;
        Ok(address.into())
    }

    /// Asks for buffers of so many octets, beyond the system's limits if we may
    /// (`CAP_NET_ADMIN`). Returns what the receive buffer has come to.
    pub fn set_buffers(&self, receive: usize, send: usize) -> io::Result<usize> {
        // The kernel doubles what it is told and reports the double, of which
        // about a half is meant for its own bookkeeping.
        if setsockopt(&self.0, RcvBufForce, &receive).is_err() {
            let _ = setsockopt(&self.0, RcvBuf, &receive);
        }
        if setsockopt(&self.0, SndBufForce, &send).is_err() {
            let _ = setsockopt(&self.0, SndBuf, &send);
        }
        Ok(getsockopt(&self.0, RcvBuf)?)
    }
}

/// Has datagrams leave without the "don't fragment" bit. By default the kernel
/// sets it to learn the path's MTU; where the reports of routers are filtered, or
/// are no news to a boot ROM, a block that is too large for the path would be lost
/// every time. Best effort: most paths take what the first device takes.
fn allow_fragments(socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = libc::IP_PMTUDISC_DONT;
    // SAFETY: `value` lives beyond the call, which reads as many octets of it as
    // the length states, and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            INT_LENGTH,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
    socket: BorrowedFd<'_>,
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
            socket.as_raw_fd(),
            &raw const message,
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends datagrams of two parts each, up to [`BATCH`] of them, by one system
/// call. Returns how many were sent; those behind a failing one are not.
pub fn send_batch(
    socket: BorrowedFd<'_>,
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
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_may_be_fragmented_on_their_way() {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let socket = Socket::bind(address).unwrap();
        let (mut value, mut length): (libc::c_int, _) = (-1, INT_LENGTH);
        // SAFETY: both live beyond the call, which writes no more than `length`.
        let result = unsafe {
            libc::getsockopt(
                socket.0.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        assert_eq!((result, value), (0, libc::IP_PMTUDISC_DONT));
    }
}
