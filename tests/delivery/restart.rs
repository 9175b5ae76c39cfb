//! Results and tasks across restarts, of the agent and of the host.

use std::fs;
use std::time::Duration;

use bbot_agent::delivery::TaskRecord;

use super::{Agent, EXPIRY, TASK, key, now, sent, stored};
use crate::support::brep::{Brep, Setup};
use crate::support::host::names;
use crate::support::{TempDir, require_programs};

#[test]
fn a_result_survives_restarts_and_is_sent_once() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let url = brep.url();
    for round in 1..=3 {
        let mut agent = Agent::new(scratch.path(), &url, None);
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, None);
        brep.state().moods = vec![502; round];
        assert_eq!(agent.deliver().sent, 0);
    }
    let mut agent = Agent::new(scratch.path(), &url, None);
    assert!(agent.unfinished.is_empty());
    assert_eq!(agent.deliver(), sent(3));
    let agent = Agent::new(scratch.path(), &url, None);
    assert!(agent.unfinished.is_empty());
    assert!(brep.state().builds.iter().all(|b| b.result.is_some()));
    assert!(brep.state().ignored.is_empty());
}

#[test]
fn what_is_too_late_is_set_aside() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    agent.perform(&assignment, None);
    drop(agent);
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    let later = now().uptime + EXPIRY + Duration::from_secs(2);
    brep.state().result_moods = vec![502];
    let delivery = agent.deliver_at(later);
    assert_eq!((delivery.aside, delivery.waiting), (1, 0));
    assert!(brep.state().builds[0].result.is_none());
    assert_eq!(agent.deliver(), sent(0));
}

#[test]
fn a_wall_clock_that_is_wrong_loses_no_result() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = now().wall;
    let brep = Brep::start(Setup::default());
    for wall in [Duration::ZERO, now - YEAR, now, now + YEAR] {
        for restarted in [false, true] {
            let scratch = TempDir::new();
            let mut agent = Agent::new(scratch.path(), &brep.url(), None);
            agent.wall = Some(wall);
            brep.queue(TASK);
            let assignment = agent.task().unwrap();
            agent.perform(&assignment, None);
            if restarted {
                agent = Agent::new(scratch.path(), &brep.url(), None);
            }
            // A failure at the wrong time does not give it up.
            brep.state().result_moods = vec![502];
            assert_eq!(agent.deliver().waiting, 1, "{wall:?}");
            assert_eq!(agent.deliver(), sent(1), "{wall:?}");
        }
    }
}

#[test]
fn a_result_of_an_earlier_boot_is_as_old_as_this_one() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    agent.perform(&assignment, None);
    let path = stored(scratch.path());
    let text = fs::read_to_string(&path).unwrap();
    let (before, after) = text.split_once(r#""boot":""#).unwrap();
    fs::write(&path, format!(r#"{before}"boot":"x{after}"#)).unwrap();
    for (uptime, waiting) in [(EXPIRY, 1), (EXPIRY * 2, 0)] {
        // Each start of a timer sees it for the first time.
        let mut agent = Agent::new(scratch.path(), &brep.url(), None);
        brep.state().result_moods = vec![502];
        let delivery = agent.deliver_at(uptime);
        assert_eq!((delivery.waiting, delivery.aside), (waiting, 1 - waiting));
    }
}

#[test]
fn a_result_that_a_power_cut_brings_back_is_not_sent_again() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    agent.perform(&assignment, None);
    let path = stored(scratch.path());
    let text = fs::read(&path).unwrap();
    for restarted in [false, true] {
        assert_eq!(agent.deliver(), sent(usize::from(!restarted)));
        fs::write(&path, &text).unwrap();
        if restarted {
            agent = Agent::new(scratch.path(), &brep.url(), None);
        }
        assert_eq!(agent.deliver(), sent(0));
        assert!(!path.exists());
        assert!(agent.unfinished.is_empty());
    }
    let state = brep.state();
    assert!(state.ignored.is_empty() && state.refused.is_empty());
}

#[test]
fn a_result_that_is_out_of_reach_for_now_stays_and_so_does_the_task() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    let task = agent.record(&assignment);
    agent.perform(&assignment, None);
    let path = stored(scratch.path());
    let away = scratch.path().join("away");
    fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    // As if the power had gone before the journal knew of the result.
    let other = TaskRecord {
        session: "/other".to_owned(),
        ..task
    };
    agent.delivery.accept(&other).unwrap();
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    assert!(agent.unfinished.is_empty());
    let delivery = agent.deliver();
    assert_eq!((delivery.waiting, delivery.aside), (1, 0));
    fs::rename(&away, &path).unwrap();
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    assert_eq!(agent.unfinished.len(), 1);
    assert_eq!(agent.deliver(), sent(1));
    assert_eq!(
        fs::read_dir(scratch.path().join("aside")).unwrap().count(),
        0
    );
}

#[test]
fn a_task_under_way_when_the_agent_died_is_interrupted() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let (private, public) = key(scratch.path(), "agent");
    let brep = Brep::start(Setup {
        keys: vec![public],
        ..Setup::default()
    });
    let state = scratch.path().join("state");
    for legacy in [false, true] {
        brep.queue(TASK);
        let mut agent = Agent::new(&state, &brep.url(), Some(&private));
        let assignment = agent.task().unwrap();
        let record = agent.record(&assignment);
        agent.delivery.accept(&record).unwrap();
        agent.delivery.start(&record).unwrap();
        drop(agent);

        let mut agent = Agent::with(&state, &brep.url(), Some(&private), legacy);
        let [unfinished] = agent.unfinished.as_slice() else {
            panic!("{:?}", agent.unfinished);
        };
        assert!(unfinished.started);
        let task = unfinished.task.clone();
        agent.give_back(&task);
        assert_eq!(agent.deliver(), sent(1));
        let agent = Agent::new(&state, &brep.url(), Some(&private));
        assert!(agent.unfinished.is_empty());
    }
    let state = brep.state();
    assert!(state.ignored.is_empty(), "{:?}", state.ignored);
    let status = |i: usize| state.builds[i].result.clone().unwrap();
    assert!(status(0).contains("status: interrupt\n"), "{}", status(0));
    assert!(status(1).contains("status: abort\n"), "{}", status(1));
}

#[test]
fn items_that_cannot_be_moved_keep_no_result_from_being_sent() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    for _ in 0..2 {
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, None);
    }
    drop(agent);
    let results = scratch.path().join("results");
    let first = names(&results).remove(0);
    fs::write(results.join(&first), "rubbish").unwrap();
    // A file in the way of where it is set aside, and a directory that is named as a
    // file that a crash left incomplete.
    fs::write(scratch.path().join(format!("aside/.{first}")), "").unwrap();
    fs::create_dir(results.join(".x.partial")).unwrap();
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    for sent in [1, 0] {
        assert_eq!(agent.deliver().sent, sent);
        assert!(results.join(&first).exists());
    }
}
