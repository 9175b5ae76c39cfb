//! Headers of answers that curl takes.

use super::post;
use crate::support::http::Server;

#[test]
fn many_and_folded_fields_are_no_obstacle() {
    let server = Server::start(|mut connection| {
        connection.request().unwrap();
        // In pieces, as a slow network delivers them.
        connection.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 O");
        connection.send("K\r\n");
        connection.send("X-Field: value\r\n".repeat(500));
        connection.send("Content-Type: text/manifest;\r\n charset=utf-8\r\nContent-");
        connection.send("Length: 5\r\n\r\nab");
        connection.send("cde");
    });
    let answer = post(&server.url("/")).unwrap();
    assert_eq!(answer.content_type, "text/manifest; charset=utf-8");
    assert_eq!(answer.body, b"abcde");
}
