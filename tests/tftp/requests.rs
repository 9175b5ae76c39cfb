//! Requests on the wire: options, names, peers and addresses.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use bbot_agent::tftp::{Map, Served, ServerSettings, TftpServer};

use super::setup;
use crate::support::tftp::{Client, Scratch, Server, options, pattern, request};

#[test]
fn options_are_granted_in_any_case_and_order_and_only_when_asked_for() {
    let (_scratch, server) = setup(&[("f", 5000)]);
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Pairs<'_>, Pairs<'_>)] = &[
        (&[("blksize", "1428")], &[("blksize", "1428")]),
        (&[("BLKSIZE", "1428")], &[("blksize", "1428")]),
        (&[("tsize", "0")], &[("tsize", "5000")]),
        (&[("timeout", "5")], &[("timeout", "5")]),
        (&[("windowsize", "4")], &[("windowsize", "4")]),
        (&[("windowsize", "65535")], &[("windowsize", "64")]),
        (
            &[
                ("TimeOut", "5"),
                ("tSize", "0"),
                ("blkSize", "65464"),
                ("windowSIZE", "2"),
            ],
            &[
                ("timeout", "5"),
                ("tsize", "5000"),
                ("blksize", "65464"),
                ("windowsize", "2"),
            ],
        ),
        // What is wrong, unknown or repeated does not kill what is right.
        (
            &[
                ("blksize", "abc"),
                ("tsize", "0"),
                ("rollover", "0"),
                ("utimeout", "5"),
            ],
            &[("tsize", "5000")],
        ),
        (&[("blksize", "7"), ("tsize", "0")], &[("tsize", "5000")]),
        (
            &[("blksize", "65465"), ("tsize", "0")],
            &[("tsize", "5000")],
        ),
        (&[("timeout", "0"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("timeout", "256"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("timeout", "3000"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("windowsize", "0"), ("tsize", "0")], &[("tsize", "5000")]),
        (
            &[("windowsize", "65536"), ("tsize", "0")],
            &[("tsize", "5000")],
        ),
        (&[("blksize", "+512"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("blksize", "-1"), ("tsize", "0")], &[("tsize", "5000")]),
        (&[("blksize", ""), ("tsize", "0")], &[("tsize", "5000")]),
        (
            &[("blksize", "99999999999999999999999"), ("tsize", "0")],
            &[("tsize", "5000")],
        ),
        (
            &[("blksize", "1024"), ("blksize", "512"), ("BLKSIZE", "8")],
            &[("blksize", "1024")],
        ),
    ];
    for (asked, granted) in cases {
        let client = server.client();
        client.rrq("f", asked);
        assert_eq!(client.hear_oack(), options(granted), "{asked:?}");
        client.error(0, "enough");
    }
    // Nothing acceptable: no OACK, not even an empty one.
    for asked in [("blksize", "0"), ("foo", "1"), ("timeout", "x")] {
        let client = server.client();
        client.rrq("f", &[asked]);
        assert_eq!(client.hear_data(1).len(), 512, "{asked:?}");
        client.error(0, "enough");
    }
}

#[test]
fn every_block_size_is_granted_in_full() {
    let (scratch, server) = setup(&[("f", 200_000)]);
    for blksize in [8, 9, 511, 1428, 1468, 8192, 32768, 65463, 65464] {
        let client = server.client();
        let text = blksize.to_string();
        client.rrq("f", &[("blksize", &text)]);
        assert_eq!(client.hear_oack(), options(&[("blksize", &text)]));
        client.ack(0);
        assert!(client.rest(blksize) == pattern(200_000), "{blksize}");
        let client = server.client();
        client.wrq("f", &[("blksize", &text)]);
        assert_eq!(client.hear_oack(), options(&[("blksize", &text)]));
        client.store(blksize, &pattern(200_000));
        assert!(scratch.uploaded("f") == Some(pattern(200_000)), "{blksize}");
    }
}

#[test]
fn curl_gets_an_empty_file_without_a_tsize_that_it_takes_for_an_error() {
    let (_scratch, server) = setup(&[("empty", 0)]);
    let client = server.client();
    client.rrq(
        "empty",
        &[("tsize", "0"), ("blksize", "512"), ("timeout", "6")],
    );
    assert_eq!(
        client.hear_oack(),
        options(&[("blksize", "512"), ("timeout", "6")])
    );
    client.error(0, "enough");
    let client = server.client();
    client.rrq("empty", &[("blksize", "512"), ("tsize", "0")]);
    assert_eq!(
        client.hear_oack(),
        options(&[("blksize", "512"), ("tsize", "0")])
    );
}

#[test]
fn an_announced_size_of_zero_means_unknown() {
    let (scratch, server) = setup(&[]);
    let client = server.client();
    client.wrq("f", &[("tsize", "0")]);
    assert_eq!(client.hear_oack(), options(&[("tsize", "0")]));
    client.store(512, &pattern(3000));
    assert!(scratch.uploaded("f") == Some(pattern(3000)));
}

#[test]
fn malformed_requests_are_refused_or_ignored_and_never_crash() {
    let (_scratch, server) = setup(&[("f", 10)]);
    let cases: &[(&[u8], Option<u16>)] = &[
        (b"\0\x01", Some(4)),
        (b"\0\x01f", Some(4)),
        (b"\0\x01f\0", Some(4)),
        (b"\0\x01\0octet\0", Some(2)),
        (b"\0\x01f\0mail\0", Some(4)),
        (b"\0\x02f\0MAIL\0", Some(4)),
        (b"\0\x01f\0\0", Some(4)),
        (b"\0\x01f\0octe\0", Some(4)),
        (b"\0\x01\xff\xfe\0octet\0", Some(2)),
        (b"\0\x00f\0octet\0", Some(4)),
        (b"\0\x07f\0octet\0", Some(4)),
        (b"\xff\xfff\0octet\0", Some(4)),
        (b"\x01\x00f\0octet\0", Some(4)),
        (b"", None),
        (b"\0", None),
        (b"\0\x03", None),
        (b"\0\x03\0", None),
        (b"\0\x04\0", None),
        (b"\0\x05", None),
        (b"\0\x05\0\0", None),
        (b"\0\x05\0\x63what\0", None),
    ];
    for (octets, code) in cases {
        let client = server.client();
        client.send(octets);
        match code {
            Some(code) => assert_eq!(client.hear_error().0, *code, "{octets:?}"),
            None => client.hear_nothing(),
        }
    }
    let client = server.client();
    client.send(&request(1, &"x".repeat(600), "octet", &[]));
    assert_eq!(client.hear_error().0, 4);
    // Only one meaning is possible: no NUL after the mode, padding, half an option.
    for octets in [
        &b"\0\x01f\0octet"[..],
        b"\0\x01f\0OCTET\0\0\0\0\0",
        b"\0\x01f\0octet\0blksize",
        b"\0\x01f\0octet\0blksize\0",
        b"\0\x01f\0octet\0blksize\x00102",
    ] {
        let client = server.client();
        client.send(octets);
        assert_eq!(client.hear_data(1), pattern(10));
        client.ack(1);
    }
}

#[test]
fn a_request_that_comes_twice_is_one_transfer() {
    let (scratch, server) = setup(&[("f", 1000)]);
    let client = server.client();
    client.rrq("f", &[]);
    client.rrq("f", &[]);
    client.hear_data(1);
    client.hear_nothing();
    client.ack(1);
    client.hear_data(2);
    client.ack(2);

    client.wrq("f", &[]);
    client.hear_ack(0);
    client.wrq("f", &[]);
    client.hear_ack(0);
    client.data(1, &pattern(512));
    client.hear_ack(1);
    // Even in the midst of it, if the upload goes on.
    client.wrq("f", &[]);
    client.hear_nothing();
    client.data(2, b"end");
    client.hear_ack(2);
    assert!(scratch.uploaded("f") == Some([&pattern(512)[..], b"end"].concat()));
}

#[test]
fn a_port_can_be_used_again_at_once() {
    let (scratch, server) = setup(&[("f", 5000), ("g", 100)]);
    let client = server.client();
    client.rrq("f", &[]);
    client.hear_data(1);
    client.ack(1);
    client.hear_data(2);
    // Another file.
    client.rrq("g", &[]);
    assert_eq!(client.hear_data(1), pattern(100));
    client.ack(1);
    client.hear_nothing();
    // The same file from the start, twice in the midst of it.
    for _ in 0..2 {
        client.rrq("f", &[]);
        client.hear_data(1);
        client.ack(1);
        client.hear_data(2);
    }
    client.rrq("f", &[]);
    assert!(client.rest(512) == pattern(5000));
    for text in [&b"one"[..], b"two"] {
        client.wrq("u", &[]);
        client.hear_ack(0);
        client.store(512, text);
        assert_eq!(scratch.uploaded("u").as_deref(), Some(text));
    }
}

#[test]
fn contents_in_memory_hide_files_and_other_names_are_not_found() {
    let scratch = Scratch::new();
    scratch.file("a", b"file");
    scratch.file("b", b"file");
    let second = Scratch::new();
    second.file("b", b"second");
    second.file("c", b"second");
    let map = Map::new()
        .contents("a", pattern(2000))
        .get(scratch.get())
        .get(second.get());
    let server = Server::mapped(map, ServerSettings::default());
    for (name, octets) in [
        ("a", pattern(2000)),
        ("b", b"file".to_vec()),
        ("c", b"second".to_vec()),
    ] {
        let client = server.client();
        client.rrq(name, &[]);
        assert!(client.rest(512) == octets, "{name}");
    }
    let client = server.client();
    client.rrq("d", &[]);
    assert_eq!(client.hear_error().0, 1);
    client.wrq("d", &[]);
    assert_eq!(client.hear_error().0, 2);
    let empty = Server::mapped(Map::new(), ServerSettings::default());
    let client = empty.client();
    client.rrq("d", &[]);
    assert_eq!(client.hear_error().0, 2);
}

#[test]
fn a_peer_that_is_not_accepted_hears_nothing() {
    let scratch = Scratch::new();
    scratch.file("f", b"x");
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let mut server = TftpServer::bind(address, ServerSettings::default()).unwrap();
    server.set_map(Map::new().get(scratch.get()));
    server.set_accept(Box::new(|peer| *peer.ip() == Ipv4Addr::new(127, 0, 0, 7)));
    let server = Server::run(server);
    let stranger = server.client();
    stranger.rrq("f", &[]);
    stranger.ack(1);
    stranger.hear_nothing();
    let guest = Client {
        socket: UdpSocket::bind("127.0.0.7:0").unwrap(),
        server: server.address,
    };
    guest.rrq("f", &[]);
    assert_eq!(guest.hear_data(1), b"x");
}

#[test]
fn it_answers_from_the_address_that_was_asked_and_ignores_broadcast() {
    let scratch = Scratch::new();
    scratch.file("f", b"x");
    let map = Map::new().get(scratch.get());
    let server = Server::at(Ipv4Addr::UNSPECIFIED, map, ServerSettings::default());
    let port = server.address.port();
    for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 1, 2, 3)] {
        let client = Client::new(SocketAddrV4::new(ip, port));
        client.rrq("f", &[]);
        assert_eq!(client.hear_data(1), b"x");
        client.ack(1);
    }
    let client = Client::new(SocketAddrV4::new(Ipv4Addr::new(127, 255, 255, 255), port));
    client.socket.set_broadcast(true).unwrap();
    client.rrq("f", &[]);
    client.hear_nothing();
}

#[test]
fn the_deadline_and_other_descriptors_end_a_wait() {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let mut server = TftpServer::bind(address, ServerSettings::default()).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (idle, _idle) = std::io::pipe().unwrap();
    let others = [idle.as_fd(), reader.as_fd()];
    let now = Instant::now();
    assert_eq!(server.serve(Some(now), &others).unwrap(), Served::Deadline);
    let soon = Instant::now() + Duration::from_millis(30);
    assert_eq!(server.serve(Some(soon), &others).unwrap(), Served::Deadline);
    assert!(Instant::now() >= soon);
    writer.write_all(b"x").unwrap();
    assert_eq!(server.serve(None, &others).unwrap(), Served::Ready(1));
}
