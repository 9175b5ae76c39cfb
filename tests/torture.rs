//! The shipped program, unmodified, killed and obstructed at every system call
//! that changes something (strace(1), `inject=`).
//!
//! Each round is a whole turn, bootstrap and build, of a real agent on a real
//! file system and network with guests that take milliseconds. In the middle of
//! it the kernel kills the agent, or refuses one call. Then an agent is started
//! as the operator would, and has to finish the task; and everything on the
//! host has to be as it is after a turn that nothing happened to.
//!
//! `make test` tries some calls, `make torture` (`BBOT_AGENT_TORTURE=all`) each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bbot_agent::snapshot;

use crate::support::site::Site;
use crate::support::{PATIENCE, Process, isolated, program, require_programs};

/// Calls that may change something; which of them do is seen in the arguments.
const CALLS: &str = "openat,write,pwrite64,writev,rename,renameat,renameat2,unlink,unlinkat,\
                     mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,ioctl,fsync,fdatasync,\
                     syncfs,ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,lchown,\
                     fchownat,utimensat,sendto,sendmsg,sendmmsg,socket,socketpair,bind,listen,\
                     connect,setsockopt,clone,clone3,fork,vfork,flock,kill,pidfd_open,\
                     pidfd_send_signal,prctl";

const KILL: &str = "signal=KILL";

/// How long a turn may take under strace on a busy machine; more is a hang.
const HANG: Duration = Duration::from_secs(90);

/// How many starts may be needed until the task is done: the first may have to
/// report the interruption, and to be given the task again.
const STARTS: u32 = 4;

/// A call of a turn: the `index`th of its name, from 1.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    index: usize,
    /// As strace shows it.
    line: String,
}

/// Whether a call changes anything outside of the process, or takes something
/// that has to be given back.
fn changes(name: &str, line: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    match name {
        "openat" => has(&["O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC", "O_TMPFILE"]),
        // Diagnostics.
        "write" | "writev" => !line.starts_with(&format!("{name}(2,")),
        "ioctl" => !has(&[
            "SIOCG",
            "TCGETS",
            "TIOC",
            "GETFLAGS",
            "FIOCLEX",
            "SYNC_WAIT",
        ]),
        _ => true,
    }
}

/// The calls of a turn that nothing happens to.
fn calls(site: &Site) -> Vec<Call> {
    let log = site.path("strace.log");
    let mut command = Command::new(program("strace").unwrap());
    command
        .args(["-qq", "-o", log.to_str().unwrap(), "-e"])
        .arg(format!("trace={CALLS}"));
    let status = finish(site, command);
    assert!(status.success(), "an undisturbed turn fails: {status}");
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    let mut counts = BTreeMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((name, _)) = line.split_once('(') else {
            continue;
        };
        let index = counts.entry(name.to_owned()).or_insert(0);
        *index += 1;
        if changes(name, line) {
            found.push(Call {
                name: name.to_owned(),
                index: *index,
                line: line.to_owned(),
            });
        }
    }
    found
}

/// Runs the agent under `tracer` to its end.
fn finish(site: &Site, mut tracer: Command) -> std::process::ExitStatus {
    let output = fs::File::create(site.path("agent.log")).unwrap();
    let mut process = Process(
        tracer
            .arg(Site::agent())
            .args(site.arguments())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap(),
    );
    let deadline = Instant::now() + HANG;
    loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it hangs: {}", said(site));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn said(site: &Site) -> String {
    fs::read_to_string(site.path("agent.log")).unwrap_or_default()
}

/// Takes the result of `task` and everything else that is the task's away.
fn collect(site: &Site, task: &str) -> Option<String> {
    let result = site.result(task)?;
    for dir in ["results", "done"] {
        let file = site
            .path("controller")
            .join(dir)
            .join(format!("{task}.manifest"));
        let _ = fs::remove_file(file);
    }
    Some(result)
}

/// What a round makes anew.
fn reset(site: &Site) {
    snapshot::delete(&site.machine().join("linux-default")).unwrap();
}

/// The file of a result, if it is there; another file is another result.
fn identity(site: &Site, task: &str) -> Option<(u64, i64)> {
    let results = site.path("controller/results");
    let file = fs::metadata(results.join(format!("{task}.manifest"))).ok()?;
    Some((file.ino(), file.mtime_nsec()))
}

/// Starts agents until the task is done. Returns the result.
fn recover(site: &Site, task: &str, sent: Option<(u64, i64)>) -> Result<String, String> {
    let mut all = String::new();
    for _ in 0..STARTS {
        let status = finish(site, Command::new("env"));
        all.push_str(&format!("{}[{status}]\n", said(site)));
        if sent.is_some() && identity(site, task) != sent {
            return Err(format!("the result is sent twice\n{all}"));
        }
        if let Some(result) = collect(site, task) {
            return Ok(result);
        }
    }
    Err(format!("the task is lost\n{all}"))
}

