//! Which of several controllers gets to give a task.

use std::fs;

use bbot_agent::controller::Controllers;
use bbot_agent::controller::failure::FailureClass;
use bbot_agent::manifest::TaskRequest;
use bbot_agent::watch::Watch;

use super::{Answers, ask_in_order, patient};
use crate::support::http::{Server, closed_port};
use crate::support::{TempDir, header};

const TASK: &str = "name: libfoo\nversion: 1\nmachine: linux-gcc\n";

fn response(session: &str, result_url: &str) -> String {
    format!(
        ": 1\nsession: {session}\nresult-url: {result_url}\n\
         bindist-upload-url: http://h/?upload=bindist\nagent-checksum: 7\n:\n{TASK}"
    )
}

fn offering(session: &str) -> Server {
    Server::answering("200 OK", response(session, "http://h/?build-result"))
}

fn idle() -> Server {
    Server::answering("200 OK", ": 1\nsession:\n")
}

fn request() -> TaskRequest {
    TaskRequest {
        agent: "host".to_owned(),
        toolchain: Some(("default".to_owned(), "0.17.0".to_owned())),
        interactive: None,
        fingerprint: Some("ab".repeat(32)),
        auxiliary_ram: 0,
        machines: vec![header("linux-gcc-1.4", "linux-gcc").into()],
    }
}

/// Asks controllers, the first one first.
fn ask(urls: &[String]) -> Answers {
    let watch = Watch::start().unwrap();
    let priorities = (0..urls.len()).rev();
    let urls: Vec<_> = priorities
        .zip(urls)
        .map(|(p, url)| format!("{p}={url}"))
        .collect();
    let mut controllers = Controllers::new(&urls, &patient(), &watch).unwrap();
    ask_in_order(&mut controllers, &request())
}

#[test]
fn the_first_session_wins_and_the_rest_are_not_asked() {
    let (one, two, three) = (idle(), offering("s/2"), offering("s/3"));
    let round = ask(&[one.url("/"), two.url("/x?build-task"), three.url("/")]);
    let assignment = round.assignment.unwrap();
    assert_eq!(assignment.session, "s/2");
    assert_eq!(assignment.controller, two.url("/x?build-task"));
    assert_eq!(assignment.result_url.to_url(), "http://h/?build-result");
    let [(kind, target)] = assignment.upload_urls.as_slice() else {
        panic!("{:?}", assignment.upload_urls);
    };
    assert_eq!(kind, "bindist");
    assert_eq!(target.to_url(), "http://h/?upload=bindist");
    assert_eq!(assignment.agent_checksum.as_deref(), Some("7"));
    assert_eq!(assignment.task.name(), "libfoo");
    assert_eq!((round.idle, round.failed.len()), (1, 0));
    assert_eq!(three.connections(), 0);
    assert_eq!(
        two.requests()[0].text(),
        format!(
            ": 1\nagent: host\ntoolchain-name: default\ntoolchain-version: 0.17.0\n\
             fingerprint: {}\n:\nid: linux-gcc-1.4\nname: linux-gcc\nsummary: Linux with GCC\n",
            "ab".repeat(32)
        )
    );
}

#[test]
fn whatever_one_controller_does_the_next_is_asked() {
    let garbage = Server::answering("200 OK", "what a nice day");
    let login = Server::start(|mut connection| {
        connection.request().unwrap();
        connection
            .send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>");
    });
    let half = Server::answering("200 OK", ": 1\nsession: s\nresult-url: http://h/\n");
    let nowhere = Server::answering("200 OK", response("s", "file:///etc/passwd"));
    let unauthorized = Server::answering("401 Unauthorized", "unauthorized");
    let broken = Server::answering("502 Bad Gateway", "");
    let reset = Server::start(|mut connection| {
        connection.take(10);
        connection.reset();
    });
    let good = offering("s/1");
    let closed = closed_port();
    let round = ask(&[
        format!("http://127.0.0.1:{closed}/"),
        garbage.url("/"),
        login.url("/"),
        half.url("/"),
        nowhere.url("/"),
        unauthorized.url("/"),
        broken.url("/"),
        reset.url("/"),
        "/nonexistent".to_owned(),
        good.url("/"),
    ]);
    assert_eq!(round.assignment.unwrap().session, "s/1");
    let failed: Vec<_> = round
        .failed
        .iter()
        .map(|failure| (failure.class(), failure.to_string()))
        .collect();
    let expected = [
        (FailureClass::Connect, "connection refused"),
        (
            FailureClass::Content,
            "invalid task response manifest: 1:6: ':' expected after name",
        ),
        (
            FailureClass::Content,
            "the answer is text/html, not text/manifest: invalid task response",
        ),
        (FailureClass::Content, "task manifest expected"),
        (
            FailureClass::Content,
            "result-url 'file:///etc/passwd': unsupported scheme 'file'",
        ),
        (FailureClass::Client(401), "refused with 401 unauthorized"),
        (FailureClass::Server(502), "server error 502 bad gateway"),
        (FailureClass::Cut, "connection "),
        (FailureClass::Directory, "no directory /nonexistent"),
    ];
    assert_eq!(failed.len(), expected.len());
    for ((class, text), (wanted, part)) in failed.iter().zip(expected) {
        assert_eq!(*class, wanted, "{text}");
        assert!(text.contains(part), "{text:?} without {part:?}");
    }
}

#[test]
fn a_directory_takes_part_in_the_list() {
    let scratch = TempDir::new();
    fs::create_dir(scratch.path().join("tasks")).unwrap();
    let path = scratch.path().join("tasks/t.manifest");
    fs::write(path, format!(": 1\n{TASK}")).unwrap();
    let quiet = idle();
    let urls = [quiet.url("/"), scratch.path().to_str().unwrap().to_owned()];
    assert_eq!(ask(&urls).assignment.unwrap().session, "t");
}

#[test]
fn an_https_controller_without_usable_certificates_is_refused_at_once() {
    let watch = Watch::start().unwrap();
    let settings = bbot_agent::controller::http::Settings {
        ca_file: Some("/nonexistent/ca.pem".into()),
        ..patient()
    };
    let urls = ["https://h/".to_owned()];
    let error = Controllers::new(&urls, &settings, &watch).unwrap_err();
    assert_eq!(error.class().exit_code(), 78);
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
}
