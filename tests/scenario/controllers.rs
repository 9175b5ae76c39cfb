//! Controllers that hang, refuse, or give out tasks that cannot be done.

use bbot_agent::manifest::ResultStatus;
use bbot_agent::perform::{BuildStage, FailedSide};
use bbot_agent::status::Idle;

use super::{Course, CourseEnd, DAY, HOUR, MINUTE, Offers, Script, failed, play, success};

#[test]
fn machines_of_one_toolchain_version_are_offered() {
    for (words, version, built) in [
        // The newest, as versions compare and not as texts.
        (&[][..], Some("0.17.0"), [false, true]),
        (&["--toolchain-ver", "0.16.0"], Some("0.16.0"), [true, true]),
        (&["--legacy-request"], None, [true, true]),
    ] {
        let mut script = Script::new()
            .controller(|_| Offers::Task("old9", ""))
            .controller(|_| Offers::Task("linux", ""));
        script.machines = vec!["old9", "linux"];
        let record = play(script, words, HOUR);
        assert_eq!(record.toolchain_version.as_deref(), version, "{words:?}");
        let was_built = ["old9", "linux"].map(|name| record.time_in(name) > 0);
        assert_eq!(was_built, built, "{words:?}");
        let said = "not offered: old9, without the bbot 0.17.0 of other machines";
        let notes = if built[0] { &[][..] } else { &[said] };
        assert_eq!(record.notes, notes, "{words:?}");
    }
}

#[test]
fn a_controller_that_hangs_takes_a_small_share_of_the_day() {
    let script = Script::new()
        .controller(|_| Offers::Hangs(60))
        .controller(|_| Offers::Task("linux", ""));
    let record = play(script, &[], DAY);
    let wasted = 60 * record.asked(0) as u64;
    assert!(wasted < DAY / 8, "{wasted} of {DAY} seconds");
    assert!(record.time_in("linux") > DAY / 8 * 7);
    // It is still asked now and then.
    assert!(record.asked(0) > 100, "{}", record.asked(0));
}

#[test]
fn a_controller_that_comes_back_is_asked_within_ten_minutes() {
    const BACK: u64 = 6 * HOUR;
    let script = Script::new().controller(|now| {
        if now < BACK {
            Offers::Refuses
        } else {
            Offers::Task("linux", "")
        }
    });
    let record = play(script, &[], 7 * HOUR);
    let first = record.handed_out[0].0;
    assert!(first < BACK + 12 * MINUTE, "{first}");
    assert!(record.asked(0) < 200, "{}", record.asked(0));
    assert!(record.time_idle(Idle::ControllersDown) > 5 * HOUR);
}

#[test]
fn tasks_that_cannot_be_done_do_not_shut_out_the_controllers_after_them() {
    for lines in [
        "interactive: error\n",
        "auxiliary-machine: x86-db\n",
        "auxiliary-machine-x: x86-db\n",
        // No such machine is offered.
        "machine-is-not-offered: 1\n",
    ] {
        let machine = if lines.starts_with("machine") {
            "other"
        } else {
            "linux"
        };
        let script = Script::new()
            .controller(move |_| Offers::Task(machine, lines))
            .controller(|_| Offers::Task("windows", ""));
        let record = play(script, &[], DAY);
        // Each is given back at once, and the controller has a rest then. An
        // interactive one would not be handed out again.
        let declined = record.asked(0);
        let status = match lines.starts_with("interactive") {
            true => ResultStatus::Abort,
            false => ResultStatus::Interrupt,
        };
        assert_eq!(record.taken(status), declined, "{lines}");
        assert!((10..500).contains(&declined), "{lines}: {declined}");
        assert!(record.time_in("windows") > DAY / 10 * 9, "{lines}");
        assert_eq!(record.time_in("linux"), 0, "{lines}");
    }
}

