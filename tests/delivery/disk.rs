//! The state directory: damage, and a full disk.

use std::fs;

use super::{Agent, TASK, sent, stored};
use crate::support::brep::{Brep, Setup};
use crate::support::{TempDir, isolated, require_root};

#[test]
fn a_stored_result_that_was_tampered_with_is_not_sent() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    // The envelope is the first line, the text is what follows.
    for (name, from, to) in [("text", "1.2.3", "1.2.4"), ("envelope", "{", "[")] {
        let state = scratch.path().join(name);
        let mut agent = Agent::new(&state, &brep.url(), None);
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, None);
        let stored = stored(&state);
        let text = fs::read_to_string(&stored).unwrap();
        let at = match name {
            "text" => text.rfind(from).unwrap(),
            _ => text.find(from).unwrap(),
        };
        fs::write(
            &stored,
            text[..at].to_owned() + &text[at..].replacen(from, to, 1),
        )
        .unwrap();
        agent.deliver();
        assert_eq!(agent.deliver(), sent(0));
        assert_eq!(fs::read_dir(state.join("aside")).unwrap().count(), 1);
    }
    assert!(brep.state().builds.iter().all(|b| b.result.is_none()));
}

#[test]
fn the_last_result_fits_on_a_full_disk() {
    if !require_root() {
        return;
    }
    let scratch = TempDir::new();
    let path = scratch.path().to_owned();
    isolated(move || {
        let state = path.join("disk");
        fs::create_dir(&state).unwrap();
        nix::mount::mount(
            Some("none"),
            &state,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=24m"),
        )
        .unwrap();
        let brep = Brep::start(Setup::default());
        let mut agent = Agent::new(&state, &brep.url(), None);
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        assert_eq!(fs::metadata(state.join("reserve")).unwrap().len(), 16 << 20);
        // Somebody fills the rest.
        let filler = state.join("filler");
        let full = fs::write(&filler, vec![0; 24 << 20]).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(nix::libc::ENOSPC));
        agent.perform(&assignment, None);
        assert!(!state.join("reserve").exists());
        assert_eq!(agent.deliver(), sent(1));
        assert!(brep.state().builds[0].result.is_some());
        // And the reserve is back as soon as there is room for it.
        fs::remove_file(filler).unwrap();
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, None);
        assert_eq!(agent.deliver(), sent(1));
        assert_eq!(fs::metadata(state.join("reserve")).unwrap().len(), 16 << 20);
    });
}
