//! Artifacts, which go before their result and do not keep it waiting for ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bbot_agent::controller::address::UploadTarget;

use super::{Agent, EXPIRY, TASK, key, now, sent};
use crate::support::brep::{Brep, Setup};
use crate::support::http::Server;
use crate::support::relay::{Fault, Relay};
use crate::support::{TempDir, require_programs, run};

/// An archive of artifacts, as a worker uploads it.
fn archive(dir: &Path, members: &[(&str, &[u8])]) -> PathBuf {
    let root = dir.join("members");
    for (name, contents) in members {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    let archive = dir.join("upload.tar");
    let names: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    run(&format!(
        "tar -C {} -cf {} {}",
        root.display(),
        archive.display(),
        names.join(" ")
    ));
    archive
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
    let mut assignment = agent.task().unwrap();
    let content = vec![b'\r'; 300_000];
    let archive = archive(
        scratch.path(),
        &[
            ("bindist/archive/libfoo-1.2.3.tar.xz", &content),
            ("other/archive/x", b"x"),
            ("bindist/archive/huge", &vec![b'x'; 11 << 20]),
        ],
    );
    // An upload that the controller has switched off meanwhile.
    let mut disabled = assignment.upload_urls[0].clone();
    disabled.0 = "other".to_owned();
    let url = disabled.1.to_url().replace("bindist", "other");
    disabled.1 = UploadTarget::parse(&url).unwrap();
    assignment.upload_urls.push(disabled);
    agent.perform(&assignment, Some(&archive));
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
    let memory = TempDir::in_memory();
    let brep = Brep::start(Setup {
        uploads: vec!["bindist".to_owned()],
        ..Setup::default()
    });
    let relay = Relay::start(brep.port());
    brep.through(&relay.url(""));
    let mut agent = Agent::new(memory.path(), &brep.url(), None);
    let archive = archive(memory.path(), &[("bindist/archive/a", b"some bytes")]);
    let mut step = 0;
    let mut round = 0;
    loop {
        brep.queue(TASK);
        let assignment = agent.task().unwrap();
        agent.perform(&assignment, Some(&archive));
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
    let mut assignment = agent.task().unwrap();
    let broken = Server::answering("500 Oops", "no");
    let broken = UploadTarget::parse(&broken.url("/?upload=bindist")).unwrap();
    assignment.upload_urls.push(("bindist".to_owned(), broken));
    let archive = archive(scratch.path(), &[("bindist/archive/a", b"x")]);
    agent.perform(&assignment, Some(&archive));
    assert_eq!(agent.deliver().waiting, 1);
    drop(agent);
    let mut agent = Agent::new(scratch.path(), &brep.url(), None);
    let later = now().uptime + EXPIRY / 6 * 5 + Duration::from_secs(2);
    assert_eq!(agent.deliver_at(later), sent(1));
    assert!(brep.state().builds[0].result.is_some());
}
