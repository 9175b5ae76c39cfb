//! Answers put together at random from the parts that answers are made of.

use std::collections::BTreeMap;

use bbot_agent::controller::failure::FailureClass;
use bbot_agent::controller::http::{Body, Client};
use bbot_agent::controller::url::Url;
use bbot_agent::watch::Watch;

use super::patient;
use crate::support::http::Server;

/// A small generator (xorshift64*), so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % most
    }
}

const STATUS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200\r\n",
    "HTTP/1.1 307 X\r\nLocation: /\r\n",
    "HTTP/1.1 302 X\r\nLocation: http://[::1\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    "HTTP/1.1 101 Switching\r\n",
    "HTTP/1.1 204 None\r\n",
    "HTTP/1.1 404 X\r\n",
    "HTTP/1.0 500 X\r\n",
    "HTTP/2 200\r\n",
    "",
];

const HEADERS: &[&str] = &[
    "Content-Length: 5\r\n",
    "Content-Length: 10\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: 18446744073709551615\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: keep-alive\r\n",
    "Content-Type: text/manifest\r\n",
    "Content-Type: \u{fffd}\r\n",
    "Content-Encoding: gzip\r\n",
    " folded\r\n",
    "no colon\r\n",
];

const BODY: &[&str] = &[
    "abcde",
    "5\r\nabcde\r\n",
    "5;extension=\"x\"\r\nabcde\r\n",
    "0\r\n\r\n",
    "0\r\nTrailer: x\r\n\r\n",
    "ffffffffffffffff\r\n",
    "fffffffffffffffff\r\n",
    "-1\r\n",
    ": 1\nsession:\n",
];

/// An answer with something wrong in it, or not.
fn damaged(dice: &mut Dice) -> Vec<u8> {
    let mut text = String::from(STATUS[dice.below(STATUS.len())]);
    for _ in 0..dice.below(4) {
        text.push_str(HEADERS[dice.below(HEADERS.len())]);
    }
    if dice.below(10) > 0 {
        text.push_str("\r\n");
    }
    for _ in 0..dice.below(4) {
        text.push_str(BODY[dice.below(BODY.len())]);
    }
    let mut text = text.into_bytes();
    if dice.below(4) == 0 && !text.is_empty() {
        let at = dice.below(text.len());
        text[at] = u8::try_from(dice.below(256)).unwrap();
    }
    text
}

#[test]
fn no_answer_whatever_it_is_panics_or_takes_for_ever() {
    let server = Server::start(|mut connection| {
        let mut dice = Dice(0x5eed + u64::try_from(connection.number).unwrap());
        // A connection whose request is reset has nothing to answer.
        if connection.request().is_ok() {
            connection.send(damaged(&mut dice));
        }
    });
    let watch = Watch::start().unwrap();
    let client = Client::new(&patient(), &watch).unwrap();
    let url = Url::parse(&server.url("/")).unwrap();
    let mut classes = BTreeMap::new();
    for _ in 0..3000 {
        let outcome = client.post(&url, "x/y", &Body::Bytes(b"ask"), 1000);
        let class = match outcome {
            Ok(answer) => {
                assert!(answer.body.len() <= 1000);
                "ok".to_owned()
            }
            Err(failure) => {
                assert_ne!(failure.class(), FailureClass::Timeout, "{failure}");
                format!("{:?}", failure.class())
            }
        };
        *classes.entry(class).or_insert(0) += 1;
    }
    // Enough of everything to be worth it.
    assert!(classes.len() >= 5, "{classes:?}");
    assert!(classes["ok"] > 200, "{classes:?}");
}
