//! Guests that attack: what they do comes to nothing, ends within its limits,
//! leaves nothing, and the agent goes on to the next task.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::host::{Host, TURN, ended, names};
use crate::support::{guest, isolated, run};

const MACHINE: &str = "linux-gcc";

/// What could be left behind: snapshots, files of the exchange, interfaces.
fn inventory(host: &Host) -> Vec<String> {
    let mut all = host.subvolumes(MACHINE);
    all.extend(names(&host.path("tftp/build")));
    all.extend(names(&host.path("tftp")));
    let links = run("ip -o link");
    all.extend(
        links
            .lines()
            .filter_map(|line| line.split(": ").nth(1).map(str::to_owned)),
    );
    all
}

/// One bootstrapped machine takes these tasks, each in a turn of its own. All
/// but the last two end in an honest build of the same guest, which succeeds.
#[test]
fn attacks_from_inside_a_build_come_to_nothing() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped(MACHINE, "");
        let clean = inventory(&host);
        for (attack, status) in [
            ("traverse", "success"),
            ("huge", "success"),
            ("endless", "success"),
            ("flood", "success"),
            ("forge", "success"),
            ("chatty", "success"),
            // Its log is in the result, without what a terminal would obey.
            ("colours", "error"),
            // Its uploads are used up, also for the honest one.
            ("many", "abort"),
        ] {
            host.task(attack, MACHINE, &format!("target-config: mode={attack}\n"));
            let ran = host.run(&["--once", "--build-timeout", "60"]);
            assert_eq!(ran.code, Some(0), "{attack}: {}", ran.err);
            let result = host.result(attack).unwrap_or_default();
            assert!(
                result.contains(&format!("\nstatus: {status}\n")),
                "{attack}: {result}\n{}",
                ran.err
            );
            for text in [&result, &ran.err] {
                assert!(!text.contains('\u{1b}'), "{attack}: {text}");
            }
            let mut left = inventory(&host);
            left.retain(|name| !clean.contains(name) && name != "build");
            assert!(left.is_empty(), "left by {attack}: {left:?}");
        }
        assert!(!Path::new("/etc/owned").exists());
        assert!(!host.path("tftp/manifest").exists());
    });
}

/// The port of the only TFTP server that there is.
fn server_port() -> Option<u16> {
    // proc(5): the address in the machine's order, the port.
    let local = format!("{:08X}:", u32::from_ne_bytes(guest::BRIDGE.0));
    let sockets = fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    sockets
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.strip_prefix(&local))
        .find_map(|port| u16::from_str_radix(port, 16).ok())
}

#[test]
fn a_guest_gets_nothing_from_the_server_of_another_one() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped(MACHINE, "");
        // On one bridge, so with an address of its own.
        host.add_bootstrapped("attacker", "");
        let manifest = host.machine("attacker").join("attacker-default/manifest");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("00:01:02", "00:03:04")).unwrap();

        // The victim's guest has its task and keeps quiet.
        host.task("victim", MACHINE, "target-config: mode=stall\n");
        let mut victim = host.agent(&["--build-timeout", "900"]);
        victim.arg(host.path("controller"));
        let mut victim = host.start(victim, "victim.log");
        let console = host.path("run/default-1/console.log");
        let deadline = Instant::now() + TURN;
        while !fs::read_to_string(&console).is_ok_and(|text| text.contains("stalled")) {
            assert!(
                Instant::now() < deadline,
                "{}",
                fs::read_to_string(host.path("victim.log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let port = server_port().expect("the victim's server");

        // Another instance, with a guest of its own on the same bridge.
        let config = format!("target-config: mode=peer port={port}\n");
        host.task("attacker", "attacker", &config);
        let ran = host.run(&["--once", "--instance", "2"]);
        let result = host.result("attacker").unwrap_or_default();
        assert!(result.contains("\nstatus: success\n"), "{}", ran.err);

        // An upload would have ended the victim's build.
        assert!(victim.0.try_wait().unwrap().is_none());
        assert_eq!(host.result("victim"), None);

        // Told to stop it does, at once, and leaves nothing.
        let pid = Pid::from_raw(i32::try_from(victim.0.id()).unwrap());
        let told = Instant::now();
        kill(pid, Signal::SIGTERM).unwrap();
        assert_eq!(ended(&mut victim, TURN), Some(0));
        assert!(told.elapsed() < Duration::from_secs(5));
        assert!(names(&host.path("tftp/build")).is_empty());
        assert!(!run("ip -o link").contains("master br1"));
    });
}
