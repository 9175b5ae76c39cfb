//! Controllers, against servers that misbehave on demand.

mod garbage;
mod headers;
mod http;
mod proxies;
mod redirects;
mod select;
mod signals;
mod spool;
mod tls;

use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use bbot_agent::controller::failure::Failure;
use bbot_agent::controller::http::{Answer, Body, Client, Settings};
use bbot_agent::controller::url::Url;
use bbot_agent::controller::{Assignment, Controllers};
use bbot_agent::manifest::TaskRequest;
use bbot_agent::watch::{Stop, Watch};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;

/// Timeouts long enough for a busy machine, for what should not time out.
pub fn patient() -> Settings {
    Settings {
        connect_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(30),
        ..Settings::default()
    }
}

/// The answers of controllers that were asked in turn, until one had a task.
#[derive(Debug, Default)]
pub struct Answers {
    pub assignment: Option<Assignment>,
    pub failed: Vec<Failure>,
    pub idle: usize,
}

/// Asks the controllers in their order, as the agent does.
pub fn ask_in_order(controllers: &mut Controllers, request: &TaskRequest) -> Answers {
    let mut answers = Answers::default();
    for number in controllers.order() {
        match controllers.ask(number, request) {
            Ok(None) => answers.idle += 1,
            Ok(assignment) => {
                answers.assignment = assignment;
                break;
            }
            Err(failure) => answers.failed.push(failure),
        }
    }
    answers
}

/// Posts to `url`, sends SIGTERM to this thread when the server has the request, which it does
/// not answer, and returns how the request has ended.
pub fn post_until_sigterm(
    settings: &Settings,
    url: &str,
    heard: Receiver<()>,
) -> (Failure, Option<Stop>) {
    let watch = Watch::start().unwrap();
    let client = Client::new(settings, &watch).unwrap();
    let url = Url::parse(url).unwrap();
    // A number, as musl's thread handle is a pointer.
    let me = pthread_self() as usize;
    thread::spawn(move || {
        heard.recv().unwrap();
        pthread_kill(me as nix::libc::pthread_t, Signal::SIGTERM).unwrap();
    });
    let started = Instant::now();
    let failure = client.post(&url, "x/y", &Body::Bytes(b""), 10).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    (failure, watch.stop())
}

/// Posts once, reading at most `most` bytes of the answer.
pub fn post_with(settings: &Settings, url: &str, most: u64) -> Result<Answer, Failure> {
    let watch = Watch::start().unwrap();
    let client = Client::new(settings, &watch).unwrap();
    let url = Url::parse(url).unwrap();
    client.post(
        &url,
        "text/manifest",
        &Body::Bytes(b": 1\nagent: a\n"),
        most,
    )
}

pub fn post(url: &str) -> Result<Answer, Failure> {
    post_with(&patient(), url, 1 << 20)
}
