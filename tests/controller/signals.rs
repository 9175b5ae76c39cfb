//! Signals during a request.

use std::sync::mpsc;

use bbot_agent::controller::failure::FailureClass;
use bbot_agent::controller::http::{Body, Client};
use bbot_agent::controller::url::Url;
use bbot_agent::watch::{Stop, Watch};
use nix::sys::signal::Signal;

use super::{patient, post_until_sigterm};
use crate::support::http::Server;

#[test]
fn sigterm_ends_a_request_at_once() {
    let (hanging, heard) = mpsc::channel();
    let server = Server::start(move |mut connection| {
        let _ = connection.request();
        hanging.send(()).unwrap();
        connection.hang();
    });
    let (failure, stop) = post_until_sigterm(&patient(), &server.url("/"), heard);
    assert_eq!(failure.class(), FailureClass::Stopped);
    assert_eq!(failure.to_string(), "stopped by a signal");
    assert_eq!(stop, Some(Stop::Terminate));
}

#[test]
fn sighup_lets_a_request_finish() {
    let server = Server::answering("200 OK", "x");
    let watch = Watch::start().unwrap();
    nix::sys::signal::raise(Signal::SIGHUP).unwrap();
    let client = Client::new(&patient(), &watch).unwrap();
    let url = Url::parse(&server.url("/")).unwrap();
    client.post(&url, "x/y", &Body::Bytes(b""), 10).unwrap();
    assert_eq!(watch.stop(), Some(Stop::Restart));
}
