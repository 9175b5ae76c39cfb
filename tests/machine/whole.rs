//! The parts together, as the agent will use them: tap, redirect, TFTP server
//! and machine in one wait; a bootstrap, then a build on the same disk.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

use bbot_agent::machine::{Event, Purpose, ShutdownReason, VirtualMachine};
use bbot_agent::network::{Bridge, Netfilter, Redirect, Tap, Target};
use bbot_agent::settings::RedirectKind;
use bbot_agent::tftp::{Map, Served, ServerSettings, TftpServer};

use super::{boot, soon, spec, wait_for};
use crate::support::{TempDir, guest, isolated, skip};

/// Serves until `name` was uploaded. Returns its path.
fn serve(server: &mut TftpServer, machine: &mut VirtualMachine, name: &str) -> std::path::PathBuf {
    let deadline = soon();
    loop {
        while let Some(event) = machine.handle(Instant::now()) {
            assert!(
                !matches!(event, Event::Exited { .. }),
                "{event:?}: {:#?}",
                machine.evidence()
            );
        }
        let served = server.serve(Some(deadline), &machine.fds()).unwrap();
        match served {
            Served::Uploaded { upload, .. } if upload.name == name => return upload.path,
            Served::Deadline => panic!("no {name}: {:#?}", machine.evidence()),
            _ => {}
        }
    }
}

#[test]
fn a_machine_is_bootstrapped_and_then_builds() {
    isolated(|| {
        if let Err(why) = guest::image() {
            return skip(why);
        }
        let _turn = guest::turn();
        let dir = TempDir::new();
        let mut spec = spec(&dir, Path::new(guest::QEMU));
        guest::install(&spec.directory, "");
        guest::bridge("br1");
        let bridge = Bridge::probe("br1").unwrap();
        let strategy = match Redirect::probe(RedirectKind::Auto, &bridge) {
            Ok(strategy) => strategy,
            Err(error) => return skip(&error.to_string()),
        };
        let [get, put] = ["get", "put"].map(|name| dir.path().join(name));
        for directory in [&get, &put] {
            fs::create_dir(directory).unwrap();
        }
        guest::offer_worker(&get);

        let netfilter = Netfilter::default();
        let mut run = |purpose, map: Map, upload: &str| {
            spec.purpose = purpose;
            let tap = Tap::open(&bridge, &spec.tap).unwrap();
            let mut server =
                TftpServer::bind(strategy.server_address(&bridge), ServerSettings::default())
                    .unwrap();
            server.set_map(map);
            let address: SocketAddrV4 = server.local_addr().unwrap();
            let target = Target {
                bridge: &bridge,
                tap: &tap,
                mac: Some(spec.mac),
                server: address,
                owner: "test",
                netfilter: &netfilter,
                group: &[],
            };
            let redirect = Redirect::install(strategy, &target).unwrap();
            let mut machine = boot(&spec, tap.fd(), soon()).unwrap();
            let path = serve(&mut server, &mut machine, upload);
            if purpose != Purpose::Build {
                machine.power_down(Instant::now());
                let end = wait_for(&mut machine, "end", |e| matches!(e, Event::Exited { .. }));
                let Event::Exited { reason, .. } = end else {
                    unreachable!()
                };
                assert_eq!(reason, Some(ShutdownReason::GuestShutdown));
            } else {
                let begun = Instant::now();
                machine.force_down().unwrap();
                assert!(begun.elapsed() < Duration::from_secs(2), "not in peace");
            }
            redirect.close().unwrap();
            fs::read_to_string(path).unwrap()
        };

        let bootstrapped = run(
            Purpose::Bootstrap { reboots: 0 },
            Map::new().get(&get).put(&put),
            "manifest",
        );
        assert!(bootstrapped.contains("libbbot-version: 0.17.0\n"));

        fs::remove_file(put.join("manifest")).unwrap();
        let task = ": 1\nname: libfoo\nversion: 1.2.3\nmachine: linux-gcc\n";
        let map = Map::new().contents("manifest", task.as_bytes()).put(&put);
        let result = run(Purpose::Build, map, "manifest");
        assert!(result.contains("name: libfoo\nversion: 1.2.3\nstatus: success\n"));
        // What the bootstrap wrote to the disk is there.
        assert!(
            result.contains("bootstrapped as 52:54:00:00:01:02\n"),
            "{result}"
        );
    });
}
