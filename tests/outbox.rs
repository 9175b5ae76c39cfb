//! Results on their way back to a controller that behaves as brep does, over
//! connections that break, through restarts, on full disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bbot_agent::auth::{self, Key};
use bbot_agent::controller::address::UploadTarget;
use bbot_agent::controller::http::Settings as HttpSettings;
use bbot_agent::controller::{Assignment, Controllers};
use bbot_agent::manifest::{
    OperationResult, ResultManifest, ResultRequest, ResultStatus, Style, TaskRequest,
};
use bbot_agent::outbox::{Delivery, Outbox, Settings, entry, interrupted};
use bbot_agent::store::{Accepted, Artifact, Unfinished, uptime};
use bbot_agent::watch::Watch;

use crate::support::brep::{Brep, Setup};
use crate::support::http::{Server, listen_on, openssl, reserved};
use crate::support::relay::{Fault, Relay};
use crate::support::{TempDir, eventually, header, isolated, require_programs, require_root};

const TASK: &str = "name: libfoo\nversion: 1.2.3\nrepository-url: https://h/1/a\n\
                    repository-type: pkg\nmachine: linux-gcc\n";

/// No pauses: a test decides when it is time.
const AT_ONCE: Settings = Settings {
    expiry: Duration::from_secs(3 * 3600),
    first_pause: Duration::ZERO,
    last_pause: Duration::ZERO,
};

/// A directory in memory, where syncing costs nothing: for tests that store
/// results by the thousand.
struct Memory(PathBuf);

