//! What an agent makes of its state directory when the kernel refuses something
//! there: one call of the shipped program, by strace(1).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::host::AGENT;
use crate::support::http::{Request, Server, closed_port, listen_on, reserved};
use crate::support::{TempDir, require_programs};

/// A host without machines: an agent there only says what became of its tasks.
struct Place(TempDir);

impl Place {
    fn new() -> Option<Place> {
        if !require_programs(&["strace"]) {
            return None;
        }
        let place = Place(TempDir::new());
        for name in ["machines/v", "tftp", "run", "state/default-1"] {
            fs::create_dir_all(place.0.path().join(name)).unwrap();
        }
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("state/default-1").join(name)
    }

    /// A predecessor died with the task `session` of a controller at `port`.
    fn owes(&self, session: &str, port: u16) {
        let url = format!("http://127.0.0.1:{port}/");
        let line = format!(
            r#"{{"event":"accepted","session":"{session}","controller":"{url}","result-url":"{url}?r","name":"libfoo","version":"1.2.3","machine":"linux"}}"#
        );
        let mut journal = fs::read_to_string(self.path("journal")).unwrap_or_default();
        journal.push_str(&format!("{line}\n"));
        fs::write(self.path("journal"), journal).unwrap();
    }

    /// One turn, with a fault in calls on the file `at`; gives what it says.
    fn turn(&self, port: u16, at: &str, fault: &str) -> String {
        let dir = |name: &str| self.0.path().join(name);
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-P"])
            .arg(self.path(at))
            .args(["-e", fault, AGENT, "--once", "--machines"])
            .arg(dir("machines"))
            .arg("--tftp")
            .arg(dir("tftp"))
            .arg("--run-dir")
            .arg(dir("run"))
            .arg("--state")
            .arg(dir("state"))
            .arg(format!("http://127.0.0.1:{port}/"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    }

    fn undisturbed(&self, port: u16) -> String {
        self.turn(port, "journal", "trace=none")
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

/// The sessions that a controller was told about.
fn told(server: &Server) -> Vec<String> {
    let requests = server.requests();
    let texts = requests.iter().map(Request::text);
    texts
        .filter_map(|text| {
            let line = text.lines().find(|line| line.starts_with("session: "));
            line.map(str::to_owned)
        })
        .collect()
}

#[test]
fn a_stored_result_that_cannot_be_opened_now_is_sent_later() {
    let Some(place) = Place::new() else { return };
    let (socket, port) = reserved();
    place.owes("a", port);
    place.undisturbed(port);
    let [id] = place.names("results").try_into().unwrap();
    let result = format!("results/{id}");
    let server = Server::start_on(listen_on(socket), |mut connection| {
        if connection.request().is_ok() {
            connection.answer("200 OK", "");
        }
    });
    place.owes("b", port);
    let turn = |errno: &str, when: &str| {
        let fault = format!("inject=open,openat:error={errno}:when={when}");
        let said = place.turn(port, &result, &fault);
        let what = "error: unable to read stored result ";
        assert!(said.contains(what), "{said}");
        assert_eq!(place.names("results"), [id.as_str()], "{said}");
        assert_eq!(place.names("aside").len(), 0, "{said}");
        said
    };
    for errno in ["ENFILE", "EMFILE", "ENOMEM"] {
        let said = turn(errno, "1+");
        // The other task may be the one that it is of.
        assert!(said.contains("given back at the next start"), "{said}");
        assert_eq!(told(&server).len(), 0, "{said}");
    }
    // Only when it is about to be posted, after three looks at what there is.
    turn("ENFILE", "4");
    assert_eq!(told(&server), ["session: b"]);
    place.undisturbed(port);
    assert_eq!(told(&server), ["session: b", "session: a"]);
    assert_eq!(place.names("results").len(), 0);
}

#[test]
fn a_result_is_stored_once_when_its_directory_cannot_be_synced() {
    let Some(place) = Place::new() else { return };
    let server = Server::answering("200 OK", "");
    place.owes("a", server.port());
    let said = place.turn(server.port(), "results", "inject=fsync:error=ENOSPC");
    assert!(said.contains("error: unable to store result in "), "{said}");
    // What cannot be stored is sent at once.
    assert_eq!(place.names("results").len(), 0);
    assert_eq!(told(&server), ["session: a"]);
    place.owes("b", server.port());
    // The second attempt is at the cost of the reserve.
    let said = place.turn(server.port(), "results", "inject=fsync:error=ENOSPC:when=1");
    assert!(
        said.contains("the reserve was given up for a result"),
        "{said}"
    );
    assert_eq!(told(&server), ["session: a", "session: b"]);
    assert_eq!(place.names("results").len(), 0);
}

#[test]
fn a_result_that_was_sent_is_not_sent_again_after_a_kill() {
    let Some(place) = Place::new() else { return };
    let (socket, port) = reserved();
    place.owes("a", port);
    place.undisturbed(port);
    let [id] = place.names("results").try_into().unwrap();
    let server = Server::start_on(listen_on(socket), |mut connection| {
        if connection.request().is_ok() {
            connection.answer("200 OK", "");
        }
    });
    place.turn(
        port,
        &format!("results/{id}"),
        "inject=unlink,unlinkat:signal=KILL",
    );
    place.undisturbed(port);
    assert_eq!(told(&server), ["session: a"]);
    assert_eq!(place.names("results").len(), 0);
}

#[test]
fn a_journal_that_cannot_be_read_is_set_aside_unless_it_can_the_next_time() {
    let Some(place) = Place::new() else { return };
    let server = Server::answering("200 OK", "");
    place.owes("a", server.port());
    place.turn(server.port(), "journal", "inject=read:error=EIO:when=1");
    assert_eq!(told(&server), ["session: a"]);
    assert!(!place.path("journal.bad-0").exists());

    place.owes("b", server.port());
    let said = place.turn(server.port(), "journal", "inject=read:error=EIO");
    assert!(said.contains("journal.bad-0"), "{said}");
    assert_eq!(told(&server).len(), 1);
    let kept = fs::read_to_string(place.path("journal.bad-0")).unwrap();
    assert!(kept.contains(r#""b""#));
    // Nothing more is said of it.
    let said = place.undisturbed(closed_port());
    assert!(!said.contains("journal"), "{said}");
}
