//! HTTPS with a private certificate authority, made by the openssl program.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bbot_agent::controller::failure::FailureClass;
use bbot_agent::controller::http::Settings;
use bbot_agent::settings::ProxyChoice;

use super::{patient, post, post_until_sigterm, post_with};
use crate::support::http::{Connection, Identity, Server};
use crate::support::{TempDir, require_programs};

const LEAF: &str = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";

fn trusting(certificate: &Path) -> Settings {
    Settings {
        ca_file: Some(certificate.to_owned()),
        ..patient()
    }
}

fn answering(mut connection: Connection) {
    // A client that does not trust us goes away in the middle.
    if connection.request().is_ok() {
        connection.answer("200 OK", "secure");
    }
}

#[test]
fn a_leaf_of_a_private_authority_is_trusted_with_ca_file() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let leaf = authority.sign(scratch.path(), "leaf", Some(LEAF));
    let server = Server::start_tls(&leaf, answering);
    let settings = trusting(&authority.certificate);
    for host in ["127.0.0.1", "localhost"] {
        let url = server.url("/?build-task").replace("127.0.0.1", host);
        let answer = post_with(&settings, &url, 100).unwrap();
        assert_eq!(answer.body, b"secure");
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn without_ca_file_a_private_authority_is_not_trusted() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let leaf = authority.sign(scratch.path(), "leaf", Some(LEAF));
    let server = Server::start_tls(&leaf, answering);
    let failure = post(&server.url("/")).unwrap_err();
    // A host without a bundle says so instead.
    assert!(
        matches!(failure.class(), FailureClass::Tls | FailureClass::Setup),
        "{failure}"
    );
    assert!(
        failure
            .hints()
            .iter()
            .any(|hint| hint.contains("--ca-file")),
        "{:?}",
        failure.hints()
    );
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn another_host_name_is_not_accepted() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let other = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:other.example\n";
    let leaf = authority.sign(scratch.path(), "leaf", Some(other));
    let server = Server::start_tls(&leaf, answering);
    let failure = post_with(&trusting(&authority.certificate), &server.url("/"), 100).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Tls);
    assert!(
        failure.hints()[0].contains("subjectAltName"),
        "{:?}",
        failure.hints()
    );
}

/// The server is refused by who trusts `authority`, with a hint that says so.
#[track_caller]
fn advised(server: &Identity, authority: &Identity, hint: &str) {
    let server = Server::start_tls(server, answering);
    let url = server.url("/").replace("127.0.0.1", "localhost");
    let failure = post_with(&trusting(&authority.certificate), &url, 100).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Tls);
    let hints = failure.hints();
    assert!(hints[0].contains(hint), "{failure}: {hints:?}");
}

#[test]
fn an_authority_as_the_server_itself_gets_advice() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    // What `openssl req -x509` makes: CA:TRUE.
    let authority = Identity::authority(scratch.path(), "localhost");
    advised(&authority, &authority, "CA:TRUE");
}

#[test]
fn a_leaf_of_x509_version_1_gets_advice() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let leaf = authority.sign(scratch.path(), "localhost", None);
    advised(&leaf, &authority, "-extfile");
}

#[test]
fn an_answer_without_length_must_end_with_close_notify() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let leaf = authority.sign(scratch.path(), "leaf", Some(LEAF));
    let server = Server::start_tls(&leaf, |mut connection| {
        if connection.request().is_ok() {
            connection.send("HTTP/1.1 200 OK\r\n\r\n: 1\nsession: abc");
        }
    });
    let failure = post_with(&trusting(&authority.certificate), &server.url("/"), 100).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Cut, "{failure}");
}

#[test]
fn a_server_that_speaks_no_tls_is_a_clear_failure() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let server = Server::start(|mut connection| {
        connection.take(1);
        connection.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let url = server.url("/").replace("http:", "https:");
    let failure = post_with(&trusting(&authority.certificate), &url, 100).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Tls, "{failure}");
}

#[test]
fn a_hanging_handshake_is_a_connect_timeout() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let server = Server::start(|mut connection| connection.hang());
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let settings = Settings {
        connect_timeout: Duration::from_millis(300),
        ..trusting(&authority.certificate)
    };
    let url = server.url("/").replace("http:", "https:");
    let failure = post_with(&settings, &url, 100).unwrap_err();
    assert_eq!(failure.to_string(), "timed out connecting");
}

#[test]
fn sigterm_ends_a_request_over_tls_at_once() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let leaf = authority.sign(scratch.path(), "leaf", Some(LEAF));
    let (hanging, heard) = mpsc::channel();
    let server = Server::start_tls(&leaf, move |mut connection| {
        let _ = connection.request();
        let _ = hanging.send(());
        connection.hang();
    });
    let settings = trusting(&authority.certificate);
    let (failure, _) = post_until_sigterm(&settings, &server.url("/"), heard);
    assert_eq!(failure.class(), FailureClass::Stopped, "{failure}");
}

/// Answers one CONNECT, and then passes on what comes, both ways.
fn tunnel(listener: &TcpListener, port: u16) -> String {
    let (mut client, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let there = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
    there.join().unwrap();
    let head = String::from_utf8(head).unwrap();
    head.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn https_goes_through_the_tunnel_of_a_proxy() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let authority = Identity::authority(scratch.path(), "ca");
    let named = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:controller.invalid\n";
    let leaf = authority.sign(scratch.path(), "leaf", Some(named));
    let server = Server::start_tls(&leaf, answering);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let port = server.port();
    let proxying = thread::spawn(move || tunnel(&listener, port));
    let settings = Settings {
        proxy: ProxyChoice {
            https: Some(proxy),
            ..ProxyChoice::default()
        },
        ..trusting(&authority.certificate)
    };
    // The host is known to the proxy only, and checked end to end.
    let answer = post_with(&settings, "https://controller.invalid/?build-task", 100).unwrap();
    assert_eq!(answer.body, b"secure");
    assert_eq!(
        proxying.join().unwrap(),
        "CONNECT controller.invalid:443 HTTP/1.1"
    );
    assert_eq!(server.requests()[0].target, "/?build-task");
}
