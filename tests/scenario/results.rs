//! Results whose controller is out of reach.

use bbot_agent::manifest::ResultStatus;

use super::{HOUR, MINUTE, Offers, Script, out_of_reach, play, play_from, success};
use crate::support::TempDir;

/// A controller with one task in each of `at`.
fn tasks(at: Vec<u64>) -> impl FnMut(u64) -> Offers {
    let mut left = at;
    move |now| match left.first() {
        Some(at) if now >= *at => {
            left.remove(0);
            Offers::Task("linux", "")
        }
        _ => Offers::Nothing,
    }
}

#[test]
fn results_wait_for_their_controller_and_the_others_go_on() {
    const BACK: u64 = 2 * HOUR;
    let mut script = Script::new()
        .controller(tasks(vec![0]))
        .controller(tasks((0..100).map(|n| n * 2 * MINUTE).collect()));
    script.takes = Box::new(|controller, now| match controller {
        0 if now < BACK => Err(out_of_reach()),
        _ => Ok(()),
    });
    let record = play(script, &[], 4 * HOUR);
    assert_eq!(record.taken(ResultStatus::Success), 101);
    let late = record.sent.iter().find(|s| s.controller == 0 && s.taken);
    let late = late.unwrap().at;
    assert!((BACK..BACK + 12 * MINUTE).contains(&late), "{late}");
    // Few attempts while it was away.
    let attempts = record.sent.iter().filter(|s| s.controller == 0).count();
    assert!(attempts < 25, "{attempts}");
}

#[test]
fn the_time_of_a_result_counts_from_when_its_task_was_handed_out() {
    // The build takes an hour of the three.
    let mut script = Script::new().controller(tasks(vec![0]));
    script.guests = Box::new(|_, _| success(HOUR));
    script.takes = Box::new(|_, _| Err(out_of_reach()));
    let record = play(script, &[], 6 * HOUR);
    let last = record.sent.last().unwrap().at;
    assert!((3 * HOUR..3 * HOUR + 12 * MINUTE).contains(&last), "{last}");
}

#[test]
fn a_result_survives_a_restart_and_keeps_its_time() {
    let state = TempDir::in_memory();
    let mut script = Script::new().controller(tasks(vec![0]));
    script.takes = Box::new(|_, _| Err(out_of_reach()));
    let before = play_from(&state, script, &[], 0, HOUR);
    assert!(before.sent.iter().all(|sent| !sent.taken));
    let after = play_from(
        &state,
        Script::new().controller(|_| Offers::Nothing),
        &[],
        2 * HOUR,
        3 * HOUR,
    );
    assert_eq!(after.sent.len(), 1);
    assert!(after.sent[0].taken && after.sent[0].at == 2 * HOUR);
    assert_eq!(after.sent[0].session, before.sent[0].session);
}

#[test]
fn no_session_is_answered_twice() {
    let script = Script::new().controller(|_| Offers::Task("linux", ""));
    let record = play(script, &[], 10 * HOUR);
    let mut sessions: Vec<_> = record.sent.iter().map(|sent| &sent.session).collect();
    assert_eq!(sessions.len(), record.handed_out.len());
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), record.handed_out.len());
}
