//! HTTP, where the server does everything but what it should.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use bbot_agent::controller::failure::FailureClass;
use bbot_agent::controller::http::{Body, Client, Settings};
use bbot_agent::controller::url::Url;
use bbot_agent::watch::Watch;

use super::{patient, post, post_with};
use crate::support::TempDir;
use crate::support::http::{Server, answer, closed_port};

fn class(url: &str) -> FailureClass {
    post(url).unwrap_err().class()
}

fn hasty(request: u64) -> Settings {
    Settings {
        connect_timeout: Duration::from_millis(request),
        request_timeout: Duration::from_millis(request),
        ..Settings::default()
    }
}

#[test]
fn the_request_is_posted_as_it_is() {
    let server = Server::answering("200 OK", ": 1\nsession:\n");
    let answer = post(&server.url("/x/?build-task&repository=a%2Fb&r=x+y#top")).unwrap();
    assert_eq!(answer.body, b": 1\nsession:\n");
    assert_eq!(answer.content_type, "text/manifest;charset=utf-8");
    let request = &server.requests()[0];
    assert_eq!(request.method, "POST");
    assert_eq!(request.target, "/x/?build-task&repository=a%2Fb&r=x+y");
    assert_eq!(request.header("content-type"), Some("text/manifest"));
    assert_eq!(request.header("connection"), Some("close"));
    assert_eq!(request.header("accept-encoding"), None);
    assert_eq!(request.header("expect"), None);
    assert_eq!(request.text(), ": 1\nagent: a\n");
}

#[test]
fn user_and_password_of_the_url_are_sent_but_not_shown() {
    let server = Server::answering("403 Forbidden", "");
    let url = server.url("/").replace("://", "://bot:secret@");
    let failure = post(&url).unwrap_err();
    assert_eq!(failure.to_string(), "refused with 403 forbidden");
    assert_eq!(
        server.requests()[0].header("authorization"),
        Some("Basic Ym90OnNlY3JldA==")
    );
}

#[test]
fn a_refused_connection_names_the_address() {
    let port = closed_port();
    let failure = post(&format!("http://127.0.0.1:{port}/")).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Connect);
    assert_eq!(
        failure.to_string(),
        format!("connection refused (127.0.0.1:{port})")
    );
}

#[test]
fn a_refused_connection_is_tried_again_a_second_later() {
    let address = format!("127.0.0.1:{}", closed_port());
    let post = |retries| {
        let settings = Settings {
            connect_retries: retries,
            ..patient()
        };
        let client = Client::new(&settings, &Watch::start().unwrap()).unwrap();
        let url = Url::parse(&format!("http://{address}/")).unwrap();
        client.post(&url, "text/plain", &Body::Bytes(b""), 10)
    };
    let start = Instant::now();
    assert_eq!(post(1).unwrap_err().class(), FailureClass::Connect);
    assert!(start.elapsed() >= Duration::from_secs(1));
    let server = thread::spawn({
        let address = address.clone();
        move || {
            thread::sleep(Duration::from_millis(1200));
            let (mut stream, _) = TcpListener::bind(address).unwrap().accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")
                .unwrap();
        }
    });
    assert_eq!(post(20).unwrap().body, b"x");
    server.join().unwrap();
}

#[test]
fn the_next_address_is_tried_when_one_refuses() {
    // localhost is ::1 and 127.0.0.1 on most hosts; the server has only one.
    let server = Server::answering("200 OK", "x");
    let url = server.url("/").replace("127.0.0.1", "localhost");
    assert_eq!(post(&url).unwrap().body, b"x");
}

#[test]
fn an_unknown_host_is_named() {
    let failure = post("http://no-such-host.invalid/").unwrap_err();
    assert_eq!(failure.class(), FailureClass::Name);
    assert!(
        failure
            .to_string()
            .starts_with("unable to resolve host no-such-host.invalid: "),
        "{failure}"
    );
}

