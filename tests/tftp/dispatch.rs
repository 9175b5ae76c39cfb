//! The dispatcher by timetable, without a socket: requests that come again, peers
//! that begin anew, limits, and the ends of transfers.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bbot_agent::sys::udp::Route;
use bbot_agent::tftp::dispatch::Dispatcher;
use bbot_agent::tftp::packet::{ack, data_header};
use bbot_agent::tftp::source::Blocks;
use bbot_agent::tftp::wire::Wire;
use bbot_agent::tftp::{Map, Rate, Served, ServerSettings};

use crate::support::tftp::{Said, Scratch, options, pattern, request, said};

/// A peer of this port.
pub const fn peer(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

pub const A: SocketAddrV4 = peer(1);
pub const B: SocketAddrV4 = peer(2);

pub fn rrq(options: &[(&str, &str)]) -> Vec<u8> {
    request(1, "f", "octet", options)
}

pub fn request_of(name: &str) -> Vec<u8> {
    request(1, name, "octet", &[])
}

fn wrq(options: &[(&str, &str)]) -> Vec<u8> {
    request(2, "u", "octet", options)
}

fn data(number: u16, payload: &[u8]) -> Vec<u8> {
    [&data_header(number.into()), payload].concat()
}

/// The packets that were sent, and their peers.
#[derive(Clone, Default)]
pub struct Record(pub Rc<RefCell<Vec<(SocketAddrV4, Said)>>>);

impl Wire for Record {
    fn packet(&mut self, route: &Route, octets: &[u8]) {
        self.0.borrow_mut().push((route.peer, said(octets)));
    }

    fn blocks(&mut self, route: &Route, first: u64, blocks: &Blocks<'_>, _: &mut bool) {
        let mut payloads = blocks.payload.chunks(blocks.blksize);
        for number in first..first + blocks.count {
            let payload = payloads.next().unwrap_or_default();
            let octets = [&data_header(number), payload].concat();
            self.packet(route, &octets);
        }
    }
}

/// A dispatcher with its clock, which serves `f` and stores below `put`.
pub struct Table {
    pub start: Instant,
    pub dispatcher: Dispatcher<Record>,
    pub record: Record,
    pub scratch: Scratch,
}

impl Table {
    pub fn new(settings: ServerSettings) -> Table {
        let scratch = Scratch::new();
        scratch.file("f", &pattern(5000));
        let record = Record::default();
        let mut dispatcher = Dispatcher::new(settings, 1 << 20, record.clone());
        dispatcher.set_map(Map::new().get(scratch.get()).put(scratch.put()));
        Table {
            start: Instant::now(),
            dispatcher,
            record,
            scratch,
        }
    }

    /// Until `ms` after the start only time passes: what is sent, and to whom.
    fn until(&mut self, ms: u64) -> Vec<(SocketAddrV4, Said)> {
        let end = self.start + Duration::from_millis(ms);
        while let Some(due) = self.dispatcher.due().filter(|due| *due <= end) {
            self.dispatcher.tick(due);
        }
        self.record.0.take()
    }

    /// At `ms`, `from` sends `octets`: what is sent to it then.
    fn at(&mut self, ms: u64, from: SocketAddrV4, octets: &[u8]) -> Vec<Said> {
        let before = self.until(ms);
        assert_eq!(before, [], "before {ms} ms");
        let route = Route {
            peer: from,
            from: None,
        };
        let now = self.start + Duration::from_millis(ms);
        self.dispatcher.packet(now, route, octets);
        let sent = self.record.0.take();
        assert!(sent.iter().all(|(to, _)| *to == from), "{sent:?}");
        sent.into_iter().map(|(_, said)| said).collect()
    }

    fn events(&mut self) -> Vec<Served> {
        std::iter::from_fn(|| self.dispatcher.event()).collect()
    }
}

/// Block `number` of the file.
fn block(number: u16) -> Said {
    let start = usize::from(number - 1) * 512;
    let file = pattern(5000);
    Said::Data(number, file[start..(start + 512).min(5000)].to_vec())
}

pub fn is_error(said: &[Said], code: u16) -> bool {
    matches!(said, [Said::Error(found, _)] if *found == code)
}

#[test]
fn a_request_that_comes_late_once_more_does_not_end_its_transfer() {
    for asked in [&[][..], &[("windowsize", "1")]] {
        let mut table = Table::new(ServerSettings::default());
        let opening = if asked.is_empty() {
            block(1)
        } else {
            Said::Oack(options(asked))
        };
        assert_eq!(table.at(0, A, &rrq(asked)), std::slice::from_ref(&opening));
        if !asked.is_empty() {
            assert_eq!(table.at(1, A, &ack(0)), [block(1)]);
        }
        for number in 1..=3 {
            assert_eq!(table.at(2, A, &ack(number.into())), [block(number + 1)]);
        }
        assert_eq!(table.at(10, A, &rrq(asked)), []);
        // After a while the peer is asked whether it has begun anew.
        assert_eq!(table.until(1209), []);
        assert_eq!(table.until(1210), [(A, opening)]);
        // It has not, and answers what it has waited for.
        assert_eq!(table.at(1300, A, &ack(4)), [block(5)]);
        assert_eq!(table.at(1301, A, &ack(0)), []);
        assert_eq!(table.at(1301, A, &ack(1)), []);
        assert_eq!(table.at(1302, A, &ack(5)), [block(6)]);
        assert_eq!(table.events().len(), 1);
    }
    let mut table = Table::new(ServerSettings::default());
    assert_eq!(table.at(0, A, &wrq(&[])), [Said::Ack(0)]);
    for number in 1..=3 {
        let sent = table.at(1, A, &data(number, &pattern(512)));
        assert_eq!(sent, [Said::Ack(number)]);
    }
    assert_eq!(table.at(2, A, &wrq(&[])), []);
    assert_eq!(table.until(1202), [(A, Said::Ack(0))]);
    assert_eq!(table.at(1300, A, &data(4, b"end")), [Said::Ack(4)]);
    let stored = table.scratch.uploaded("u").map(|file| file.len());
    assert_eq!(stored, Some(1539));
}

#[test]
fn a_peer_that_begins_anew_is_believed_once_it_answers() {
    let again = rrq(&[("windowsize", "2")]);
    let mut table = Table::new(ServerSettings::default());
    let oack = Said::Oack(options(&[("windowsize", "2")]));
    assert_eq!(table.at(0, A, &again), std::slice::from_ref(&oack));
    assert_eq!(table.at(1, A, &ack(0)), [block(1), block(2)]);
    assert_eq!(table.at(2, A, &ack(2)), [block(3), block(4)]);
    // What it gets then is the file as it is then.
    fs::remove_file(table.scratch.get().join("f")).unwrap();
    table.scratch.file("f", &[7; 600]);
    assert_eq!(table.at(10, A, &again), []);
    assert_eq!(table.until(1210), [(A, oack)]);
    let new = [Said::Data(1, vec![7; 512]), Said::Data(2, vec![7; 88])];
    assert_eq!(table.at(1300, A, &ack(0)), new);
    assert_eq!(table.at(1301, A, &ack(2)), []);
    let events = table.events();
    let ends = [
        matches!(&events[1], Served::Failed { reason, .. } if reason.contains("began another")),
        matches!(events[2], Served::Requested { .. }),
        matches!(events[3], Served::Sent { size: 600, .. }),
    ];
    assert!(ends == [true; 3] && events.len() == 4, "{events:?}");

    // The upload that it replaces makes room for it.
    let mut table = Table::new(ServerSettings {
        uploads_most: 1,
        uploads_octets_most: 2000,
        ..ServerSettings::default()
    });
    assert_eq!(table.at(0, A, &wrq(&[])), [Said::Ack(0)]);
    for number in 1..=3 {
        assert_eq!(
            table.at(1, A, &data(number, &[1; 512])),
            [Said::Ack(number)]
        );
    }
    assert_eq!(table.at(2, A, &wrq(&[])), []);
    assert_eq!(table.until(1202), [(A, Said::Ack(0))]);
    for number in 1..=3 {
        let sent = table.at(1300, A, &data(number, &[2; 512]));
        assert_eq!(sent, [Said::Ack(number)]);
    }
    assert!(is_error(&table.at(1301, B, &wrq(&[])), 3));
    assert_eq!(table.at(1302, A, &data(4, b"anew")), [Said::Ack(4)]);
    assert_eq!(
        table.scratch.uploaded("u"),
        Some([&[2; 1536][..], b"anew"].concat())
    );
}

#[test]
fn a_probe_without_an_answer_ends_nothing() {
    let mut table = Table::new(ServerSettings::default());
    assert_eq!(table.at(0, A, &rrq(&[])), [block(1)]);
    assert_eq!(table.at(1, A, &ack(1)), [block(2)]);
    assert_eq!(table.at(2, A, &rrq(&[])), []);
    assert_eq!(table.until(1202), [(A, block(1))]);
    // The answer has a second; then the transfer repeats its own block.
    assert_eq!(table.until(2201), []);
    assert_eq!(table.until(2202), [(A, block(2))]);
    // A file that is gone is no reason to end what was granted.
    assert_eq!(table.at(2203, A, &ack(2)), [block(3)]);
    fs::remove_file(table.scratch.get().join("f")).unwrap();
    assert_eq!(table.at(2204, A, &rrq(&[])), []);
    assert_eq!(table.until(3404), []);
    assert_eq!(table.at(3500, A, &ack(3)), [block(4)]);
    assert_eq!(table.events().len(), 1);
}

#[test]
fn the_opening_is_repeated_until_it_is_answered() {
    let asked = [("blksize", "1024"), ("timeout", "1")];
    let mut table = Table::new(ServerSettings::default());
    // The OACK and never ACK 0, which would mean blocks of 512 octets.
    let oack = Said::Oack(options(&asked));
    assert_eq!(table.at(0, A, &rrq(&asked)), std::slice::from_ref(&oack));
    assert_eq!(table.at(0, B, &wrq(&asked)), std::slice::from_ref(&oack));
    assert_eq!(table.until(999), []);
    let mut repeated = table.until(1000);
    repeated.sort_by_key(|(to, _)| *to);
    assert_eq!(repeated, [(A, oack.clone()), (B, oack)]);
    let first = Said::Data(1, pattern(1024));
    assert_eq!(table.at(1100, A, &ack(0)), [first]);
    assert_eq!(table.at(1100, B, &data(1, b"end")), [Said::Ack(1)]);
}

#[test]
fn a_peer_that_falls_silent_is_given_up() {
    let mut table = Table::new(ServerSettings::default());
    let oack = Said::Oack(options(&[("timeout", "1")]));
    assert_eq!(
        table.at(0, A, &wrq(&[("timeout", "1")])),
        std::slice::from_ref(&oack)
    );
    let mut sent: Vec<Said> = table
        .until(60_000)
        .into_iter()
        .map(|(_, said)| said)
        .collect();
    assert_eq!(sent.pop(), Some(Said::Error(0, "timed out".to_owned())));
    assert_eq!(sent, vec![oack; 6]);
    assert_eq!(table.dispatcher.due(), None);
    let events = table.events();
    assert!(
        matches!(&events[1], Served::Failed { reason, .. } if reason.contains("silent")),
        "{events:?}"
    );
    assert!(table.scratch.names().is_empty());
}

#[test]
fn transfers_of_a_peer_are_bounded_and_the_stalled_make_room() {
    let mut table = Table::new(ServerSettings {
        transfers_of_peer_most: 4,
        ..ServerSettings::default()
    });
    // Four that are moving: no room for a fifth.
    for port in 1..=4 {
        assert_eq!(table.at(0, peer(port), &rrq(&[])), [block(1)]);
        assert_eq!(table.at(1, peer(port), &ack(1)), [block(2)]);
    }
    assert!(is_error(&table.at(2, peer(5), &rrq(&[])), 0));
    table.at(3, A, b"\0\x05\0\0enough\0");
    // One that has not answered yet does not make room for the next at once.
    assert_eq!(table.at(4, peer(6), &rrq(&[])), [block(1)]);
    for port in 10..30 {
        assert!(is_error(&table.at(900, peer(port), &rrq(&[])), 0));
    }
    // Its limit is that of its address.
    let other = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 7), 1);
    assert_eq!(table.at(901, other, &rrq(&[])), [block(1)]);
    for port in 2..=4 {
        assert_eq!(table.at(902, peer(port), &ack(2)), [block(3)]);
    }
    // But it does when its answer is overdue.
    assert!(is_error(&table.at(1000, peer(5), &rrq(&[])), 0));
    assert_eq!(table.until(1004), [(peer(6), block(1))]);
    table.events();
    assert_eq!(table.at(1005, peer(5), &rrq(&[])), [block(1)]);
    assert_eq!(table.at(1006, peer(5), &ack(1)), [block(2)]);
    let events = table.events();
    assert!(
        matches!(&events[0], Served::Failed { peer, reason, .. }
            if peer.port() == 6 && reason.contains("stalled")),
        "{events:?}"
    );
    for port in 2..=4 {
        assert_eq!(table.at(1007, peer(port), &ack(3)), [block(4)]);
    }
}

