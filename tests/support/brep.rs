//! A controller that behaves as brep does: it keeps builds, sessions and
//! challenges, is strict about names, answers 200 to what it ignores, and says
//! nothing to those who cannot prove who they are.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bbot_agent::manifest::hex;
use ring::digest::{SHA256, digest};

use super::http::{Connection, Request, Server};
use super::requests::{
    architecture, bad, check_signature, fingerprint, form, get, has_room, kilobytes, need, stream,
    strict,
};

/// Limits of request bodies (brep's defaults).
const TASK_REQUEST_MAX: usize = 102_400;
const RESULT_MAX: usize = 15_728_640;
const UPLOAD_MAX: usize = 10 << 20;

/// How the controller is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The public keys of agents; with none, agents are not authenticated.
    pub keys: Vec<PathBuf>,
    /// Types of artifacts that are taken.
    pub uploads: Vec<String>,
    /// Whether building is switched off (501).
    pub off: bool,
    /// The agent and login that a user is shown, as `<agent> <login>`; others are
    /// refused.
    pub login: Option<String>,
    /// Whether tasks are given out for machines that were not offered.
    pub careless: bool,
}

/// One build that an agent was given.
#[derive(Clone, Debug)]
pub struct Build {
    pub session: String,
    pub challenge: Option<String>,
    key: Option<PathBuf>,
    pub task: String,
    /// The agent, and when it was given the task.
    pub agent: String,
    pub at: Instant,
    /// The result manifest, once there is one.
    pub result: Option<String>,
    pub agent_checksum: Option<String>,
    /// Instance, file name, content.
    pub uploads: Vec<(String, String, Vec<u8>)>,
}

#[derive(Debug, Default)]
pub struct State {
    setup: Setup,
    /// Where agents reach us, if not directly.
    base: Option<String>,
    queue: Vec<String>,
    pub builds: Vec<Build>,
    /// Why results were answered with 200 and thrown away.
    pub ignored: Vec<String>,
    /// What was refused, with the status.
    pub refused: Vec<(u16, String)>,
    /// Statuses to answer instead of doing anything, the next one last.
    pub moods: Vec<u16>,
    /// The same, for results only.
    pub result_moods: Vec<u16>,
    agent_checksum: Option<String>,
    issued: usize,
    /// How often a task was asked for.
    pub asked: usize,
    /// When, by which agent, and whether it was given one.
    pub polls: Vec<(Instant, String, bool)>,
}

pub struct Brep {
    server: Server,
    state: Arc<Mutex<State>>,
}

type Answer = Result<(u16, String), (u16, String)>;

