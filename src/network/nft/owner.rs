//! The owner of our tables: a socket that stays open.
//!
//! When a socket is closed the kernel removes the tables that it owns, however we
//! die. Whoever closes it also waits until all that was removed before is freed,
//! which is some 10 ms (grace periods of RCU). So the redirects of an agent share
//! one, and the kernel frees those that are gone while the agent goes on.

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

    /// Something failed, so nobody knows what is there: the kernel removes it with
    /// the last user of the socket, and the next redirect has another one.
    pub(super) fn give_up(&self) {
        self.0.take();
    }
}
