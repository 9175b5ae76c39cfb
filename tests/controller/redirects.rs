//! Answers that point elsewhere.

use bbot_agent::controller::failure::FailureClass;

use super::post;
use crate::support::http::Server;

#[test]
fn a_307_is_posted_again_in_full() {
    for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
        let server = Server::start(move |mut connection| {
            let request = connection.request().unwrap();
            match request.target.as_str() {
                "/?build-task" => connection.send(format!(
                    "HTTP/1.1 {status}\r\nLocation: /new/?build-task\r\nContent-Length: 3\r\n\r\nxyz"
                )),
                _ => connection.answer("200 OK", "done"),
            }
        });
        assert_eq!(post(&server.url("/?build-task")).unwrap().body, b"done");
        let requests = server.requests();
        assert_eq!(requests[1].method, "POST");
        assert_eq!(requests[1].target, "/new/?build-task");
        assert_eq!(requests[1].body, requests[0].body);
        assert_eq!(requests[1].header("content-type"), Some("text/manifest"));
    }
}

#[test]
fn a_redirect_that_loses_the_request_shows_where_it_points() {
    for code in [301, 302, 303] {
        let server = Server::start(move |mut connection| {
            connection.request().unwrap();
            connection.send(format!(
                "HTTP/1.1 {code} Away\r\nLocation: http://u:p@elsewhere/?x\r\nContent-Length: 0\r\n\r\n"
            ));
        });
        let failure = post(&server.url("/")).unwrap_err();
        assert_eq!(failure.class(), FailureClass::Redirect);
        assert_eq!(
            failure.to_string(),
            format!("redirected ({code}) to http://***@elsewhere/?x: would lose the request")
        );
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn a_redirect_loop_ends() {
    let server = Server::start(|mut connection| {
        connection.request().unwrap();
        connection.send("HTTP/1.1 307 Away\r\nLocation: ?again\r\nContent-Length: 0\r\n\r\n");
    });
    let failure = post(&server.url("/")).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "redirected (307) to ?again: too many redirects"
    );
    assert_eq!(server.connections(), 5);
}

#[test]
fn a_redirect_to_another_scheme_is_not_followed() {
    for location in ["https://127.0.0.1/", "file:///etc/passwd", "gopher://x/"] {
        let server = Server::start(move |mut connection| {
            connection.request().unwrap();
            connection.send(format!(
                "HTTP/1.1 308 Away\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            ));
        });
        let failure = post(&server.url("/")).unwrap_err();
        assert_eq!(failure.class(), FailureClass::Redirect);
        assert!(failure.to_string().contains(location), "{failure}");
    }
}