#[test]
fn a_status_is_reported_with_the_first_line_of_the_body() {
    for (status, body, shown, expected) in [
        (
            "400 Bad Request",
            "request:2:1: error: unknown name\nx",
            "refused with 400 bad request: request:2:1: error: unknown name",
            FailureClass::Client(400),
        ),
        (
            "401 Unauthorized",
            "unauthorized",
            "refused with 401 unauthorized",
            FailureClass::Client(401),
        ),
        (
            "501 Not Implemented",
            "not implemented",
            "server error 501 not implemented",
            FailureClass::Server(501),
        ),
        (
            "502 Bad Gateway",
            "<html>\r\n<head><title>502 Bad Gateway</title></head>",
            "server error 502 bad gateway",
            FailureClass::Server(502),
        ),
        (
            "304 Not Modified",
            "",
            "unexpected status 304 not modified",
            FailureClass::Protocol,
        ),
        (
            "206 Partial Content",
            ": 1\n",
            "unexpected status 206 partial content",
            FailureClass::Protocol,
        ),
        (
            "302 Found",
            "",
            "redirected (302) to nowhere: would lose the request",
            FailureClass::Redirect,
        ),
    ] {
        let server = Server::answering(status, body);
        let failure = post(&server.url("/")).unwrap_err();
        assert_eq!(failure.to_string(), shown);
        assert_eq!(failure.class(), expected);
    }
}

#[test]
fn an_endless_error_page_is_read_only_in_part() {
    let server = Server::start(|mut connection| {
        connection.request().unwrap();
        connection.send("HTTP/1.1 500 No\r\n\r\n");
        connection.flood(&[b'x'; 4096]);
    });
    assert_eq!(class(&server.url("/")), FailureClass::Server(500));
}

#[test]
fn a_refusal_halfway_through_the_request_is_heard() {
    let scratch = TempDir::new();
    let mut file = File::create_new(scratch.path().join("large")).unwrap();
    file.write_all(&vec![b'x'; 8 << 20]).unwrap();
    let file = File::open(scratch.path().join("large")).unwrap();
    let server = Server::start(|mut connection| {
        connection.take(1000);
        connection.answer("413 Payload Too Large", "over 10 bytes");
        connection.reset();
    });
    let watch = Watch::start().unwrap();
    let client = Client::new(&patient(), &watch).unwrap();
    let url = Url::parse(&server.url("/")).unwrap();
    let failure = client
        .post(&url, "x/y", &Body::File(b"a", &file, b"b"), 0)
        .unwrap_err();
    assert!(
        matches!(
            failure.class(),
            FailureClass::Client(413) | FailureClass::Cut
        ),
        "{failure}"
    );
}

#[test]
fn a_file_is_streamed_with_what_goes_around_it() {
    let scratch = TempDir::new();
    let path = scratch.path().join("f");
    std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
    let file = File::open(&path).unwrap();
    let server = Server::answering("200 OK", "");
    let watch = Watch::start().unwrap();
    let client = Client::new(&patient(), &watch).unwrap();
    let url = Url::parse(&server.url("/")).unwrap();
    client
        .post(&url, "x/y", &Body::File(b"<<", &file, b">>"), 0)
        .unwrap();
    let request = &server.requests()[0];
    assert_eq!(request.header("content-length"), Some("100004"));
    assert!(request.text().starts_with("<<xx") && request.text().ends_with("xx>>"));
}

