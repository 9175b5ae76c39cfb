//! The claim of a MAC address, so that no two guests on a bridge have the same one.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::Mac;
use crate::error::{Context as _, Result};

/// An address that no other agent of this network namespace may use.
///
/// It is the name of an abstract socket (unix(7)): names are unique in a network
/// namespace, as bridges are, and the kernel frees them with their owner.
#[derive(Debug)]
pub struct MacClaim {
    _socket: UnixDatagram,
}

impl MacClaim {
    /// Claims an address; `None` if it is claimed already.
    pub fn take(mac: Mac) -> Result<Option<MacClaim>> {
        let unable = || format!("unable to claim MAC address {mac}");
        let name = SocketAddr::from_abstract_name(format!("bbot-agent/mac/{mac}"));
        match UnixDatagram::bind_addr(&name.context(unable)?) {
            Ok(socket) => Ok(Some(MacClaim { _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error).context(unable),
        }
    }
}
