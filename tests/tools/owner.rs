//! An agent's resource, held until this process is killed: tests look at what is
//! left of it.
//!
//!   owner redirect <directory>     a tap bb-1 on br1 and its rules
//!   owner scratch <subvolume>      a scratch snapshot, and a child of this process
//!
//! A file `ready` says that the resource is there.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use bbot_agent::network::{Bridge, Mac, Netfilter, Redirect, Strategy, Tap, Target};
use bbot_agent::snapshot::Snapshot;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, path] = &args[..] else {
        panic!("owner redirect|scratch <path>")
    };
    match kind.as_str() {
        "redirect" => redirect(Path::new(path)),
        _ => scratch(Path::new(path)),
    }
}

fn redirect(dir: &Path) {
    let bridge = Bridge::probe("br1").unwrap();
    let tap = Tap::open(&bridge, "bb-1").unwrap();
    let server = UdpSocket::bind(Strategy::Nft.server_address(&bridge)).unwrap();
    let SocketAddr::V4(server) = server.local_addr().unwrap() else {
        panic!("not IPv4")
    };
    let target = Target {
        bridge: &bridge,
        tap: &tap,
        mac: Some(Mac([0x52, 0x54, 0, 0, 0, 1])),
        server,
        owner: "test-1",
        netfilter: &Netfilter::default(),
        group: &[],
    };
    let _redirect = Redirect::install(Strategy::Nft, &target).unwrap();
    fs::write(dir.join("ready"), "").unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

fn scratch(source: &Path) {
    let snapshot = Snapshot::scratch(source, &source.with_file_name("a-b-gcc")).unwrap();
    // A child that outlives its parent must not keep the lock.
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(snapshot.path().join("ready"), child.id().to_string()).unwrap();
    let _ = child.wait();
}