#[test]
fn a_flood_from_one_address_is_served_in_part_and_refused_in_part() {
    let mut table = Table::new(ServerSettings::default());
    for port in 1..=300 {
        let sent = table.at(0, peer(port), &rrq(&[]));
        assert!(
            sent == [block(1)] || port > 128 && is_error(&sent, 0),
            "{port}"
        );
        assert_eq!(sent == [block(1)], port <= 128);
    }
}

#[test]
fn a_late_duplicate_of_a_request_leaves_the_last_ack_to_be_had() {
    let mut table = Table::new(ServerSettings::default());
    let store = |table: &mut Table, ms, size: usize| {
        for (number, payload) in (1..).zip(pattern(size).chunks(512)) {
            let sent = table.at(ms, A, &data(number, payload));
            assert_eq!(sent, [Said::Ack(number)]);
        }
        assert_eq!(table.scratch.uploaded("u"), Some(pattern(size)));
    };
    assert_eq!(table.at(0, A, &wrq(&[])), [Said::Ack(0)]);
    store(&mut table, 1, 1000);
    assert_eq!(table.at(2, A, &wrq(&[])), [Said::Ack(0)]);
    for ms in 3..6 {
        let last = data(2, &pattern(1000)[512..]);
        assert_eq!(table.at(ms, A, &last), [Said::Ack(2)]);
    }
    // It may have been another upload after all.
    store(&mut table, 6, 1200);
}

