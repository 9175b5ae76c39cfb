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

mod auxiliary;
mod displace;
mod faults;
mod warm;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bbot_agent::snapshot;

use crate::support::brep::{Brep, Build, Setup};
use crate::support::site::Site;
use crate::support::{PATIENCE, Process, isolated, program, require_programs};

/// Calls that may change something; which of them do is seen in the arguments.
const CALLS: &str = "open,openat,openat2,write,pwrite64,writev,rename,renameat,renameat2,unlink,unlinkat,\
                     mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,ioctl,fsync,fdatasync,\
                     syncfs,ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,lchown,\
                     fchownat,utimensat,sendto,sendmsg,sendmmsg,socket,socketpair,bind,listen,\
                     connect,accept4,setsockopt,pipe2,dup,dup3,fcntl,memfd_create,signalfd4,\
                     clone,clone3,fork,vfork,flock,kill,pidfd_open,pidfd_send_signal,prctl";

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

impl Call {
    fn is_tcp(&self) -> bool {
        self.name == "socket" && self.line.contains("AF_INET, SOCK_STREAM")
    }

    fn notes_the_task(&self) -> bool {
        self.name.starts_with("write") && self.line.contains("accepted")
    }
}

/// Whether a call changes anything outside of the process, or takes something
/// that has to be given back.
fn changes(name: &str, line: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    match name {
        "open" | "openat" | "openat2" => {
            has(&["O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC", "O_TMPFILE"])
        }
        // Diagnostics.
        "write" | "writev" => !line.starts_with(&format!("{name}(2,")),
        "fcntl" => has(&["F_DUPFD"]),
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

/// A site, and who has its tasks and wants their results: a directory, or what
/// behaves as brep does.
struct Stage {
    site: Site,
    brep: Option<Brep>,
    /// How often brep had to wait for its time-out until it could hand out a
    /// task again, and got a result again that it had.
    timed_out: Cell<usize>,
    repeated: Cell<usize>,
    /// Further options.
    options: &'static [&'static str],
}

impl Stage {
    fn new(http: bool) -> Option<Stage> {
        Some(Stage {
            site: Site::new()?,
            brep: http.then(|| Brep::start(Setup::default())),
            timed_out: Cell::new(0),
            repeated: Cell::new(0),
            options: &[],
        })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = self.site.arguments();
        arguments.splice(0..0, self.options.iter().map(|word| (*word).to_owned()));
        if let Some(brep) = &self.brep {
            arguments.pop();
            arguments.extend(["--toolchain-ver", "0.17.0", &brep.url()].map(str::to_owned));
        }
        arguments
    }

    fn task(&self, name: &str) {
        match &self.brep {
            None => self.site.task(name),
            Some(brep) => brep.queue(&format!(
                "name: {name}\nversion: 1.2.3\nrepository-url: https://example.org/1\n\
                 repository-type: pkg\nmachine: linux\ntarget: x86_64-linux-gnu\n"
            )),
        }
    }

    /// Takes the result of `task` and everything else that is the task's away.
    fn collect(&self, task: &str) -> Option<String> {
        if let Some(brep) = &self.brep {
            let mut state = brep.state();
            let at = state
                .builds
                .iter()
                .position(|build| build.result.is_some() && !build.is_interrupted())?;
            let build = state.builds.remove(at);
            assert!(build.session.contains(&format!("/{task}/")));
            assert!(state.builds.is_empty());
            self.repeated
                .set(self.repeated.get() + std::mem::take(&mut state.ignored).len());
            return build.result;
        }
        let result = self.site.result(task)?;
        for dir in ["results", "done"] {
            let file = self.site.path("controller").join(dir);
            let _ = fs::remove_file(file.join(format!("{task}.manifest")));
        }
        Some(result)
    }

    /// Which result is there for a task; another one is another result.
    fn identity(&self, task: &str) -> Option<(u64, i64)> {
        if let Some(brep) = &self.brep {
            let state = brep.state();
            let has = |build: &&Build| build.result.is_some() && !build.is_interrupted();
            let count = state.builds.iter().filter(has).count();
            return (count > 0).then_some((count as u64, 0));
        }
        let results = self.site.path("controller/results");
        let file = fs::metadata(results.join(format!("{task}.manifest"))).ok()?;
        Some((file.ino(), file.mtime_nsec()))
    }

    /// Has the controller hand the task out again. It does so at once if it was
    /// told of the interruption, and else in some hours.
    fn again(&self) {
        let Some(brep) = &self.brep else { return };
        brep.queue_interrupted();
        let open = brep.state().builds.len();
        if open > 0 {
            self.timed_out.set(self.timed_out.get() + 1);
            brep.time_out();
        }
    }
}

/// The calls of a turn that nothing happens to.
fn calls(stage: &Stage) -> Vec<Call> {
    let log = stage.site.path("strace.log");
    let mut command = Command::new(program("strace").unwrap());
    command
        .args(["-qq", "-o", log.to_str().unwrap(), "-e"])
        .arg(format!("trace={CALLS}"));
    let status = finish(stage, command);
    assert!(status.success(), "an undisturbed turn fails: {status}");
    of_log(&log)
}

/// The calls in a log of strace, which is removed.
fn of_log(log: &Path) -> Vec<Call> {
    let text = fs::read_to_string(log).unwrap();
    fs::remove_file(log).unwrap();
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
fn finish(stage: &Stage, mut tracer: Command) -> ExitStatus {
    let site = &stage.site;
    // The pause after the last template is over.
    let _ = fs::remove_file(site.path("state/default-1/templates"));
    let output = fs::File::create(site.path("agent.log")).unwrap();
    let mut process = Process(
        tracer
            .arg(Site::agent())
            .args(stage.arguments())
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
        assert!(Instant::now() < deadline, "it hangs: {}", diagnostics(site));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn diagnostics(site: &Site) -> String {
    fs::read_to_string(site.path("agent.log")).unwrap_or_default()
}

/// What a round makes anew.
fn reset(site: &Site) {
    snapshot::delete(&site.machine().join("linux-default")).unwrap();
}

/// Starts agents until the task is done. Returns the result.
fn recover(stage: &Stage, task: &str, sent: Option<(u64, i64)>) -> Result<String, String> {
    let mut all = String::new();
    for _ in 0..STARTS {
        // The pause after a failed bootstrap is over.
        let _ = fs::remove_file(stage.site.path("state/default-1/bootstraps"));
        let status = finish(stage, Command::new("env"));
        all.push_str(&format!("{}[{status}]\n", diagnostics(&stage.site)));
        if sent.is_some() && stage.identity(task) != sent {
            return Err(format!("the result is sent twice\n{all}"));
        }
        if let Some(result) = stage.collect(task) {
            return Ok(result);
        }
        stage.again();
    }
    Err(format!("the task is lost\n{all}"))
}

/// What an agent could leave behind, but for the evidence of failed guests and the notes
/// of warnings.
fn inventory(site: &Site) -> BTreeSet<String> {
    let may_stay = |line: &String| {
        let of_agent = line.strip_prefix("file state/default-");
        let name = of_agent.and_then(|rest| rest.split_once('/'));
        name.is_some_and(|(_, name)| {
            matches!(name, "notes" | "templates")
                || name.starts_with("failed") && !name.contains(".partial")
        })
    };
    let mut all = site.inventory();
    all.retain(|line| !may_stay(line));
    all
}

/// What differs from `before`, once it has come to rest.
fn difference(site: &Site, before: &BTreeSet<String>) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = inventory(site);
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
/// looks at how the obstructed turn ended. With a controller over HTTP, only what
/// comes after the first connection to it is of interest.
fn torture(
    what: &str,
    some: usize,
    offset: usize,
    fault: &str,
    http: bool,
    applies: impl Fn(&Call) -> bool + Send + Sync,
    judge: impl Fn(&Site, ExitStatus) -> Result<(), String> + Send + Sync,
) {
    isolated(|| {
        if !require_programs(&["strace"]) {
            return;
        }
        let Some(stage) = Stage::new(http) else {
            return;
        };
        let site = &stage.site;
        // The first turn makes directories that stay; the second is the measure.
        let mut turn = Vec::new();
        let mut before = BTreeSet::new();
        for n in 0..2 {
            let task = format!("warm-{n}");
            stage.task(&task);
            turn = calls(&stage);
            let result = stage.collect(&task);
            assert!(result.is_some(), "no result: {}", diagnostics(site));
            before = inventory(site);
            if n == 0 {
                reset(site);
            }
        }
        let total = turn.len();
        if http {
            let first = turn.iter().position(Call::is_tcp).unwrap();
            turn.drain(..first);
        }
        let turn: Vec<Call> = turn.into_iter().filter(applies).collect();
        let rounds = chosen(turn, some, offset);
        eprintln!(
            "{what}: {} of {total} calls that change something",
            rounds.len()
        );
        // Until the task is in the journal, nobody knows of it.
        let noted = rounds.iter().position(Call::notes_the_task);

        let mut failures = Vec::new();
        for (n, call) in rounds.iter().enumerate() {
            reset(site);
            let task = format!("t-{n}");
            stage.task(&task);
            let timed_out = stage.timed_out.get();
            let mut tracer = Command::new(program("strace").unwrap());
            tracer
                .args(["-qq", "-o", "/dev/null", "-e"])
                .arg(format!("trace={}", call.name))
                .args([
                    "-e",
                    &format!("inject={}:{fault}:when={}", call.name, call.index),
                ]);
            eprintln!("{what}: {} {}", call.name, call.index);
            let status = finish(&stage, tracer);
            let mut obstructed = diagnostics(site);
            obstructed.push_str(&format!("[{status}]\n"));
            let mut wrong = judge(site, status).err().unwrap_or_default();
            // It may have finished the task all the same; not twice, then.
            let sent = stage.identity(&task);
            match recover(&stage, &task, sent) {
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
            finish(&stage, Command::new("env"));
            wrong.push_str(&difference(site, &before));
            if stage.timed_out.get() > timed_out && noted.is_some_and(|noted| n > noted) {
                wrong.push_str("the controller is not told of the interruption");
            }
            if !wrong.is_empty() {
                failures.push(format!(
                    "{} {}: {}\nobstructed turn:\n{obstructed}wrong:\n{wrong}",
                    call.name, call.index, call.line
                ));
                // What is wrong now must not be the next round's fault.
                before = inventory(site);
            }
        }
        if http {
            eprintln!(
                "{what}: {} tasks handed out again after the time-out, {} results sent again",
                stage.timed_out.get(),
                stage.repeated.get()
            );
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
    torture("killed", 16, 3, KILL, false, |_| true, |_, _| Ok(()));
}

#[test]
fn killed_anywhere_it_loses_nothing_between_it_and_a_controller() {
    torture("killed (http)", 8, 1, KILL, true, |_| true, |_, _| Ok(()));
}
