//! Proxies on the way to controllers.

use bbot_agent::controller::http::{Client, Settings};
use bbot_agent::settings::ProxyChoice;
use bbot_agent::watch::Watch;

use super::{patient, post_with};
use crate::support::http::Server;

fn all_by(proxy: &str) -> Settings {
    Settings {
        proxy: ProxyChoice {
            http: Some(proxy.to_owned()),
            https: Some(proxy.to_owned()),
            exceptions: "direct.invalid".to_owned(),
        },
        ..patient()
    }
}

#[test]
fn a_proxy_is_asked_for_a_tunnel() {
    let server = Server::start(|mut connection| {
        let request = connection.request().unwrap();
        if request.method == "CONNECT" {
            connection.send("HTTP/1.1 200 OK\r\n\r\n");
            connection.request().unwrap();
            connection.answer("200 OK", "through");
        }
    });
    let settings = all_by(&format!("http://me:pw@127.0.0.1:{}", server.port()));
    let answer = post_with(&settings, "http://controller.invalid/?x", 100).unwrap();
    assert_eq!(answer.body, b"through");
    let requests = server.requests();
    assert_eq!(requests[0].target, "controller.invalid:80");
    assert_eq!(
        requests[0].header("proxy-authorization"),
        Some("Basic bWU6cHc=")
    );
    assert_eq!(requests[1].target, "/?x");
    // An exception is connected to, which is known to the proxy only.
    let failure = post_with(&settings, "http://x.direct.invalid/", 100).unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("unable to resolve host x.direct.invalid")
    );
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_failure_names_the_proxy_without_its_password() {
    let settings = all_by("http://me:pw@127.0.0.1:1");
    let failure = post_with(&settings, "http://controller.invalid/", 100).unwrap_err();
    assert_eq!(failure.hints(), ["by the proxy http://***@127.0.0.1:1/"]);
}

#[test]
fn a_proxy_that_is_not_http_is_refused() {
    let watch = Watch::start().unwrap();
    for proxy in ["socks5://h:1", "h:3128", "http://"] {
        let error = Client::new(&all_by(proxy), &watch).unwrap_err();
        assert!(error.to_string().contains(proxy), "{error}");
    }
}