/// What differs from `before`, once it has come to rest.
fn difference(site: &Site, before: &BTreeSet<String>) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = site.inventory();
        if now == *before {
            return String::new();
        }
        if Instant::now() > deadline {
            let lines = |mark: char, lines: Vec<&String>| -> String {
                lines
                    .iter()
                    .map(|line| format!("{mark} {line}\n"))
                    .collect()
            };
            return lines('+', now.difference(before).collect())
                + &lines('-', before.difference(&now).collect());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Which of `calls` to try: all, or some that are spread over the turn.
fn chosen(calls: Vec<Call>, some: usize, offset: usize) -> Vec<Call> {
    if std::env::var("BBOT_AGENT_TORTURE").as_deref() == Ok("all") {
        return calls;
    }
    let step = (calls.len() / some).max(1);
    calls
        .into_iter()
        .skip(offset % step)
        .step_by(step)
        .collect()
}

/// One round for each call: `fault` is what strace is to inject there. `judge`
/// looks at how the obstructed turn ended.
fn torture(
    what: &str,
    some: usize,
    offset: usize,
    fault: &str,
    applies: impl Fn(&Call) -> bool + Send + Sync,
    judge: impl Fn(&Site, std::process::ExitStatus) -> Result<(), String> + Send + Sync,
) {
    isolated(|| {
        if !require_programs(&["strace"]) {
            return;
        }
        let Some(site) = Site::new() else { return };
        // The first turn makes directories that stay; the second is the measure.
        let mut turn = Vec::new();
        let mut before = BTreeSet::new();
        for n in 0..2 {
            let task = format!("warm-{n}");
            site.task(&task);
            turn = calls(&site);
            assert!(
                collect(&site, &task).is_some(),
                "no result: {}",
                said(&site)
            );
            before = site.inventory();
            if n == 0 {
                reset(&site);
            }
        }
        let total = turn.len();
        let turn: Vec<Call> = turn.into_iter().filter(applies).collect();
        let rounds = chosen(turn, some, offset);
        eprintln!(
            "{what}: {} of {total} calls that change something",
            rounds.len()
        );

        let mut failures = Vec::new();
        for (n, call) in rounds.iter().enumerate() {
            reset(&site);
            let task = format!("t-{n}");
            site.task(&task);
            let mut tracer = Command::new(program("strace").unwrap());
            tracer
                .args(["-qq", "-o", "/dev/null", "-e"])
                .arg(format!("trace={}", call.name))
                .args([
                    "-e",
                    &format!("inject={}:{fault}:when={}", call.name, call.index),
                ]);
            eprintln!("{what}: {} {}", call.name, call.index);
            let status = finish(&site, tracer);
            let mut obstructed = said(&site);
            obstructed.push_str(&format!("[{status}]\n"));
            let mut wrong = judge(&site, status).err().unwrap_or_default();
            // It may have finished the task all the same; not twice, then.
            let sent = identity(&site, &task);
            match recover(&site, &task, sent) {
                Ok(result) if result.contains("status: success") => {}
                // A call that failed may cost the task, if the result says so.
                Ok(result) if result.contains("status: abort") && fault != KILL => {
                    if !result.contains("configure-log: bbot-agent: ") {
                        wrong.push_str(&format!("an abort without a reason: {result}"));
                    }
                }
                Ok(result) => wrong.push_str(&format!("another result: {result}")),
                Err(why) => wrong.push_str(&why),
            }
            // What was lost or left is found by one more start, without a task.
            finish(&site, Command::new("env"));
            wrong.push_str(&difference(&site, &before));
            if !wrong.is_empty() {
                failures.push(format!(
                    "{} {}: {}\nobstructed turn:\n{obstructed}wrong:\n{wrong}",
                    call.name, call.index, call.line
                ));
                // What is wrong now must not be the next round's fault.
                before = site.inventory();
            }
        }
        let count = failures.len();
        assert!(
            failures.is_empty(),
            "{what}: {count} of {} rounds failed\n{}",
            rounds.len(),
            failures.join("\n----\n")
        );
    });
}

#[test]
fn killed_anywhere_it_loses_and_leaves_nothing() {
    torture("killed", 16, 3, KILL, |_| true, |_, _| Ok(()));
}

/// An obstructed turn ends by itself, in order, and says what was wrong.
fn explained(site: &Site, status: std::process::ExitStatus) -> Result<(), String> {
    let said = said(site);
    if said.contains("panicked at src") || status.code().is_none() || status.code() == Some(101) {
        return Err(format!("it ended with {status}\n"));
    }
    if !status.success() && !said.contains("error: ") {
        return Err("it says nothing about it\n".to_owned());
    }
    Ok(())
}

fn refused(errno: &str, some: usize, offset: usize, names: &'static [&'static str]) {
    torture(
        errno,
        some,
        offset,
        &format!("error={errno}"),
        move |call| names.contains(&call.name.as_str()),
        explained,
    );
}

/// Calls that can fail for want of space, or of a working disk.
const ON_DISK: &[&str] = &[
    "openat",
    "write",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "fsync",
    "fdatasync",
    "syncfs",
    "ftruncate",
    "fallocate",
    "ioctl",
    "unlink",
    "unlinkat",
    "rmdir",
];

#[test]
fn a_full_disk_anywhere_is_explained_and_leaves_nothing() {
    refused("ENOSPC", 8, 1, ON_DISK);
}

#[test]
fn a_broken_disk_anywhere_is_explained_and_leaves_nothing() {
    refused("EIO", 8, 2, ON_DISK);
}

#[test]
fn no_descriptor_left_is_explained_and_leaves_nothing() {
    refused(
        "EMFILE",
        6,
        1,
        &["openat", "socket", "socketpair", "pidfd_open"],
    );
}

#[test]
fn no_memory_left_is_explained_and_leaves_nothing() {
    refused(
        "ENOMEM",
        6,
        0,
        &[
            "openat", "socket", "ioctl", "sendto", "clone", "clone3", "vfork", "fork", "mkdir",
        ],
    );
}

#[test]
fn an_interrupted_call_is_made_again() {
    refused(
        "EINTR",
        6,
        0,
        &["openat", "write", "flock", "sendto", "connect", "fsync"],
    );
}