#[test]
fn auxiliary_machines_are_offered_beside_build_machines_and_never_for_builds() {
    const NEEDS: &str = "auxiliary-machine: x86-db\nauxiliary-machine-Cache: x86-redis\n";
    let script = |machine, lines| {
        let mut script = Script::new().controller(move |_| Offers::Task(machine, lines));
        // The last one has a name for which controllers refuse a request.
        script.auxiliary = vec!["x86-db", "x86-redis", "db"];
        script
    };
    let with = &["--auxiliary-ram", "1G"][..];
    let record = play(script("linux", NEEDS), with, 10 * MINUTE);
    assert!(record.taken(ResultStatus::Success) > 5);
    let named = |environment: &str, machine: &str| (environment.to_owned(), machine.to_owned());
    let expected = [named("", "x86-db"), named("Cache", "x86-redis")];
    assert_eq!(record.auxiliary[..2], expected);
    assert!(record.request.contains("\nauxiliary-ram: 1048576\n"));
    assert_eq!(record.request.matches("\nrole: auxiliary\n").count(), 2);
    for (machine, lines, words) in [
        // Without memory for them, there are none.
        ("linux", NEEDS, &[][..]),
        (
            "linux",
            NEEDS,
            &["--auxiliary-ram", "1G", "--legacy-request"],
        ),
        // Each needs 256 MiB.
        ("linux", NEEDS, &["--auxiliary-ram", "200M"]),
        // None that was offered.
        ("linux", "auxiliary-machine: db\n", with),
        ("linux", "auxiliary-machine: x86-other\n", with),
        ("linux", "auxiliary-machine: linux\n", with),
        ("x86-db", "interactive:\n", with),
        // Nonsense.
        ("linux", "auxiliary-machine-1: x86-db\n", with),
        (
            "linux",
            "auxiliary-machine: x86-db\nauxiliary-machine-a: x86-db\n",
            with,
        ),
    ] {
        let record = play(script(machine, lines), words, HOUR);
        assert_eq!(record.built, [], "{lines} {words:?}");
        let given_back = match words.contains(&"--legacy-request") {
            true => ResultStatus::Abort,
            false => ResultStatus::Interrupt,
        };
        assert!(record.taken(given_back) > 2, "{lines} {words:?}");
        let offered = words == with;
        assert_eq!(
            record.request.contains("auxiliary-ram"),
            offered,
            "{words:?}"
        );
    }
}

#[test]
fn an_auxiliary_machine_that_does_not_come_up_rests() {
    let mut script = Script::new()
        .controller(|_| Offers::Task("linux", "auxiliary-machine: x86-db\n"))
        .controller(|_| Offers::Task("linux", ""));
    script.auxiliary = vec!["x86-db"];
    let mut guests = 0;
    script.guests = Box::new(move |_, _| {
        guests += 1;
        match guests {
            1 => Course {
                end: CourseEnd::AuxiliaryFailed("x86-db"),
                ..success(15 * MINUTE)
            },
            _ => success(MINUTE),
        }
    });
    let record = play(script, &["--auxiliary-ram", "1G"], HOUR);
    // The task has a result; the build machine goes on with others.
    assert_eq!(record.taken(ResultStatus::Abort), 1);
    assert!(record.taken(ResultStatus::Success) > 10);
    assert!(record.taken(ResultStatus::Interrupt) > 0);
}

#[test]
fn an_interactive_task_has_a_final_result_whatever_happens() {
    let mut handed_out = 0;
    let mut script = Script::new().controller(move |_| {
        handed_out += 1;
        match handed_out {
            1..=3 => Offers::Task("linux", "interactive: error\n"),
            // The controller does not keep to the mode.
            4 => Offers::Task("linux", "host: true\n"),
            _ => Offers::Nothing,
        }
    });
    let mut guests = 0;
    script.guests = Box::new(move |_, _| {
        guests += 1;
        match guests {
            1 => success(2 * HOUR),
            2 => failed(MINUTE, FailedSide::Host, BuildStage::BeforeTask),
            _ => failed(MINUTE, FailedSide::Surroundings, BuildStage::WithTask),
        }
    });
    let words = ["--interactive", "true", "--interactive-login", "vnc on %i"];
    let record = play(script, &words, 6 * HOUR);
    assert_eq!(record.taken(ResultStatus::Success), 1);
    assert_eq!(record.taken(ResultStatus::Abort), 2);
    assert_eq!(record.taken(ResultStatus::Interrupt), 1);
    let sent = "\ninteractive-mode: true\ninteractive-login: vnc on 1\n";
    assert!(record.request.contains(sent), "{}", record.request);
}

