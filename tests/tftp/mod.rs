//! The TFTP server: state machines and dispatcher by timetable, then on sockets with
//! clients that misbehave, and with those that people have.

mod deferred;
mod dispatch;
mod files;
mod garbage;
mod interop;
mod ipxe;
mod limits;
mod link;
mod requests;
mod timetables;
mod wire;

use crate::support::tftp::{Scratch, Server, pattern};

/// A server and its files to read.
fn setup(files: &[(&str, usize)]) -> (Scratch, Server) {
    let scratch = Scratch::new();
    for (name, size) in files {
        scratch.file(name, &pattern(*size));
    }
    let server = Server::start(&scratch);
    (scratch, server)
}
