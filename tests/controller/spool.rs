//! A directory that plays controller.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use bbot_agent::controller::address::UploadTarget;
use bbot_agent::controller::failure::FailureClass;
use bbot_agent::controller::{Assignment, Controllers};
use bbot_agent::manifest::{ResultManifest, ResultRequest, ResultStatus, Style, TaskRequest};
use bbot_agent::watch::Watch;

use super::{Answers, ask_in_order, patient};
use crate::support::{TempDir, header};

const TASK: &str = ": 1\nname: libfoo\nversion: 1.2.3\nrepository-url: https://example.org/1/a\n\
                    repository-type: pkg\nfuture-value: kept\nmachine: linux-gcc\n";

/// An agent and its directory.
struct Place {
    scratch: TempDir,
}

impl Place {
    fn new() -> Place {
        let scratch = TempDir::new();
        fs::create_dir(scratch.path().join("tasks")).unwrap();
        Place { scratch }
    }

    fn drop_task(&self, name: &str, text: &str) {
        let path = self.scratch.path().join("tasks").join(name);
        fs::write(path, text).unwrap();
    }

    fn agent(&self) -> Agent {
        self.agent_at(self.scratch.path().to_str().unwrap())
    }

    fn agent_at(&self, argument: &str) -> Agent {
        let watch = Watch::start().unwrap();
        let controllers = Controllers::new(&[argument.to_owned()], &patient(), &watch).unwrap();
        Agent { controllers }
    }

    /// All files below, with what they hold.
    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, found);
                } else {
                    let name = path.strip_prefix(root).unwrap();
                    found.push(name.to_str().unwrap().to_owned());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.scratch.path(), self.scratch.path(), &mut found);
        found.sort();
        found
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.scratch.path().join(name)).unwrap()
    }
}

struct Agent {
    controllers: Controllers,
}

impl Agent {
    fn round(&mut self) -> Answers {
        let request = TaskRequest {
            agent: "host".to_owned(),
            machines: vec![header("linux-gcc-1", "linux-gcc").into()],
            ..TaskRequest::default()
        };
        ask_in_order(&mut self.controllers, &request)
    }

    fn task(&mut self) -> Option<Assignment> {
        let round = self.round();
        assert!(round.failed.is_empty(), "{:?}", round.failed);
        round.assignment
    }
}

fn result(assignment: &Assignment, status: ResultStatus) -> Vec<u8> {
    let request = ResultRequest {
        session: assignment.session.clone(),
        challenge: None,
        agent_checksum: None,
        result: ResultManifest::new(assignment.task.name(), assignment.task.version(), status),
    };
    request.to_text(Style::OLD).unwrap().into_bytes()
}

#[test]
fn a_task_goes_in_and_its_result_comes_out() {
    let place = Place::new();
    let mut agent = place.agent();
    assert!(agent.task().is_none());
    place.drop_task("b.manifest", TASK);
    place.drop_task("a.manifest", TASK);
    let assignment = agent.task().unwrap();
    assert_eq!(assignment.session, "a");
    let task = assignment.task.to_text(Style::TODAY).unwrap();
    assert!(task.contains("\nfuture-value: kept\n"), "{task}");
    assert!(assignment.result_url.to_url().starts_with("file:///"));
    assert_eq!(
        place.files()[..2],
        ["claimed/.a.tries", "claimed/a.manifest"]
    );
    agent
        .controllers
        .upload(
            &assignment.result_url,
            &result(&assignment, ResultStatus::Success),
        )
        .unwrap();
    assert_eq!(
        place.read("results/a.manifest"),
        ": 1\nname: libfoo\nversion: 1.2.3\nstatus: success\n"
    );
    assert_eq!(
        place.files(),
        ["done/a.manifest", "results/a.manifest", "tasks/b.manifest"]
    );
    assert_eq!(agent.task().unwrap().session, "b");
}

#[test]
fn a_file_url_and_a_name_with_spaces_work_too() {
    let place = Place::new();
    place.drop_task("x y=é.manifest", TASK);
    let url = format!("file://{}", place.scratch.path().display());
    let mut agent = place.agent_at(&url);
    let assignment = agent.task().unwrap();
    assert_eq!(assignment.session, "x y=é");
    agent
        .controllers
        .upload(
            &assignment.result_url,
            &result(&assignment, ResultStatus::Success),
        )
        .unwrap();
    assert!(place.files().contains(&"results/x y=é.manifest".to_owned()));
}

#[test]
fn an_idle_turn_writes_nothing() {
    let place = Place::new();
    place.drop_task("a.manifest", &TASK.replace("linux-gcc", "windows"));
    let mut agent = place.agent();
    agent.task();
    let stamp = |name: &str| {
        let metadata = fs::metadata(place.scratch.path().join(name)).unwrap();
        metadata.modified().unwrap()
    };
    let names = ["", "tasks", "claimed", "results", "done", "rejected"];
    let before = names.map(stamp);
    for _ in 0..3 {
        assert!(agent.task().is_none());
    }
    assert_eq!(before, names.map(stamp));
    // For another agent, with that machine, it is still there.
    assert!(place.files().contains(&"tasks/a.manifest".to_owned()));
}

