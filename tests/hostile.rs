//! Guests that attack: what they do comes to nothing, is over within its
//! limits, leaves nothing, and the agent goes on to the next task.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::world::World;
use crate::support::{eventually, isolated};

/// One bootstrapped machine takes these tasks, each in a turn of its own. All
/// but the last two end in an honest build of the same guest, which succeeds.
#[test]
fn attacks_from_inside_a_build_come_to_nothing() {
    isolated(|| {
        let Some(world) = World::new("") else { return };
        world.turn(&[]).succeeded();
        let clean = world.inventory();
        for (attack, status) in [
            ("traverse", "success"),
            ("huge", "success"),
            ("endless", "success"),
            ("flood", "success"),
            ("forge", "success"),
            ("chatty", "success"),
            // What it says without them is in the result.
            ("escapes", "error"),
            // Its uploads are used up, also for the honest one.
            ("many", "abort"),
        ] {
            world.task(attack, &format!("target-config: mode={attack}\n"));
            let turn = world.turn(&["--build-timeout", "45"]);
            turn.succeeded();
            let result = world.result(attack).unwrap_or_default();
            assert!(
                result.contains(&format!("\nstatus: {status}\n")),
                "{attack}: {result}\n{}",
                turn.said()
            );
            for text in [&result, &turn.said()] {
                assert!(!text.contains('\u{1b}'), "{attack}: {text}");
            }
            assert_eq!(world.inventory(), clean, "left by {attack}");
            eprintln!("{attack}: {:.1} s", turn.took.as_secs_f64());
        }
        for owned in [
            "/etc/owned",
            "/mnt/owned",
            "/mnt/tftp/owned",
            "/mnt/manifest",
        ] {
            assert!(!Path::new(owned).exists(), "{owned}");
        }
    });
}

#[test]
fn a_guest_gets_nothing_from_the_server_of_another_one() {
    isolated(|| {
        let Some(world) = World::new("") else { return };
        let other = ["--toolchain-name", "other"];
        world.turn(&[]).succeeded();
        world.turn(&other).succeeded();
        let clean = world.inventory();

        // The victim's guest has its task and keeps quiet.
        world.task("victim", "target-config: mode=stall\n");
        let mut victim = world.start(&["--build-timeout", "600"]);
        let console = world.path("run/default-1/console.log");
        let deadline = Instant::now() + Duration::from_secs(120);
        while !fs::read_to_string(&console).is_ok_and(|text| text.contains("stalled")) {
            assert!(Instant::now() < deadline, "the victim does not stall");
            std::thread::sleep(Duration::from_millis(50));
        }
        let port = world.server_port().expect("the victim's server");

        let config = format!("target-config: mode=peer port={port}\n");
        world.task("attacker", &config);
        let turn = world.turn(&other);
        turn.succeeded();
        let result = world.result("attacker").unwrap_or_default();
        assert!(result.contains("\nstatus: success\n"), "{}", turn.said());

        // An upload would have ended the victim's build.
        assert!(victim.0.try_wait().unwrap().is_none());
        assert_eq!(world.result("victim"), None);
        let mut stolen = Vec::new();
        for (directory, name) in [
            ("build/other-1/put", "stolen"),
            ("build/default-1/put", "manifest"),
        ] {
            let path = world.path("tftp").join(directory).join(name);
            stolen.extend(path.exists().then_some(path));
        }
        assert!(stolen.is_empty(), "{stolen:?}");

        // And told to stop, it does at once, and leaves nothing.
        let pid = Pid::from_raw(i32::try_from(victim.0.id()).unwrap());
        let told = Instant::now();
        kill(pid, Signal::SIGTERM).unwrap();
        let mut status = None;
        eventually("the victim's end", || {
            status = victim.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()));
        assert!(told.elapsed() < Duration::from_secs(5));
        assert_eq!(world.inventory(), clean);
    });
}