impl Brep {
    pub fn start(setup: Setup) -> Brep {
        let state = Arc::new(Mutex::new(State {
            setup,
            ..State::default()
        }));
        let shared = state.clone();
        let server = Server::start(move |mut connection: Connection| {
            let Ok(request) = connection.request() else {
                return;
            };
            let mut state = shared.lock().unwrap();
            let (status, body) = state.handle(&request).unwrap_or_else(|refusal| {
                state.refused.push(refusal.clone());
                refusal
            });
            drop(state);
            let kind = if status == 200 {
                "text/manifest;charset=utf-8"
            } else {
                "text/plain"
            };
            connection.send(format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        });
        let brep = Brep { server, state };
        brep.through(&brep.server.url(""));
        brep
    }

    /// Gives out URLs that begin with `base`.
    pub fn through(&self, base: &str) {
        self.state().base = Some(base.to_owned());
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Where tasks are asked for.
    pub fn url(&self) -> String {
        format!("{}/?build-task", self.state().base.clone().unwrap())
    }

    /// Queues a task, the text of a manifest without its first line.
    pub fn queue(&self, task: &str) {
        self.state().queue.push(task.to_owned());
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What happens after the result time-out: builds without a result are
    /// queued again.
    pub fn time_out(&self) {
        self.queue_again(|build| build.result.is_none());
    }

    /// What happens at once to builds that were interrupted: the same.
    pub fn queue_interrupted(&self) {
        self.queue_again(Build::is_interrupted);
    }

    fn queue_again(&self, which: impl Fn(&Build) -> bool) {
        let mut state = self.state();
        let (again, done): (Vec<Build>, Vec<Build>) = std::mem::take(&mut state.builds)
            .into_iter()
            .partition(which);
        state.builds = done;
        state.queue.extend(again.into_iter().map(|b| b.task));
    }
}

impl State {
    fn handle(&mut self, request: &Request) -> Answer {
        if let Some(status) = self.moods.pop() {
            return Err((status, "not in the mood".to_owned()));
        }
        if request.method != "POST" {
            return Err((405, "POST expected".to_owned()));
        }
        let (_, query) = request.target.split_once('?').unwrap_or_default();
        let mut parameters = query.split('&');
        let function = parameters.next().unwrap_or_default();
        let kind = request.header("content-type").unwrap_or_default();
        match function.split_once('=') {
            None if function == "build-task" && kind == "text/manifest" => {
                let known = ["repository", "r", "interactive", "tenant_service_type", "t"];
                for parameter in parameters {
                    let name = parameter.split('=').next().unwrap_or_default();
                    if !known.contains(&name) {
                        return Err(bad(format!("unknown parameter '{name}'")));
                    }
                }
                self.task(&request.body)
            }
            None if function == "build-result" && kind == "text/manifest" => {
                self.result(&request.body)
            }
            Some(("upload", name)) => self.upload(name, kind, &request.body),
            _ => Err(bad("what?")),
        }
    }

    fn task(&mut self, body: &[u8]) -> Answer {
        self.asked += 1;
        if self.setup.off {
            return Err((501, "not implemented".to_owned()));
        }
        if body.len() > TASK_REQUEST_MAX {
            return Err((413, "request is too large".to_owned()));
        }
        let list = stream(body)?;
        let (header, machines) = list.split_first().ok_or_else(|| bad("nothing"))?;
        strict(header, |name| {
            let known = [
                "agent",
                "toolchain-name",
                "toolchain-version",
                "interactive-mode",
                "interactive-login",
                "fingerprint",
                "auxiliary-ram",
            ];
            known.contains(&name)
        })?;
        for name in ["agent", "toolchain-name", "toolchain-version"] {
            need(header, name)?;
        }
        let mut names = Vec::new();
        let mut auxiliary = Vec::new();
        for machine in machines {
            strict(machine, |name| {
                let known = [
                    "id",
                    "name",
                    "summary",
                    "role",
                    "ram-minimum",
                    "ram-maximum",
                ];
                known.contains(&name)
            })?;
            for name in ["id", "name", "summary"] {
                need(machine, name)?;
            }
            let name = need(machine, "name")?;
            match get(machine, "role").unwrap_or("build") {
                "build" => names.push(name),
                "auxiliary" => {
                    architecture(name)?;
                    auxiliary.push((name, kilobytes(machine, "ram-minimum")?));
                    kilobytes(machine, "ram-maximum")?;
                }
                role => return Err(bad(format!("invalid role '{role}'"))),
            }
        }
        let auxiliary_ram = kilobytes(header, "auxiliary-ram")?;
        let none = Ok((200, ": 1\nsession:\n".to_owned()));
        let mut key = None;
        if !self.setup.keys.is_empty() {
            let Some(theirs) = get(header, "fingerprint") else {
                return Err((401, "unauthorized".to_owned()));
            };
            // An unknown agent gets nothing to do.
            let found = self.setup.keys.iter().find(|k| fingerprint(k) == theirs);
            let Some(found) = found else { return none };
            key = Some(found.clone());
        }
        let mode = get(header, "interactive-mode").unwrap_or_default();
        let fits = |task: &String| {
            let pairs = stream(format!(": 1\n{task}").as_bytes()).unwrap();
            let in_mode = match get(&pairs[0], "interactive") {
                Some(_) => ["true", "both"].contains(&&*mode),
                None => mode != "true",
            };
            let is_offered = names.contains(&need(&pairs[0], "machine").unwrap());
            let has_room = || has_room(&pairs[0], &auxiliary, auxiliary_ram);
            self.setup.careless || is_offered && in_mode && has_room()
        };
        let index = self.queue.iter().position(fits);
        let (at, agent) = (Instant::now(), need(header, "agent")?.to_owned());
        self.polls.push((at, agent.clone(), index.is_some()));
        let Some(index) = index else {
            return none;
        };
        if self.queue[index].contains("\ninteractive: ") {
            let login = get(header, "interactive-login").unwrap_or_default();
            let login = format!("{} {login}", need(header, "agent")?);
            if self.setup.login.as_ref() != Some(&login) && !self.setup.careless {
                return Err(bad("unable to match login info"));
            }
        }
        let task = self.queue.remove(index);
        let pairs = stream(format!(": 1\n{task}").as_bytes())?.remove(0);
        self.issued += 1;
        let (name, version) = (need(&pairs, "name")?, need(&pairs, "version")?);
        let toolchain = need(header, "toolchain-version")?;
        let session = format!("/{name}/{version}/linux/{toolchain}/{}", self.issued);
        let challenge = key
            .as_ref()
            .map(|_| hex(digest(&SHA256, session.as_bytes()).as_ref()));
        let base = self.base.clone().unwrap();
        let mut text = format!(": 1\nsession: {session}\n");
        if let Some(challenge) = &challenge {
            text.push_str(&format!("challenge: {challenge}\n"));
        }
        text.push_str(&format!("result-url: {base}/?build-result\n"));
        for kind in &self.setup.uploads {
            text.push_str(&format!("{kind}-upload-url: {base}/?upload={kind}\n"));
        }
        if let Some(checksum) = &self.agent_checksum {
            text.push_str(&format!("agent-checksum: {checksum}\n"));
        }
        text.push_str(&format!(":\n{task}"));
        self.builds.push(Build {
            session,
            challenge,
            key,
            task: task.clone(),
            agent,
            at,
            result: None,
            agent_checksum: None,
            uploads: Vec::new(),
        });
        Ok((200, text))
    }

    fn result(&mut self, body: &[u8]) -> Answer {
        if let Some(status) = self.result_moods.pop() {
            return Err((status, "not in the mood".to_owned()));
        }
        if body.len() > RESULT_MAX {
            return Err((413, "request is too large".to_owned()));
        }
        let list = stream(body)?;
        let [header, result] = list.as_slice() else {
            return Err(bad("result manifest expected"));
        };
        strict(header, |name| {
            ["session", "challenge", "agent-checksum"].contains(&name)
        })?;
        strict(result, |name| {
            let known = [
                "name",
                "version",
                "status",
                "worker-checksum",
                "dependency-checksum",
            ];
            known.contains(&name) || name.ends_with("-status") || name.ends_with("-log")
        })?;
        let session = need(header, "session")?;
        let mut parts = session.split('/').skip(1);
        let (name, version) = (need(result, "name")?, need(result, "version")?);
        if (parts.next(), parts.next()) != (Some(name), Some(version)) {
            return Err(bad("package name or version mismatch"));
        }
        let status = need(result, "status")?;
        let words = [
            "skip",
            "success",
            "warning",
            "error",
            "abort",
            "abnormal",
            "interrupt",
        ];
        if !words.contains(&status) {
            return Err(bad(format!("invalid result status '{status}'")));
        }
        if status == "skip" {
            return Err(bad("unexpected skip result status"));
        }
        let ok = Ok((200, String::new()));
        let open = |b: &&mut Build| b.session == session && b.result.is_none();
        let Some(build) = self.builds.iter_mut().find(open) else {
            self.ignored
                .push(format!("session {session} is not expected"));
            return ok;
        };
        if let Err(why) = build.prove(get(header, "challenge")) {
            self.ignored.push(why);
            return ok;
        }
        build.agent_checksum = get(header, "agent-checksum").map(str::to_owned);
        self.agent_checksum = build.agent_checksum.clone();
        let start = body.windows(7).position(|w| w == b"\n:\nname").unwrap();
        build.result = Some(String::from_utf8_lossy(&body[start + 3..]).into_owned());
        ok
    }

    fn upload(&mut self, kind: &str, content_type: &str, body: &[u8]) -> Answer {
        let say = |status: u16, message: &str| {
            (
                status,
                format!(": 1\nstatus: {status}\nmessage: {message}\n"),
            )
        };
        if !self.setup.uploads.iter().any(|k| k == kind) {
            return Err(say(404, "upload is disabled"));
        }
        if body.len() > UPLOAD_MAX {
            return Err(say(413, "too large"));
        }
        let malformed = || say(400, "malformed form");
        let boundary = content_type
            .strip_prefix("multipart/form-data; boundary=")
            .ok_or_else(malformed)?;
        let fields = form(body, boundary).ok_or_else(malformed)?;
        let field = |name: &str| fields.iter().find(|f| f.name == name);
        let text = |name: &str| {
            let field = field(name)?;
            String::from_utf8(field.content.clone()).ok()
        };
        let session = text("session").ok_or_else(malformed)?;
        let instance = text("instance").ok_or_else(malformed)?;
        let sum = text("sha256sum").ok_or_else(malformed)?;
        let archive = field("archive").ok_or_else(malformed)?;
        let open = |b: &&mut Build| b.session == session && b.result.is_none();
        let Some(build) = self.builds.iter_mut().find(open) else {
            return Err(say(400, "the build is over"));
        };
        if let Err(why) = build.prove(text("challenge").as_deref()) {
            return Err(say(401, &why));
        }
        if hex(digest(&SHA256, &archive.content).as_ref()) != sum {
            return Err(say(422, "checksum mismatch"));
        }
        build
            .uploads
            .push((instance, archive.file.clone(), archive.content.clone()));
        Ok((
            200,
            ": 1\nstatus: 200\nmessage: package is queued\nreference: r1\n".to_owned(),
        ))
    }
}

impl Build {
    /// Whether its agent has given it up.
    pub fn is_interrupted(&self) -> bool {
        let result = self.result.as_deref().unwrap_or_default();
        result.contains("\nstatus: interrupt\n")
    }

    /// Whether `answer` is a signature of our challenge by the agent's key.
    fn prove(&self, answer: Option<&str>) -> Result<(), String> {
        let (Some(challenge), Some(key)) = (&self.challenge, &self.key) else {
            return match answer {
                Some(_) => Err("unexpected challenge".to_owned()),
                None => Ok(()),
            };
        };
        let answer = answer.ok_or("challenge is expected")?;
        check_signature(key, challenge, answer)
    }
}
