//! Signals during a request.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bbot_agent::controller::failure::FailureClass;
use bbot_agent::controller::http::{Body, Client};
use bbot_agent::controller::url::Url;
use bbot_agent::watch::{Stop, Watch};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;

use super::patient;
use crate::support::http::Server;

#[test]
fn sigterm_ends_a_request_at_once() {
    let (hanging, heard) = mpsc::channel();
    let server = Server::start(move |mut connection| {
        let _ = connection.request();
        hanging.send(()).unwrap();
        connection.hang();
    });
    let watch = Watch::start().unwrap();
    let client = Client::new(&patient(), &watch).unwrap();
    let url = Url::parse(&server.url("/")).unwrap();
    // A number, as musl's thread handle is a pointer.
    let me = pthread_self() as usize;
    thread::spawn(move || {
        heard.recv().unwrap();
        pthread_kill(me as nix::libc::pthread_t, Signal::SIGTERM).unwrap();
    });
    let started = Instant::now();
    let failure = client.post(&url, "x/y", &Body::Bytes(b""), 10).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Stopped);
    assert_eq!(failure.to_string(), "stopped by a signal");
    assert_eq!(watch.stop(), Some(Stop::Terminate));
    assert!(started.elapsed() < Duration::from_secs(5));
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
