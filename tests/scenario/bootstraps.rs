//! Machines whose bootstrap fails: the pauses, the share of the host's time, the holds.

use super::{BootstrapCourse, DAY, HOUR, MINUTE, Offers, Record, Script, play, success};

/// A machine that never asks: three attempts of five minutes and ten of hold.
const NEVER_ASKS: BootstrapCourse = BootstrapCourse {
    seconds: 15 * MINUTE,
    fails: Some("no request"),
    hold: 10 * MINUTE,
    meanwhile: None,
};

fn script(new_machines: &[&'static str]) -> Script {
    let mut script = Script::new().controller(|_| Offers::Task("linux", ""));
    script.new_machines = new_machines.to_vec();
    script.bootstraps = Box::new(|_, _| NEVER_ASKS);
    script
}

fn seconds(record: &Record) -> u64 {
    record
        .bootstraps
        .iter()
        .map(|(_, _, seconds, _)| seconds)
        .sum()
}

#[test]
fn pauses_after_failed_bootstraps_grow_to_an_hour() {
    let mut script = script(&["bad"]);
    script.machines.clear();
    let record = play(script, &[], 2 * DAY);
    let starts: Vec<u64> = record.bootstraps.iter().map(|(at, ..)| *at).collect();
    let ends = record
        .bootstraps
        .iter()
        .map(|(at, _, seconds, _)| at + seconds);
    let pauses: Vec<u64> = ends
        .zip(&starts[1..])
        .map(|(end, next)| next - end)
        .collect();
    assert!(
        pauses.is_sorted_by(|a, b| *a <= b + 2 * MINUTE),
        "{pauses:?}"
    );
    assert!(pauses[0] <= 2 * MINUTE, "{pauses:?}");
    let last = *pauses.last().unwrap();
    assert!((HOUR..HOUR + 2 * MINUTE).contains(&last), "{pauses:?}");
}

#[test]
fn bad_images_take_at_most_a_fifth_of_the_time_while_a_good_machine_builds() {
    for new_machines in [&["bad"][..], &["bad", "evil", "worse"]] {
        let mut script = script(new_machines);
        script.guests = Box::new(|_, _| success(10 * MINUTE));
        let record = play(script, &[], 4 * DAY);
        let bootstrapping = seconds(&record);
        // It begins with an attempt, and may end in one.
        let most = 4 * DAY / 5 + 25 * MINUTE;
        assert!(bootstrapping <= most, "{bootstrapping}");
        assert!(record.time_in("linux") > 4 * DAY / 4 * 3);
        // Each of them is tried.
        for name in new_machines {
            let tried = record.bootstraps.iter().filter(|(_, m, ..)| m == name);
            assert!(tried.count() > 3, "{name}");
        }
    }
}

#[test]
fn a_machine_that_has_not_failed_waits_for_one_turn_only() {
    let mut script = script(&["bad", "new"]);
    script.guests = Box::new(|_, _| success(10 * MINUTE));
    script.bootstraps = Box::new(|name, _| BootstrapCourse {
        fails: NEVER_ASKS.fails.filter(|_| name == "bad"),
        ..NEVER_ASKS
    });
    let record = play(script, &[], HOUR);
    let [bad, new] = &record.bootstraps[..2] else {
        panic!("{:?}", record.bootstraps)
    };
    assert_eq!((&*bad.1, &*new.1), ("bad", "new"));
    assert!(new.0 <= bad.0 + bad.2 + 11 * MINUTE, "{new:?}");
    // A task was performed in between.
    assert!(record.built[0].0 < new.0, "{:?}", record.built);
}

#[test]
fn a_guest_is_held_once_for_each_reason() {
    let mut script = script(&["bad"]);
    let mut attempts = 0;
    script.bootstraps = Box::new(move |_, now| {
        attempts += 1;
        let second = now >= DAY && attempts % 2 == 0;
        BootstrapCourse {
            fails: Some(if second { "panic" } else { "no request" }),
            ..NEVER_ASKS
        }
    });
    let record = play(script, &[], 2 * DAY);
    let held: Vec<u64> = record
        .bootstraps
        .iter()
        .filter(|b| b.3)
        .map(|b| b.0)
        .collect();
    assert_eq!(held.len(), 2, "{held:?}");
    assert!(held[0] < HOUR && held[1] >= DAY, "{held:?}");
}

#[test]
fn a_machine_that_is_mended_is_used_once_the_operator_asks_for_a_retry() {
    let mended = 10 * HOUR;
    let retry = mended + MINUTE;
    let mut script = script(&["bad"]);
    script.machines.clear();
    script.bootstraps = Box::new(move |_, now| BootstrapCourse {
        fails: (now < mended).then_some("no request"),
        ..NEVER_ASKS
    });
    script.retry_at = Some(retry);
    let record = play(script, &[], DAY);
    let (last, ..) = *record.bootstraps.last().unwrap();
    assert!((retry..retry + 26 * MINUTE).contains(&last), "{last}");
}

#[test]
fn a_new_machine_is_bootstrapped_at_once_though_others_can_build() {
    let mut script = script(&["new"]);
    script.bootstraps = Box::new(|_, _| BootstrapCourse {
        seconds: 10 * MINUTE,
        fails: None,
        hold: 0,
        meanwhile: None,
    });
    let record = play(script, &[], HOUR);
    assert_eq!(record.bootstraps.len(), 1);
    assert_eq!(record.built[0].0, 10 * MINUTE);
}

#[test]
fn a_copy_that_another_agent_has_made_meanwhile_is_not_made_again() {
    let mut script = script(&["first", "second"]);
    script.machines.clear();
    script.bootstraps = Box::new(|name, _| BootstrapCourse {
        seconds: 10 * MINUTE,
        fails: None,
        hold: 0,
        meanwhile: (name == "first").then_some("second"),
    });
    let record = play(script, &[], HOUR);
    let names: Vec<_> = record
        .bootstraps
        .iter()
        .map(|(_, name, ..)| &**name)
        .collect();
    assert_eq!(names, ["first"]);
}