#[test]
fn requests_beyond_the_rate_get_no_answer_until_there_is_room() {
    let mut table = Table::new(ServerSettings {
        requests: Some(Rate {
            burst: 3,
            per_second: 1,
        }),
        ..ServerSettings::default()
    });
    for port in 1..=3 {
        assert_eq!(table.at(0, peer(port), &rrq(&[])), [block(1)]);
        // Coming again is no request of its own.
        for _ in 0..5 {
            assert_eq!(table.at(0, peer(port), &rrq(&[])), []);
        }
    }
    // Neither an answer nor a file; asking again helps.
    for ms in [1, 500, 999] {
        assert_eq!(table.at(ms, peer(4), &wrq(&[])), []);
    }
    assert_eq!(table.dispatcher.counters().requests_dropped, 3);
    assert_eq!(table.until(1000).len(), 3);
    assert_eq!(table.at(1000, peer(4), &wrq(&[])), [Said::Ack(0)]);
}

#[test]
fn the_tail_of_an_error_does_not_start_another_one() {
    let mut table = Table::new(ServerSettings::default());
    let nothing = request(1, "nothing", "octet", &[]);
    let refused = [Said::Error(1, "file not found".to_owned())];
    assert_eq!(table.at(0, A, &nothing), refused);
    // tftp-hpa's client acknowledges the ERROR.
    assert_eq!(table.at(1, A, &ack(0)), []);
    // A peer that goes on has not got it: it is told again, twice a second at most.
    assert_eq!(table.at(500, A, &ack(0)), refused);
    assert_eq!(table.at(501, A, &ack(0)), []);
    // But the request may be repeated.
    assert_eq!(table.at(502, A, &nothing), refused);
    // It is forgotten after ten seconds.
    assert!(is_error(&table.at(10_503, A, &ack(0)), 5));
}