#[test]
fn what_is_not_a_task_is_rejected_with_the_reason() {
    let place = Place::new();
    place.drop_task("bad.manifest", ": 1\nname: libfoo\n");
    place.drop_task("binary.manifest", "\u{0}\u{1}");
    place.drop_task("large.manifest", &"x".repeat(2 << 20));
    let twice = format!("{TASK}auxiliary-machine: x-db\nauxiliary-machine-y: x-db\n");
    place.drop_task("twice.manifest", &twice);
    place.drop_task("good.manifest", TASK);
    place.drop_task(".hidden.manifest", "in the making");
    place.drop_task("README", "no task");
    let tasks = place.scratch.path().join("tasks");
    fs::create_dir(tasks.join("dir.manifest")).unwrap();
    symlink("/etc/passwd", tasks.join("link.manifest")).unwrap();
    symlink("nowhere", tasks.join("dangling.manifest")).unwrap();
    let _socket = UnixListener::bind(tasks.join("socket.manifest")).unwrap();
    place.drop_task("esc\u{1b}.manifest", TASK);
    let fifo = tasks.join("fifo.manifest");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut agent = place.agent();
    assert_eq!(agent.task().unwrap().session, "good");
    assert!(agent.task().is_none());
    let why = place.read("rejected/bad.reason");
    assert!(
        why.starts_with("invalid task manifest: bad.manifest:3:1: "),
        "{why}"
    );
    assert_eq!(
        place.read("rejected/twice.reason"),
        "it needs auxiliary machine x-db twice\n"
    );
    assert_eq!(place.read("rejected/fifo.reason"), "not a file\n");
    assert_eq!(place.read("rejected/dir.reason"), "not a file\n");
    assert_eq!(
        place.read("rejected/large.reason"),
        "longer than 1048576 bytes\n"
    );
    assert_eq!(place.read("rejected/bad.manifest"), ": 1\nname: libfoo\n");
    // A link is not followed: it may lead anywhere.
    let link = "it is a symbolic link\n";
    assert_eq!(place.read("rejected/link.reason"), link);
    assert_eq!(place.read("rejected/dangling.reason"), link);
    assert_eq!(place.read("rejected/socket.reason"), "not a file\n");
    let left = "tasks/esc\u{1b}.manifest".to_owned();
    assert!(place.files().contains(&left));
    assert!(place.files().contains(&"tasks/.hidden.manifest".to_owned()));
}

#[test]
fn a_directory_that_is_missing_is_a_failure_and_no_more() {
    let place = Place::new();
    let mut agent = place.agent_at("/nonexistent/controller");
    let round = agent.round();
    assert_eq!(round.failed[0].class(), FailureClass::Directory);
    assert_eq!(
        round.failed[0].to_string(),
        "no directory /nonexistent/controller"
    );
}

#[test]
fn a_file_in_the_place_of_a_directory_is_to_be_moved_away() {
    let place = Place::new();
    let file = place.scratch.path().join("results");
    fs::write(&file, "").unwrap();
    let file = file.display();
    for argument in [place.scratch.path().to_str().unwrap(), &file.to_string()] {
        let failed = &place.agent_at(argument).round().failed[0];
        assert_eq!(failed.to_string(), format!("{file} is not a directory"));
        let remedy = format!("move it away: mv {file} {file}.old");
        assert_eq!(failed.hints(), [remedy]);
    }
}

#[test]
fn a_task_belongs_to_one_agent_at_a_time() {
    let place = Place::new();
    place.drop_task("a.manifest", TASK);
    place.drop_task("b.manifest", TASK);
    let (mut one, mut two) = (place.agent(), place.agent());
    let first = one.task().unwrap();
    let second = two.task().unwrap();
    assert_eq!(
        (first.session.as_str(), second.session.as_str()),
        ("a", "b")
    );
    assert!(one.task().is_none() && two.task().is_none());
}

#[test]
fn the_task_of_a_dead_agent_is_taken_by_the_next() {
    let place = Place::new();
    place.drop_task("a.manifest", TASK);
    for _ in 0..3 {
        // Each of them dies without a result.
        let mut agent = place.agent();
        assert_eq!(agent.task().unwrap().session, "a");
        assert!(agent.task().is_none());
    }
    let mut agent = place.agent();
    assert!(agent.task().is_none());
    assert_eq!(
        place.read("rejected/a.reason"),
        "it was begun 3 times and never ended\n"
    );
    assert_eq!(place.read("rejected/a.manifest"), TASK);
}

