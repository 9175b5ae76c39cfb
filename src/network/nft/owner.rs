//! The owner of our tables: a socket that stays open.
//!
//! When a socket is closed, also by a kill, the kernel removes the tables that it owns.
//! The close waits until everything that was removed before is freed, some 10 ms (grace
//! periods of RCU). All redirects of an agent therefore share one socket, and the kernel
//! frees removed ones while the agent goes on.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::sys::netlink::NetlinkSocket;

/// Where redirects put their rules of `nf_tables`; opened when it is first needed.
#[derive(Clone, Debug, Default)]
pub struct Netfilter(Rc<RefCell<Option<Rc<NetlinkSocket>>>>);

impl Netfilter {
    pub(super) fn socket(&self) -> io::Result<Rc<NetlinkSocket>> {
        let mut open = self.0.borrow_mut();
        if let Some(socket) = &*open {
            return Ok(Rc::clone(socket));
        }
        Ok(Rc::clone(open.insert(Rc::new(NetlinkSocket::netfilter()?))))
    }

    /// After a failure, of which the effect is unknown: the kernel removes the tables
    /// with the last user of the socket, and the next redirect has another socket.
    pub(super) fn give_up(&self) {
        self.0.take();
    }
}