#[test]
fn a_hanging_server_costs_the_request_timeout_and_no_more() {
    let server = Server::start(|mut connection| {
        if connection.number == 0 {
            connection.request().unwrap();
        }
        if connection.number == 1 {
            connection.request().unwrap();
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        }
        connection.hang();
    });
    for _ in 0..3 {
        let started = Instant::now();
        let failure = post_with(&hasty(300), &server.url("/"), 100).unwrap_err();
        let took = started.elapsed();
        assert_eq!(failure.class(), FailureClass::Timeout, "{failure}");
        assert!(took >= Duration::from_millis(290), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn a_dribbling_server_does_not_stretch_the_timeout() {
    let server = Server::start(|mut connection| {
        connection.request().unwrap();
        let endless = "HTTP/1.1 200 OK\r\nX: "
            .bytes()
            .chain(std::iter::repeat(b'x'));
        connection.dribble(endless, Duration::from_millis(10));
    });
    let started = Instant::now();
    let failure = post_with(&hasty(400), &server.url("/"), 100).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Timeout, "{failure}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_connection_that_is_not_accepted_costs_the_connect_timeout() {
    // TEST-NET-1 (RFC 5737): either nobody answers, or there is no route.
    let settings = Settings {
        connect_timeout: Duration::from_millis(300),
        ..patient()
    };
    let started = Instant::now();
    let failure = post_with(&settings, "http://192.0.2.1:9/", 100).unwrap_err();
    assert!(
        matches!(
            failure.class(),
            FailureClass::Timeout | FailureClass::Connect
        ),
        "{failure}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_endless_body_stops_at_the_limit() {
    let server = Server::start(|mut connection| {
        connection.request().unwrap();
        connection.send("HTTP/1.1 200 OK\r\n\r\n");
        connection.flood(&[b'x'; 4096]);
    });
    let failure = post_with(&patient(), &server.url("/"), 100_000).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the answer is longer than 100000 bytes"
    );
}

#[test]
fn an_oversized_header_is_said_to_be_one() {
    let server = Server::start(|mut connection| {
        connection.request().unwrap();
        connection.send("HTTP/1.1 200 OK\r\nX: ");
        connection.flood(&[b'x'; 4096]);
    });
    let failure = post(&server.url("/")).unwrap_err();
    assert_eq!(failure.to_string(), "the header of the answer is too large");
}

#[test]
fn garbage_is_a_protocol_failure() {
    for garbage in [
        "\x00\x01\x02\x03\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        "220 ftp ready\r\n",
    ] {
        let server = Server::start(move |mut connection| {
            connection.request().unwrap();
            connection.send(garbage);
        });
        let failure = post(&server.url("/")).unwrap_err();
        assert!(
            matches!(failure.class(), FailureClass::Protocol | FailureClass::Cut),
            "{garbage:?}: {:?}: {failure}",
            failure.class()
        );
    }
}

#[test]
fn an_answer_may_be_chunked_or_end_with_the_connection() {
    for text in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nabc",
        "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let server = Server::start(move |mut connection| {
            connection.request().unwrap();
            connection.send(text);
        });
        assert_eq!(post(&server.url("/")).unwrap().body, b"abc", "{text:?}");
    }
}

#[test]
fn the_answer_is_whole_or_a_failure_wherever_it_breaks_off() {
    let whole = answer("200 OK", "0123456789");
    for cut in 0..whole.len() {
        for reset in [false, true] {
            let part = whole.clone().into_bytes()[..cut].to_vec();
            let server = Server::start(move |mut connection| {
                connection.request().unwrap();
                connection.send(&part);
                if reset {
                    connection.reset();
                }
            });
            let failure = post(&server.url("/")).unwrap_err();
            assert_eq!(failure.class(), FailureClass::Cut, "{cut}: {failure}");
        }
    }
}

#[test]
fn a_reset_is_not_the_end_of_an_answer_without_length() {
    let server = Server::start(|mut connection| {
        connection.request().unwrap();
        connection.send("HTTP/1.1 200 OK\r\n\r\n: 1\nsession: abc");
        // A reset may overtake what is not there yet.
        connection.await_receipt();
        connection.reset();
    });
    assert_eq!(class(&server.url("/")), FailureClass::Cut);
}

#[test]
fn a_reset_within_the_request_is_a_failure_wherever_it_comes() {
    for taken in [1, 2, 10, 50, 100, 150] {
        let server = Server::start(move |mut connection| {
            connection.take(taken);
            connection.reset();
        });
        assert_eq!(class(&server.url("/")), FailureClass::Cut, "{taken}");
    }
}

#[test]
fn for_a_result_the_header_of_the_answer_is_enough() {
    let server = Server::start(|mut connection| {
        connection.request().unwrap();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
        connection.hang();
    });
    let answer = post_with(&patient(), &server.url("/"), 0).unwrap();
    assert!(answer.body.is_empty());
}

#[test]
fn no_connection_is_used_twice() {
    let server = Server::start(|mut connection| {
        // Keeps the connection open, as HTTP/1.1 servers do.
        connection.request().unwrap();
        connection.answer("200 OK", "x");
        connection.hang();
    });
    let watch = Watch::start().unwrap();
    let client = Client::new(&patient(), &watch).unwrap();
    let url = Url::parse(&server.url("/")).unwrap();
    for _ in 0..3 {
        client.post(&url, "x/y", &Body::Bytes(b""), 10).unwrap();
    }
    assert_eq!(server.connections(), 3);
}