#[test]
fn a_task_that_is_given_back_was_not_tried() {
    let place = Place::new();
    place.drop_task("a.manifest", TASK);
    for _ in 0..5 {
        let mut agent = place.agent();
        let assignment = agent.task().unwrap();
        agent.controllers.release(&assignment.result_url);
        assert_eq!(place.files(), ["tasks/a.manifest"]);
    }
}

#[test]
fn a_stored_result_keeps_others_from_its_task_after_a_restart() {
    let place = Place::new();
    place.drop_task("a.manifest", TASK);
    let assignment = place.agent().task().unwrap();
    // The agent is gone; its successor has the result in its store.
    let mut agent = place.agent();
    agent.controllers.hold(&assignment.result_url);
    assert!(place.agent().task().is_none());
    assert!(agent.task().is_none());
    let text = result(&assignment, ResultStatus::Warning);
    agent
        .controllers
        .upload(&assignment.result_url, &text)
        .unwrap();
    assert!(place.read("results/a.manifest").contains("warning"));
}

#[test]
fn a_crash_right_after_the_result_does_not_repeat_the_task() {
    let place = Place::new();
    place.drop_task("a.manifest", TASK);
    let assignment = place.agent().task().unwrap();
    let text = ": 1\nname: libfoo\nversion: 1.2.3\nstatus: success\n";
    fs::write(place.scratch.path().join("results/a.manifest"), text).unwrap();
    let mut agent = place.agent();
    assert!(agent.task().is_none());
    assert_eq!(place.files(), ["done/a.manifest", "results/a.manifest"]);
    // The copy in the store is then delivered a second time: that is fine.
    let text = result(&assignment, ResultStatus::Success);
    agent
        .controllers
        .upload(&assignment.result_url, &text)
        .unwrap();
}

#[test]
fn an_older_result_is_out_of_the_way_when_the_task_is_taken() {
    let place = Place::new();
    let mut agent = place.agent();
    for _ in 0..2 {
        place.drop_task("a.manifest", TASK);
        let assignment = agent.task().unwrap();
        assert!(!place.files().contains(&"results/a.manifest".to_owned()));
        let text = result(&assignment, ResultStatus::Success);
        agent
            .controllers
            .upload(&assignment.result_url, &text)
            .unwrap();
    }
    assert_eq!(
        place.files(),
        [
            "done/a.manifest",
            "results/a.manifest",
            "results/a.manifest.old"
        ]
    );
}

#[test]
fn a_namesake_waits_until_the_first_is_done() {
    let place = Place::new();
    let mut agent = place.agent();
    place.drop_task("a.manifest", TASK);
    let assignment = agent.task().unwrap();
    place.drop_task("a.manifest", TASK);
    assert!(agent.task().is_none());
    assert!(place.agent().task().is_none());
    let text = result(&assignment, ResultStatus::Success);
    agent
        .controllers
        .upload(&assignment.result_url, &text)
        .unwrap();
    assert_eq!(agent.task().unwrap().session, "a");
}

#[test]
fn a_result_that_a_controller_would_refuse_is_refused() {
    let place = Place::new();
    place.drop_task("a.manifest", TASK);
    let mut agent = place.agent();
    let assignment = agent.task().unwrap();
    let good = String::from_utf8(result(&assignment, ResultStatus::Success)).unwrap();
    let url = &assignment.result_url;
    for (text, why) in [
        (
            good.replace("libfoo", "libbar"),
            "result is of libbar/1.2.3",
        ),
        (good.replace("1.2.3", "2"), "result is of libfoo/2"),
        (good.replace("session: a", "session: b"), "session is not a"),
        ("rubbish".to_owned(), "invalid result request manifest: 1:"),
    ] {
        let failure = agent.controllers.upload(url, text.as_bytes()).unwrap_err();
        assert!(failure.is_final());
        assert!(failure.to_string().contains(why), "{failure}");
    }
    let elsewhere = url
        .to_url()
        .replace("results/a.manifest", "results/b.manifest");
    let elsewhere = UploadTarget::parse(&elsewhere).unwrap();
    let text = good.replace("session: a", "session: b");
    let failure = agent
        .controllers
        .upload(&elsewhere, text.as_bytes())
        .unwrap_err();
    assert_eq!(failure.class(), FailureClass::Client(404));
    assert!(!place.files().iter().any(|f| f.starts_with("results")));
    // And still the right one is taken.
    agent.controllers.upload(url, good.as_bytes()).unwrap();
}

#[test]
fn agents_may_begin_to_use_a_directory_at_the_same_time() {
    const AGENTS: usize = 4;
    for _ in 0..50 {
        let place = Place::new();
        let barrier = Barrier::new(AGENTS);
        thread::scope(|scope| {
            for _ in 0..AGENTS {
                scope.spawn(|| {
                    let mut agent = place.agent();
                    barrier.wait();
                    assert!(agent.task().is_none());
                });
            }
        });
    }
}