#[test]
fn without_tasks_the_agent_asks_about_once_a_minute() {
    let script = Script::new().controller(|_| Offers::Nothing);
    let record = play(script, &[], HOUR);
    assert!((54..=67).contains(&record.asked(0)), "{}", record.asked(0));
    assert_eq!(record.probes, [0]);
}

#[test]
fn controllers_without_priorities_share_the_agent() {
    let mut script = Script::new();
    for _ in 0..3 {
        script = script.controller(|_| Offers::Task("linux", ""));
    }
    let record = play(script, &[], DAY);
    let all = record.handed_out.len();
    for controller in 0..3 {
        // A third of the tasks, within nine standard deviations.
        let share = record.asked(controller) * 100 / all;
        assert!((22..=44).contains(&share), "{controller}: {share} %");
    }
}

#[test]
fn a_list_with_priorities_keeps_its_order() {
    let mut script = Script::new()
        .controller(|_| Offers::Task("linux", ""))
        .controller(|_| Offers::Task("windows", ""))
        .controller(|_| Offers::Nothing);
    script.priorities = vec![1, 2, 3];
    let record = play(script, &[], DAY);
    assert_eq!(record.asked(0), 0);
    assert_eq!(record.asked(1), record.handed_out.len());
    assert_eq!(record.asked(2), record.asked(1));
}

#[test]
fn a_request_offers_as_many_machines_as_controllers_take() {
    // Each takes some 600 bytes of a request.
    let names: Vec<&'static str> = (0..300)
        .map(|n| &*format!("m-{n:03}-{}", "x".repeat(190)).leak())
        .collect();
    let wanted = names[7];
    let mut script = Script::new().controller(move |_| Offers::Task(wanted, ""));
    script.machines = names;
    let record = play(script, &[], 3 * HOUR);
    // About half of the requests have this machine.
    let (asked, built) = (record.asked(0), record.built.len());
    assert!(
        asked / 4 < built && built < asked / 4 * 3,
        "{built} of {asked}"
    );
    assert_eq!(record.notes.len(), 1, "{:?}", record.notes);
    assert!(record.notes[0].contains("some of the 300 machines"));
}

#[test]
fn templates_are_made_one_at_a_time_when_there_is_no_task() {
    // Three tasks of a minute, one of which comes while a template is made.
    let mut tasks = [0, 1, 150].into_iter().peekable();
    let mut script = Script::new().controller(move |now| match tasks.next_if(|at| *at <= now) {
        Some(_) => Offers::Task("linux", ""),
        None => Offers::Nothing,
    });
    script.templates = 2;
    let record = play(script, &[], HOUR);
    let built: Vec<u64> = record.built.iter().map(|(at, ..)| *at).collect();
    assert_eq!(built, [0, MINUTE, 3 * MINUTE]);
    assert_eq!(record.templates, [2 * MINUTE, 4 * MINUTE]);
    // The agent pauses only when there is neither a task nor a template to make.
    assert_eq!(record.idle[0].0, 5 * MINUTE);
}

#[test]
fn a_controller_whose_tasks_find_no_room_is_asked_after_growing_pauses() {
    let mut script = Script::new().controller(|_| Offers::Task("linux", ""));
    script.no_room = Some("an agent of lower priority is stopped");
    let record = play(script, &[], DAY);
    assert_eq!(record.built.len(), 0);
    // One in some ten minutes, and not one a minute.
    let asked = record.asked(0);
    assert!((100..200).contains(&asked), "{asked}");
}
