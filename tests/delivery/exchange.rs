//! Exchanges with a controller that behaves as brep does, over connections that
//! break.

use std::fs;
use std::time::Duration;

use bbot_agent::controller::Controllers;
use bbot_agent::controller::address::UploadTarget;
use bbot_agent::controller::http::Settings as HttpSettings;
use bbot_agent::delivery::TaskRecord;
use bbot_agent::manifest::{OperationResult, ResultManifest, ResultStatus};

use super::{Agent, TASK, key, sent};
use crate::support::brep::{Brep, Setup};
use crate::support::http::{Server, listen_on, reserved};
use crate::support::relay::{Fault, Relay};
use crate::support::{TempDir, eventually, require_programs};

#[test]
fn an_authenticated_agent_is_given_work_and_its_result_is_taken() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let (private, public) = key(scratch.path(), "agent");
    let (other, _) = key(scratch.path(), "other");
    let brep = Brep::start(Setup {
        keys: vec![public],
        ..Setup::default()
    });
    brep.queue(TASK);
    let state = scratch.path().join("state");

    let mut nobody = Agent::new(&scratch.path().join("s1"), &brep.url(), None);
    let request = nobody.request();
    let failure = nobody.controllers.ask(0, &request).unwrap_err();
    assert_eq!(failure.to_string(), "refused with 401 unauthorized");
    let mut stranger = Agent::new(&scratch.path().join("s2"), &brep.url(), Some(&other));
    assert!(stranger.task().is_none());

    let mut agent = Agent::new(&state, &brep.url(), Some(&private));
    let assignment = agent.task().unwrap();
    assert_eq!(assignment.challenge.as_ref().unwrap().len(), 64);
    agent.perform(&assignment, None);
    assert_eq!(agent.deliver(), sent(1));
    let build = brep.state().builds[0].clone();
    let result = build.result.unwrap();
    assert!(
        result.contains("update-log: \\\nc++ cxx{foo}\nld libs{foo}\n\\\n"),
        "{result}"
    );
    assert_eq!(build.agent_checksum.as_deref(), Some("1"));
    assert!(brep.state().ignored.is_empty());

    // The same build again: the controller hands our checksum back.
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    assert_eq!(assignment.agent_checksum.as_deref(), Some("1"));
    // With somebody else's signature the result is thrown away, and the
    // controller does not say so.
    let task = agent.record(&assignment);
    let result = ResultManifest::new("libfoo", "1.2.3", ResultStatus::Success);
    stranger.finish(&task, result, None);
    assert_eq!(stranger.deliver(), sent(1));
    assert_eq!(brep.state().ignored, ["challenge mismatch"]);
}

#[test]
fn what_the_controller_could_refuse_is_set_aside_with_the_reason() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    for (status, name) in [(400, "libbar"), (413, "libfoo")] {
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        let task = agent.record(&assignment);
        let mut result = ResultManifest::new(name, "1.2.3", ResultStatus::Success);
        if status == 413 {
            result.results.push(OperationResult {
                operation: "update".to_owned(),
                status: ResultStatus::Success,
                log: "x".repeat(16 << 20),
            });
        }
        agent.finish(&task, result, None);
        let delivery = agent.deliver();
        assert_eq!((delivery.aside, delivery.waiting), (1, 0), "{status}");
    }
    let mut reasons = Vec::new();
    for entry in fs::read_dir(scratch.path().join("aside")).unwrap() {
        let dir = entry.unwrap().path();
        assert!(dir.join("result").exists());
        reasons.push(fs::read_to_string(dir.join("reason")).unwrap());
    }
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "refused with 400 bad request: package name or version mismatch\n",
            "refused with 413 payload too large: request is too large\n"
        ]
    );
}

