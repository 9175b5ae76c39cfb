//! Claims of what agents of one network may not use twice: MAC addresses of guests, and
//! ports of displays.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::Mac;
use crate::error::{Context as _, Result};

/// The claim of something that no other agent of this network namespace may use.
///
/// It is the name of an abstract socket (unix(7)): names are unique in a network
/// namespace, as bridges and ports are, and the kernel frees them with their owner.
#[derive(Debug)]
pub struct NetworkClaim {
    _socket: UnixDatagram,
}

impl NetworkClaim {
    /// Claims the MAC address of a guest; `None` if it is claimed already.
    pub fn mac(mac: Mac) -> Result<Option<NetworkClaim>> {
        NetworkClaim::take(&format!("mac/{mac}"))
    }

    /// Claims the TCP port of a display; `None` if it is claimed already.
    pub fn display(port: u16) -> Result<Option<NetworkClaim>> {
        NetworkClaim::take(&format!("display/{port}"))
    }

    fn take(what: &str) -> Result<Option<NetworkClaim>> {
        let unable = || format!("unable to claim {what}");
        let name = SocketAddr::from_abstract_name(format!("bbot-agent/{what}"));
        match UnixDatagram::bind_addr(&name.context(unable)?) {
            Ok(socket) => Ok(Some(NetworkClaim { _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error).context(unable),
        }
    }
}
