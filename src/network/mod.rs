//! The path from the guest to the agent: tap, bridge, and the redirect of TFTP requests.
//!
//! ```text
//!  guest ── virtio ── QEMU ── tap (the agent's, by descriptor) ── bridge (the operator's)
//!                              │                              │ address, DHCP
//!                              └─ 196.254.111.222:69 ────────► the server's socket
//! ```
//!
//! Several agents, each with its own tap and server, share a bridge. So the
//! redirect is matched by tap ([`Redirect`]), and what comes from another tap,
//! or from anywhere else, never reaches the server. Taps are isolated ports:
//! guests do not reach each other.
//!
//! The module needs no program, and the kernel removes everything it makes with the
//! agent's descriptors, also after `kill -9`.

mod bridge;
mod claim;
mod mac;
mod nft;
mod redirect;
mod tap;

use std::net::Ipv4Addr;

pub use bridge::{Bridge, Network};
pub use claim::NetworkClaim;
pub use mac::Mac;
pub use nft::Netfilter;
pub use redirect::{Peers, Redirect, Strategy, Target};
pub use tap::{Tap, tap_name};

/// Where guests believe the TFTP server to be: bbot's fixed address...
pub const SERVER: Ipv4Addr = Ipv4Addr::new(196, 254, 111, 222);
/// ...and the TFTP port (RFC 1350).
pub const PORT: u16 = 69;