#[test]
fn a_result_is_delivered_in_the_end_wherever_the_exchange_breaks() {
    let memory = TempDir::in_memory();
    let brep = Brep::start(Setup::default());
    let relay = Relay::start(brep.port());
    brep.through(&relay.url(""));
    let mut agent = Agent::new(memory.path(), &brep.url(), None);

    // How long the two exchanges are.
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    let asking = relay.lengths(0);
    agent.perform(&assignment, None);
    assert_eq!(agent.deliver(), sent(1));
    let telling = relay.lengths(1);
    assert!(asking.0 > 200 && asking.1 > 200, "{asking:?}");
    assert!(telling.0 > 300 && telling.1 > 50, "{telling:?}");

    let cuts = |lengths: (usize, usize)| {
        let there = (0..=lengths.0).map(|after| (after, false));
        let back = (0..lengths.1).map(|after| (after, true));
        let both = there.chain(back).flat_map(|(after, answer)| {
            [false, true].map(|reset| Fault {
                after,
                answer,
                reset,
            })
        });
        both.collect::<Vec<_>>()
    };
    let done = |brep: &Brep| {
        let state = brep.state();
        state.builds.iter().filter(|b| b.result.is_some()).count()
    };

    let mut count = 1;
    for fault in cuts(asking) {
        brep.queue(TASK);
        relay.fault(fault);
        let mut assignment = agent.task();
        eventually("the task is given", || {
            if assignment.is_none() {
                // The controller may believe that we have it, until it times out.
                brep.time_out();
                assignment = agent.task();
            }
            assignment.is_some()
        });
        let assignment = assignment.unwrap();
        agent.perform(&assignment, None);
        assert_eq!(agent.deliver(), sent(1), "{fault:?}");
        count += 1;
        assert_eq!(done(&brep), count, "{fault:?}");
    }
    // Each attempt that the controller had in full counts once.
    assert!(brep.state().ignored.is_empty());

    for fault in cuts(telling) {
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, None);
        relay.fault(fault);
        let first = agent.deliver();
        if first.sent == 0 {
            assert_eq!((first.waiting, first.aside), (1, 0), "{fault:?}");
            assert_eq!(agent.deliver(), sent(1), "{fault:?}");
        }
        // Nothing waits any more, and the controller has it exactly once.
        assert_eq!(agent.deliver(), sent(0), "{fault:?}");
        count += 1;
        assert_eq!(done(&brep), count, "{fault:?}");
    }
    assert!(
        brep.state().refused.is_empty(),
        "{:?}",
        brep.state().refused
    );
}

#[test]
fn a_result_outlives_everything_that_can_happen_to_it() {
    let scratch = TempDir::new();
    let (socket, port) = reserved();
    let url = format!("http://127.0.0.1:{port}/?build-task");
    let mut agent = Agent::new(scratch.path(), &url, None);
    let result_url = format!("http://127.0.0.1:{port}/?build-result");
    let task = TaskRecord {
        accepted: agent.delivery.stamp(agent.now()),
        session: "/libfoo/1/x".to_owned(),
        controller: url.clone(),
        result_url: UploadTarget::parse(&result_url).unwrap(),
        challenge: None,
        upload_urls: Vec::new(),
        name: "libfoo".to_owned(),
        version: "1".to_owned(),
        machine: "linux-gcc".to_owned(),
        interactive: false,
    };
    let result = ResultManifest::new("libfoo", "1", ResultStatus::Error);
    agent.delivery.accept(&task).unwrap();
    agent.finish(&task, result, None);
    let waits = |agent: &mut Agent, what: &str| {
        let delivery = agent.deliver();
        assert_eq!((delivery.sent, delivery.waiting), (0, 1), "{what}");
    };
    waits(&mut agent, "connection refused");
    // From here on there is a server, and each connection fares worse.
    let server = Server::start_on(listen_on(socket), |mut connection| {
        match connection.number {
            0 => {
                connection.take(20);
                connection.reset();
            }
            1 => connection.hang(),
            2 => {
                connection.request().unwrap();
                connection.hang();
            }
            3 => {
                connection.request().unwrap();
                connection.answer("502 Bad Gateway", "");
            }
            4..9 => {
                connection.request().unwrap();
                connection.send("HTTP/1.1 308 X\r\nLocation: ?build-result\r\n\r\n");
            }
            9 => {
                connection.request().unwrap();
                connection.send("HTTP/1.1 200 OK\r\nContent-Le");
            }
            _ => {
                connection.request().unwrap();
                connection.answer("200 OK", "");
            }
        }
    });
    waits(&mut agent, "reset halfway");
    let hasty = HttpSettings {
        connect_timeout: Duration::from_millis(300),
        request_timeout: Duration::from_millis(300),
        ..HttpSettings::default()
    };
    let patient = std::mem::replace(
        &mut agent.controllers,
        Controllers::new(&[url], &hasty, &agent.watch).unwrap(),
    );
    waits(&mut agent, "time-out of the request");
    waits(&mut agent, "time-out of the answer");
    agent.controllers = patient;
    waits(&mut agent, "502");
    waits(&mut agent, "redirect loop");
    waits(&mut agent, "truncated answer");
    assert_eq!(agent.deliver(), sent(1));
    assert_eq!(agent.deliver(), sent(0));
    let bodies: Vec<_> = server.requests().iter().map(|r| r.body.clone()).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[test]
fn bad_moods_of_the_controller_pass() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    agent.perform(&assignment, None);
    for mood in [500, 502, 503, 504, 429, 408, 302] {
        brep.state().moods.push(mood);
        let delivery = agent.deliver();
        assert_eq!((delivery.sent, delivery.waiting), (0, 1), "{mood}");
        assert!(delivery.next.is_some());
    }
    assert_eq!(agent.deliver(), sent(1));
}

#[test]
fn a_dead_controller_costs_one_attempt_a_turn() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let url = brep.url();
    let mut agent = Agent::new(scratch.path(), &url, None);
    for _ in 0..3 {
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, None);
    }
    drop(brep);
    let delivery = agent.deliver();
    assert_eq!(delivery.waiting, 3);
}
