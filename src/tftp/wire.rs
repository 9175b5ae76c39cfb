//! The way of packets to their peers: a socket that sends blocks in batches, and in
//! tests a record.
//!
//! No send fails: a datagram that the kernel has no room for counts as lost on the
//! network, and is retransmitted.

use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;

use nix::errno::Errno;

use super::packet::{self, HEADER};
use super::source::Blocks;
use crate::sys::udp::{self, BATCH, Route, Socket};

/// The sender of the packets of a server.
pub trait Wire {
    /// Sends one packet that is not DATA.
    fn packet(&mut self, route: &Route, octets: &[u8]);

    /// Sends blocks from number `first` on. `segmented` says whether the route takes
    /// batches that the kernel cuts, and is cleared if it does not.
    fn blocks(&mut self, route: &Route, first: u64, blocks: &Blocks<'_>, segmented: &mut bool);
}

/// The most that one send takes: what fits into an IPv4 datagram of UDP, whether
/// it is one or to be cut by the kernel.
const SEND_MOST: usize = 65507;

impl Wire for Socket {
    fn packet(&mut self, route: &Route, octets: &[u8]) {
        let _ = udp::send(self.as_fd(), route, &[IoSlice::new(octets)], None);
    }

    // UDP_SEGMENT works unless the device lacks checksums or a block needs fragments.
    fn blocks(&mut self, route: &Route, first: u64, blocks: &Blocks<'_>, segmented: &mut bool) {
        if blocks.count == 1 {
            let header = packet::data_header(first);
            let parts = [IoSlice::new(&header), IoSlice::new(blocks.payload)];
            let _ = udp::send(self.as_fd(), route, &parts, None);
            return;
        }
        let mut headers = [[0; HEADER]; BATCH];
        let blksize = blocks.blksize;
        let mut number = first;
        let mut left = blocks.count;
        let mut rest = blocks.payload;
        while left > 0 {
            let fitting = (SEND_MOST / (blksize + HEADER)).max(1);
            let several = *segmented && fitting > 1 && left > 1;
            let most = if several { fitting.min(BATCH) } else { BATCH };
            let batch = usize::try_from(left).unwrap_or(BATCH).min(most);
            let (now, later) = rest.split_at(rest.len().min(batch * blksize));

            let mut chunks = now.chunks(blksize);
            let mut numbers = number..;
            let mut pairs = [[IoSlice::new(&[]); 2]; BATCH];
            for (header, pair) in headers.iter_mut().zip(&mut pairs).take(batch) {
                *header = packet::data_header(numbers.next().unwrap_or(0));
                *pair = [
                    IoSlice::new(header),
                    IoSlice::new(chunks.next().unwrap_or_default()),
                ];
            }
            let pairs = &pairs[..batch];
            if batch == 1 {
                let _ = udp::send(self.as_fd(), route, &pairs[0], None);
            } else if several {
                let segment = u16::try_from(blksize + HEADER).unwrap_or(u16::MAX);
                if let Err(error) =
                    udp::send(self.as_fd(), route, pairs.as_flattened(), Some(segment))
                    && cannot_segment(&error)
                {
                    *segmented = false;
                    continue;
                }
            } else {
                send_all(self, route, pairs);
            }
            number += batch as u64;
            left -= batch as u64;
            rest = later;
        }
    }
}

fn send_all(socket: &Socket, route: &Route, mut pairs: &[[IoSlice<'_>; 2]]) {
    while !pairs.is_empty() {
        // A datagram that cannot be sent is skipped, so that this ends.
        let sent = udp::send_batch(socket.as_fd(), route, pairs)
            .unwrap_or(0)
            .max(1);
        pairs = &pairs[sent.min(pairs.len())..];
    }
}

fn cannot_segment(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT)
    )
}
