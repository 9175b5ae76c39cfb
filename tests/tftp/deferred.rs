//! Requests that one server leaves to another, as a warm start does.

use bbot_agent::sys::udp::Route;
use bbot_agent::tftp::packet::ack;
use bbot_agent::tftp::{DeferredRequest, Map, Served, ServerSettings};

use super::dispatch::{A, B, Table, request_of, rrq};
use crate::support::tftp::Said;

#[test]
fn a_deferred_request_is_answered_by_another_server() {
    let mut first = Table::new(ServerSettings::default());
    let map = Map::new().get(first.scratch.get()).deferred("f");
    first.dispatcher.set_map(map);
    let asked = rrq(&[("blksize", "1024")]);
    let now = first.start;
    first.dispatcher.packet(
        now,
        Route {
            peer: A,
            from: None,
        },
        &asked,
    );
    let Some(Served::Deferred(request)) = first.dispatcher.event() else {
        panic!("not deferred");
    };
    assert_eq!((request.peer, &request.octets), (A, &asked));
    assert!(first.record.0.borrow().is_empty());
    // Other files are served meanwhile.
    let other = Route {
        peer: B,
        from: None,
    };
    first.dispatcher.packet(now, other, &request_of("none"));
    assert!(matches!(
        first.dispatcher.event(),
        Some(Served::Refused { .. })
    ));

    let mut second = Table::new(ServerSettings::default());
    // No filter keeps the guest out.
    second.dispatcher.set_accept(Box::new(|_| false));
    let event = second.dispatcher.resume(now, &request);
    assert!(
        matches!(event, Some(Served::Requested { peer: A, .. })),
        "{event:?}"
    );
    assert_eq!(second.dispatcher.event(), None);
    let sent = second.record.0.borrow().len();
    assert_eq!(sent, 1);
    // The guest goes on as if it had one server, and repeats its request in between.
    second.dispatcher.packet(
        now,
        Route {
            peer: A,
            from: None,
        },
        &asked,
    );
    second.dispatcher.packet(
        now,
        Route {
            peer: A,
            from: None,
        },
        &ack(0),
    );
    let blocks = second
        .record
        .0
        .borrow()
        .iter()
        .filter(|(_, said)| matches!(said, Said::Data(1, _)))
        .count();
    assert_eq!(blocks, 1);
}

#[test]
fn a_deferred_request_that_cannot_be_served_is_refused() {
    let mut table = Table::new(ServerSettings::default());
    let octets = request_of("none");
    let request = DeferredRequest { peer: A, octets };
    let event = table.dispatcher.resume(table.start, &request);
    assert!(matches!(event, Some(Served::Refused { .. })), "{event:?}");
}
