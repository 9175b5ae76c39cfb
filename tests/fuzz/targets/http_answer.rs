//! Whatever a server answers to a request, the client ends in time, keeps to its
//! limit, and what it takes for a task response survives its way back to text.

#![no_main]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use bbot_agent::controller::failure::FailureClass;
use bbot_agent::controller::http::{Body, Client, Settings};
use bbot_agent::controller::url::Url;
use bbot_agent::manifest::TaskResponse;
use bbot_agent::watch::Watch;
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 4096;
const REQUEST: &[u8] = b"ask";

struct Setup {
    client: Client,
    url: Url,
    answers: Sender<Vec<u8>>,
}

thread_local! {
    // All inputs come on one thread.
    static SETUP: Setup = setup();
}

fn setup() -> Setup {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (answers, next) = mpsc::channel();
    thread::spawn(move || serve(&listener, &next));
    let settings = Settings {
        request_timeout: Duration::from_secs(20),
        ..Settings::default()
    };
    Setup {
        client: Client::new(&settings, &Watch::start().unwrap()).unwrap(),
        url: Url::parse(&url).unwrap(),
        answers,
    }
}

/// Gives the same answer to all connections of one request: a redirect leads
/// back here.
fn serve(listener: &TcpListener, next: &Receiver<Vec<u8>>) {
    let mut answer = Vec::new();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        while let Ok(newer) = next.try_recv() {
            answer = newer;
        }
        // All of the request, so that the answer is not cut off by a reset.
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(REQUEST) && stream.read(&mut byte).is_ok_and(|n| n > 0) {
            request.push(byte[0]);
        }
        let _ = stream.write_all(&answer);
    }
}

fuzz_target!(|input: &[u8]| {
    // A redirect must not lead to anybody else.
    if input.windows(2).any(|w| w == b"//") {
        return;
    }
    SETUP.with(|setup| exchange(setup, input));
});

fn exchange(setup: &Setup, input: &[u8]) {
    setup.answers.send(input.to_vec()).unwrap();
    match setup
        .client
        .post(&setup.url, "text/manifest", &Body::Bytes(REQUEST), LIMIT)
    {
        Ok(answer) => {
            assert!(answer.body.len() as u64 <= LIMIT);
            let _ = TaskResponse::parse(&answer.body, "");
        }
        Err(failure) => assert!(
            failure.class() != FailureClass::Timeout,
            "not in time: {failure}"
        ),
    }
}