impl Memory {
    fn new(name: &str) -> Memory {
        let path = PathBuf::from(format!("/dev/shm/bbot-agent-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Memory(path)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An agent as far as controllers see it.
struct Agent {
    controllers: Controllers,
    outbox: Outbox,
    unfinished: Vec<Unfinished>,
    key: Option<Key>,
    watch: Watch,
    /// What its clock on the wall says.
    wall: SystemTime,
}

impl Agent {
    fn new(state: &Path, url: &str, key: Option<&Path>) -> Agent {
        let watch = Watch::start().unwrap();
        let settings = HttpSettings {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            ..HttpSettings::default()
        };
        let controllers = Controllers::new(&[url.to_owned()], &settings, &watch).unwrap();
        let (outbox, unfinished) = Outbox::open(state, AT_ONCE).unwrap();
        let key = key.map(|key| Key::open(auth::Settings::new(key), &watch).unwrap());
        Agent {
            controllers,
            outbox,
            unfinished,
            key,
            watch,
            wall: SystemTime::now(),
        }
    }

    fn request(&self) -> TaskRequest {
        TaskRequest {
            agent: "host".to_owned(),
            toolchain: Some(("default".to_owned(), "0.17.0".to_owned())),
            fingerprint: self.key.as_ref().map(|key| key.fingerprint().to_owned()),
            machines: vec![header("linux-gcc-1", "linux-gcc").into()],
        }
    }

    fn task(&mut self) -> Option<Assignment> {
        let request = self.request();
        let round = self.controllers.request(&request, &self.watch).unwrap();
        round.assignment
    }

    fn sign(&self, challenge: Option<&str>) -> Option<String> {
        let key = self.key.as_ref()?;
        Some(key.sign(challenge?.as_bytes()).unwrap())
    }

    /// Does the work, and has the result in the store.
    fn perform(&mut self, assignment: &Assignment, artifacts: &mut [Artifact<'_>]) {
        let task = entry(assignment, SystemTime::now());
        self.outbox.accepted(&task).unwrap();
        self.outbox.started(&task.session).unwrap();
        let mut result = ResultManifest::new(
            assignment.task.name(),
            assignment.task.version(),
            ResultStatus::Success,
        );
        result.results.push(OperationResult {
            operation: "update".to_owned(),
            status: ResultStatus::Success,
            log: "c++ cxx{foo}\nld libs{foo}".to_owned(),
        });
        let signature = self.sign(assignment.challenge.as_deref());
        self.store(&task, signature, result, artifacts);
    }

    fn store(
        &mut self,
        task: &Accepted,
        challenge: Option<String>,
        result: ResultManifest,
        artifacts: &mut [Artifact<'_>],
    ) {
        let request = ResultRequest {
            session: task.session.clone(),
            challenge,
            agent_checksum: Some("1".to_owned()),
            result,
        };
        let text = request.to_text(Style::OLD).unwrap();
        self.outbox
            .store(task, text.as_bytes(), artifacts, self.wall)
            .unwrap();
    }

    fn deliver(&mut self) -> Delivery {
        self.deliver_at(uptime())
    }

    fn deliver_at(&mut self, now: Duration) -> Delivery {
        self.outbox
            .deliver(&mut self.controllers, now, &self.watch)
            .unwrap()
    }
}

/// A key pair; gives the private one, and the public one beside it.
fn key(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    openssl(dir, &format!("genrsa -out {name} 2048"));
    openssl(dir, &format!("pkey -in {name} -pubout -out {name}.pem"));
    (dir.join(name), dir.join(format!("{name}.pem")))
}

fn sent(count: usize) -> Delivery {
    Delivery {
        sent: count,
        ..Delivery::default()
    }
}

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
    let round = nobody.controllers.request(&request, &nobody.watch).unwrap();
    assert_eq!(
        round.failed[0].failure.to_string(),
        "refused with 401 unauthorized"
    );
    let mut stranger = Agent::new(&scratch.path().join("s2"), &brep.url(), Some(&other));
    assert!(stranger.task().is_none());

    let mut agent = Agent::new(&state, &brep.url(), Some(&private));
    let assignment = agent.task().unwrap();
    assert_eq!(assignment.challenge.as_ref().unwrap().len(), 64);
    agent.perform(&assignment, &mut []);
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
    let task = entry(&assignment, SystemTime::now());
    let result = ResultManifest::new("libfoo", "1.2.3", ResultStatus::Success);
    let forged = stranger.sign(assignment.challenge.as_deref());
    agent.store(&task, forged, result, &mut []);
    assert_eq!(agent.deliver(), sent(1));
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
        let task = entry(&assignment, SystemTime::now());
        let mut result = ResultManifest::new(name, "1.2.3", ResultStatus::Success);
        if status == 413 {
            result.results.push(OperationResult {
                operation: "update".to_owned(),
                status: ResultStatus::Success,
                log: "x".repeat(16 << 20),
            });
        }
        agent.store(&task, None, result, &mut []);
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
    let memory = Memory::new("exchange");
    let brep = Brep::start(Setup::default());
    let relay = Relay::start(brep.port());
    brep.through(&relay.url(""));
    let mut agent = Agent::new(&memory.0, &brep.url(), None);

    // How long the two exchanges are.
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    let asking = relay.lengths(0);
    agent.perform(&assignment, &mut []);
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
        agent.perform(&assignment, &mut []);
        assert_eq!(agent.deliver(), sent(1), "{fault:?}");
        count += 1;
        assert_eq!(done(&brep), count, "{fault:?}");
    }
    // Each attempt that the controller had in full counts once.
    assert!(brep.state().ignored.is_empty());

    for fault in cuts(telling) {
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, &mut []);
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
    let task = Accepted {
        session: "/libfoo/1/x".to_owned(),
        result_url: format!("http://127.0.0.1:{port}/?build-result"),
        name: "libfoo".to_owned(),
        version: "1".to_owned(),
        machine: "linux-gcc".to_owned(),
        ..Accepted::default()
    };
    let result = ResultManifest::new("libfoo", "1", ResultStatus::Error);
    agent.outbox.accepted(&task).unwrap();
    agent.store(&task, None, result, &mut []);
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
    agent.perform(&assignment, &mut []);
    for mood in [500, 502, 503, 504, 429, 408, 302] {
        brep.state().moods.push(mood);
        let delivery = agent.deliver();
        assert_eq!((delivery.sent, delivery.waiting), (0, 1), "{mood}");
        assert!(delivery.next.is_some());
    }
    assert_eq!(agent.deliver(), sent(1));
}

#[test]
fn a_result_survives_restarts_and_is_sent_once() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let url = brep.url();
    for round in 1..=3 {
        let mut agent = Agent::new(scratch.path(), &url, None);
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, &mut []);
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
fn a_dead_controller_costs_one_attempt_a_turn() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let url = brep.url();
    let mut agent = Agent::new(scratch.path(), &url, None);
    for _ in 0..3 {
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, &mut []);
    }
    drop(brep);
    let delivery = agent.deliver();
    assert_eq!(delivery.waiting, 3);
}

#[test]
fn what_is_too_late_is_set_aside() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    agent.perform(&assignment, &mut []);
    drop(agent);
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    let later = uptime() + AT_ONCE.expiry + Duration::from_secs(2);
    brep.state().result_moods = vec![502];
    let delivery = agent.deliver_at(later);
    assert_eq!((delivery.aside, delivery.waiting), (1, 0));
    assert!(brep.state().builds[0].result.is_none());
    assert_eq!(agent.deliver(), sent(0));
}

/// The only stored result.
fn stored(state: &Path) -> PathBuf {
    let mut results = fs::read_dir(state.join("results")).unwrap();
    results.next().unwrap().unwrap().path()
}

#[test]
fn a_wall_clock_that_is_wrong_loses_no_result() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = SystemTime::now();
    let brep = Brep::start(Setup::default());
    for wall in [SystemTime::UNIX_EPOCH, now - YEAR, now, now + YEAR] {
        for restarted in [false, true] {
            let scratch = TempDir::new();
            let mut agent = Agent::new(scratch.path(), &brep.url(), None);
            agent.wall = wall;
            brep.queue(TASK);
            let assignment = agent.task().unwrap();
            agent.perform(&assignment, &mut []);
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
    agent.perform(&assignment, &mut []);
    let path = stored(scratch.path());
    let text = fs::read_to_string(&path).unwrap();
    let (before, after) = text.split_once(r#""boot":""#).unwrap();
    fs::write(&path, format!(r#"{before}"boot":"x{after}"#)).unwrap();
    for (uptime, waiting) in [(AT_ONCE.expiry, 1), (AT_ONCE.expiry * 2, 0)] {
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
    agent.perform(&assignment, &mut []);
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
    let task = entry(&assignment, SystemTime::now());
    agent.perform(&assignment, &mut []);
    let path = stored(scratch.path());
    let away = scratch.path().join("away");
    fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    // As if the power had gone before the journal knew of the result.
    let other = Accepted {
        session: "/other".to_owned(),
        ..task
    };
    agent.outbox.accepted(&other).unwrap();
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
        agent
            .outbox
            .accepted(&entry(&assignment, SystemTime::now()))
            .unwrap();
        agent.outbox.started(&assignment.session).unwrap();
        drop(agent);

        let mut agent = Agent::new(&state, &brep.url(), Some(&private));
        let [task] = agent.unfinished.as_slice() else {
            panic!("{:?}", agent.unfinished);
        };
        assert!(task.started);
        let task = task.accepted.clone();
        assert!(
            !UploadTarget::parse(&task.result_url)
                .unwrap()
                .offers_again()
        );
        let signature = agent.sign(task.challenge.as_deref());
        let request = interrupted(&task, signature, legacy);
        let text = request.to_text(Style::OLD).unwrap();
        agent
            .outbox
            .store(&task, text.as_bytes(), &mut [], SystemTime::now())
            .unwrap();
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
fn artifacts_go_before_the_result() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let (private, public) = key(scratch.path(), "agent");
    let brep = Brep::start(Setup {
        keys: vec![public],
        uploads: vec!["bindist".to_owned()],
        ..Setup::default()
    });
    let state = scratch.path().join("state");
    let mut agent = Agent::new(&state, &brep.url(), Some(&private));
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    let signature = agent.sign(assignment.challenge.as_deref());
    let content = vec![b'\r'; 300_000];
    let (mut good, mut nowhere, mut huge) = (&content[..], &b"x"[..], std::io::repeat(b'x'));
    let mut huge = std::io::Read::take(&mut huge, 11 << 20);
    let url = &assignment.upload_urls[0].1.to_url();
    let artifact = |url: &str, contents| Artifact {
        kind: "bindist".to_owned(),
        url: url.to_owned(),
        instance: "archive".to_owned(),
        name: "libfoo-1.2.3.tar.xz".to_owned(),
        challenge: signature.clone(),
        contents,
    };
    let disabled = url.replace("bindist", "other");
    let mut artifacts = [
        artifact(url, &mut good),
        artifact(&disabled, &mut nowhere),
        artifact(url, &mut huge),
    ];
    agent.perform(&assignment, &mut artifacts);
    // A failure of the moment: nothing goes on before it is over.
    brep.state().moods.push(503);
    assert_eq!(agent.deliver().waiting, 1);
    assert!(brep.state().builds[0].uploads.is_empty());
    // After a restart, what is refused for good (404, 413) is let go.
    let mut agent = Agent::new(&state, &brep.url(), Some(&private));
    assert_eq!(agent.deliver(), sent(1));
    let build = brep.state().builds[0].clone();
    assert_eq!(
        build.uploads,
        [(
            "archive".to_owned(),
            "libfoo-1.2.3.tar.xz".to_owned(),
            content
        )]
    );
    assert!(build.result.is_some());
    let refused: Vec<u16> = brep.state().refused.iter().map(|(s, _)| *s).collect();
    assert_eq!(refused, [503, 404, 413]);
}

#[test]
fn an_upload_breaks_anywhere_and_arrives_once_with_its_result() {
    let memory = Memory::new("upload");
    let brep = Brep::start(Setup {
        uploads: vec!["bindist".to_owned()],
        ..Setup::default()
    });
    let relay = Relay::start(brep.port());
    brep.through(&relay.url(""));
    let mut agent = Agent::new(&memory.0, &brep.url(), None);
    let mut step = 0;
    let mut round = 0;
    loop {
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        let mut contents = &b"some bytes"[..];
        let mut artifacts = [Artifact {
            kind: "bindist".to_owned(),
            url: assignment.upload_urls[0].1.to_url(),
            instance: "archive".to_owned(),
            name: "a".to_owned(),
            challenge: None,
            contents: &mut contents,
        }];
        agent.perform(&assignment, &mut artifacts);
        // Every 7th byte, there and back; both kinds of end.
        let answer = round % 2 == 1;
        relay.fault(Fault {
            after: step,
            answer,
            reset: step % 2 == 1,
        });
        let first = agent.deliver();
        if first.sent == 0 {
            assert_eq!(agent.deliver(), sent(1), "{step} {answer}");
        }
        let build = brep.state().builds.pop().unwrap();
        assert!(build.result.is_some());
        assert!(build.uploads.iter().all(|u| u.2 == b"some bytes"));
        // The controller may have had it before the connection broke.
        assert!((1..=2).contains(&build.uploads.len()), "{step} {answer}");
        round += 1;
        if round % 2 == 0 {
            step += 7;
        }
        if step > 1200 {
            break;
        }
    }
}

#[test]
fn artifacts_do_not_hold_the_result_back_for_ever() {
    let scratch = TempDir::new();
    let brep = Brep::start(Setup::default());
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    brep.queue(TASK);
    let assignment = agent.task().unwrap();
    let broken = Server::answering("500 Oops", "no");
    let mut contents = &b"x"[..];
    let mut artifacts = [Artifact {
        kind: "bindist".to_owned(),
        url: broken.url("/?upload=bindist"),
        instance: "archive".to_owned(),
        name: "a".to_owned(),
        challenge: None,
        contents: &mut contents,
    }];
    agent.perform(&assignment, &mut artifacts);
    assert_eq!(agent.deliver().waiting, 1);
    drop(agent);
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    let later = uptime() + AT_ONCE.expiry / 2 + Duration::from_secs(2);
    assert_eq!(agent.deliver_at(later), sent(1));
    assert!(brep.state().builds[0].result.is_some());
}

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
        agent.perform(&assignment, &mut []);
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
        agent.perform(&assignment, &mut []);
        assert!(!state.join("reserve").exists());
        assert_eq!(agent.deliver(), sent(1));
        assert!(brep.state().builds[0].result.is_some());
        // And the reserve is back as soon as there is room for it.
        fs::remove_file(filler).unwrap();
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, &mut []);
        assert_eq!(agent.deliver(), sent(1));
        assert_eq!(fs::metadata(state.join("reserve")).unwrap().len(), 16 << 20);
    });
}
