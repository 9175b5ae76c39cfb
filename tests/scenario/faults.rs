//! Hosts that lack something, machines that do not boot, guests that fail.

use bbot_agent::manifest::ResultStatus;
use bbot_agent::perform::{BuildStage, FailedSide};
use bbot_agent::status::Idle;

use super::{Course, CourseEnd, DAY, HOUR, MINUTE, Offers, Script, failed, play, success};

#[test]
fn a_host_that_lacks_something_asks_for_no_work_and_says_what_it_lacks() {
    let mut script = Script::new().controller(|_| Offers::Task("linux", ""));
    let lacking = HOUR..3 * HOUR;
    let range = lacking.clone();
    script.lacks = Box::new(move |now| range.contains(&now).then_some("no bridge br1"));
    let record = play(script, &[], 4 * HOUR);
    let asked = |from, until| {
        let all = record.asked.iter();
        all.filter(|(at, _)| (from..until).contains(at)).count()
    };
    assert_eq!(asked(lacking.start, lacking.end), 0);
    assert!(asked(0, lacking.start) > 50);
    assert!(asked(lacking.end, 4 * HOUR) > 50);
    let reasons: Vec<_> = record.idle.iter().map(|(_, _, r, d)| (*r, d)).collect();
    let said = "no bridge br1".to_owned();
    assert!(reasons.iter().all(|r| *r == (Idle::HostNotReady, &said)));
    assert_eq!(record.taken(ResultStatus::Abort), 0);
}

#[test]
fn a_host_that_fails_before_the_task_is_there_aborts_nothing() {
    let mut script = Script::new().controller(|_| Offers::Task("linux", ""));
    script.guests = Box::new(|_, _| failed(1, FailedSide::Host, BuildStage::BeforeTask));
    let record = play(script, &[], DAY);
    assert_eq!(record.taken(ResultStatus::Abort), 0);
    assert_eq!(
        record.taken(ResultStatus::Interrupt),
        record.handed_out.len()
    );
    // Five faults open the breaker, which tries with growing pauses then.
    let count = record.handed_out.len();
    assert!((20..40).contains(&count), "{count}");
    assert!(record.time_idle(Idle::BreakerOpen) > DAY / 10 * 9);
    // The host is examined anew before each further request.
    assert!(record.probes.len() >= count, "{:?}", record.probes);
}

#[test]
fn a_machine_that_does_not_boot_leaves_the_host_to_the_others() {
    let mut turn = 0;
    let mut script = Script::new().controller(move |_| {
        turn += 1;
        Offers::Task(["linux", "windows"][turn % 2], "")
    });
    script.guests = Box::new(|machine, _| match machine {
        "windows" => failed(8 * MINUTE, FailedSide::Guest, BuildStage::BeforeTask),
        _ => success(10 * MINUTE),
    });
    let record = play(script, &[], DAY);
    let broken = record.time_in("windows");
    assert!(broken < DAY / 5, "{broken}");
    assert!(record.time_in("linux") > DAY / 3 * 2);
    // No package is blamed for it, and no task is lost.
    assert_eq!(record.taken(ResultStatus::Abort), 0);
    let taken = record.taken(ResultStatus::Interrupt) + record.taken(ResultStatus::Success);
    assert_eq!(taken, record.handed_out.len());
}

#[test]
fn packages_that_crash_their_guests_are_aborted_and_the_next_task_is_built() {
    let mut script = Script::new().controller(|_| Offers::Task("linux", ""));
    script.guests = Box::new(|_, _| failed(MINUTE, FailedSide::Guest, BuildStage::WithTask));
    let record = play(script, &[], 10 * HOUR);
    assert_eq!(record.taken(ResultStatus::Abort), 600);
    assert_eq!(record.idle.len(), 0);
}

#[test]
fn a_guest_that_fails_on_a_host_without_its_bridge_is_no_abort() {
    let mut script = Script::new().controller(|_| Offers::Task("linux", ""));
    script.guests = Box::new(|_, _| failed(HOUR, FailedSide::Guest, BuildStage::WithTask));
    // It goes away while the first guest works, and comes back later.
    script.lacks = Box::new(|now| {
        (30 * MINUTE..2 * HOUR)
            .contains(&now)
            .then_some("no bridge")
    });
    let record = play(script, &[], 3 * HOUR);
    assert_eq!(record.sent[0].status, ResultStatus::Interrupt);
    assert_eq!(record.sent[0].at, HOUR);
    assert_eq!(record.sent[1].status, ResultStatus::Abort);
}

#[test]
fn the_result_of_a_failed_guest_is_sent_before_the_guest_is_held() {
    for end in [
        CourseEnd::Failed(FailedSide::Guest, BuildStage::WithTask),
        CourseEnd::Failed(FailedSide::Guest, BuildStage::BeforeTask),
        CourseEnd::Result(ResultStatus::Abnormal),
    ] {
        let mut script = Script::new().controller(|_| Offers::Task("linux", ""));
        script.guests = Box::new(move |_, _| Course {
            seconds: 90,
            end,
            hold: HOUR,
        });
        let record = play(script, &[], HOUR);
        assert_eq!(record.sent.len(), 1);
        assert_eq!(record.sent[0].at, 90, "{end:?}");
    }
}
