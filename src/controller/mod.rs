//! Controllers: who is asked for tasks, and told the results.
//!
//! A controller is an HTTP server that speaks brep's protocol, or a directory
//! that plays one ([`spool`]). Both answer a task request with a task response
//! and take result requests; everything else is the same code.
//!
//! A controller that cannot be asked is a [`Failure`], a value: the next one is
//! asked, and the caller reports.

pub mod address;
pub mod failure;
mod header;
pub mod http;
pub mod multipart;
mod notes;
mod order;
mod proxies;
mod roots;
pub mod spool;
mod strict;
mod transport;
pub mod url;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use crate::error::Result;
use crate::manifest::{ParseError, Style, TaskManifest, TaskRequest, TaskResponse};
use crate::priority::Priority;
use crate::watch::Watch;

use address::{ControllerAddress, ControllerArgument, UploadTarget};
use failure::{Failure, FailureClass};
use http::{Body, Client, Settings};
use multipart::Form;
use notes::Notes;
pub(crate) use order::Shuffle;

use spool::Spool;
use url::{Url, masked};

/// The maximum size of a task response, in bytes. Tasks have a few kB.
const RESPONSE_MAX: u64 = 1 << 20;
/// The maximum size of the answer to an upload, in bytes.
const UPLOAD_ANSWER_MAX: u64 = 64 << 10;
/// The media type of manifests.
const MANIFEST: &str = "text/manifest";

/// A task, and all that it takes to bring its result back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The controller, for diagnostics.
    pub controller: String,
    /// The controller's name of the task, opaque.
    pub session: String,
    /// The text to sign, if the controller authenticates agents.
    pub challenge: Option<String>,
    /// Where the result goes.
    pub result_url: UploadTarget,
    /// Where artifacts go, by their type.
    pub upload_urls: Vec<(String, UploadTarget)>,
    /// The agent checksum that came with the last result of this build.
    pub agent_checksum: Option<String>,
    /// The priority of the controller.
    pub priority: Priority,
    /// The task.
    pub task: TaskManifest,
}

impl Assignment {
    /// The assignment of a task that no controller has given out: the original's
    /// words for `--fake-request`. Its result can be delivered nowhere.
    pub fn fake(task: TaskManifest) -> Assignment {
        Assignment {
            controller: "http://example.org".to_owned(),
            session: "fake-session".to_owned(),
            challenge: None,
            result_url: UploadTarget::Nowhere,
            upload_urls: Vec::new(),
            agent_checksum: None,
            priority: Priority::default(),
            task,
        }
    }
}

/// One controller of the command line.
#[derive(Clone, Debug)]
struct Controller {
    priority: Priority,
    address: ControllerAddress,
}

/// The controllers of the command line.
#[derive(Debug)]
pub struct Controllers {
    list: Vec<Controller>,
    /// Directories that play controller: those of `list`, and those that a
    /// stored result came from.
    spools: Vec<Spool>,
    client: Client,
    shuffle: Shuffle,
    notes: Notes,
    pub(crate) watch: Watch,
}

impl Controllers {
    /// Takes the arguments `[<priority>=]<url>`. Makes no connection.
    pub fn new(arguments: &[String], settings: &Settings, watch: &Watch) -> Result<Controllers> {
        let client = Client::new(settings, watch)?;
        let mut list = Vec::new();
        for argument in arguments {
            let ControllerArgument { priority, address } = ControllerArgument::parse(argument)?;
            if matches!(&address, ControllerAddress::Http(url) if url.scheme() == "https") {
                client
                    .check_https()
                    .map_err(|failure| failure.into_error(&format!("unable to use {address}")))?;
            }
            list.push(Controller { priority, address });
        }
        Ok(Controllers {
            list,
            spools: Vec::new(),
            client,
            shuffle: Shuffle::seeded(),
            notes: Notes::default(),
            watch: watch.clone(),
        })
    }

    /// Keeps the warnings that were given in the file at `path`, so that an agent that
    /// is started for each turn gives each once. With `repeats` they are given again.
    pub fn keep_notes(&mut self, path: PathBuf, repeats: bool) {
        self.notes = Notes::open(path, repeats);
    }

    /// Gives the warning `text` about `subject`, unless it was given before; without a
    /// text it is new the next time.
    pub fn note(&mut self, subject: &str, text: Option<String>) {
        self.notes.report(subject, text.into_iter().collect(), true);
    }

    /// The numbers of the controllers, in the order to ask them now.
    pub fn order(&mut self) -> Vec<usize> {
        let priorities: Vec<_> = self.list.iter().map(|c| c.priority).collect();
        self.shuffle.order(&priorities)
    }

    /// The priority of a controller, by its number on the command line.
    pub fn priority(&self, number: usize) -> Priority {
        self.list[number].priority
    }

    /// A controller as it is shown, by its number on the command line.
    pub fn name(&self, number: usize) -> String {
        self.list[number].address.to_string()
    }

    /// Asks a controller for a task.
    ///
    /// # Errors
    ///
    /// Why it could not be asked. The next one may still have a task.
    pub fn ask(
        &mut self,
        number: usize,
        request: &TaskRequest,
    ) -> Result<Option<Assignment>, Failure> {
        let controller = self.list[number].clone();
        let name = controller.address.to_string();
        let path = match &controller.address {
            ControllerAddress::Http(url) => {
                let response = self.post_request(url, request)?;
                let assignment = |response| assignment(name, controller.priority, response);
                return response.map(assignment).transpose();
            }
            ControllerAddress::Directory(path) => path,
        };
        let mut notes = BTreeSet::new();
        let taken = self.spool(path).take(request, &mut notes);
        // After a task or a failure some tasks were not looked at.
        let all = matches!(taken, Ok(None));
        self.notes.report(&name, notes, all);
        Ok(taken?.map(|(session, task)| Assignment {
            controller: name,
            challenge: None,
            result_url: UploadTarget::Spool {
                directory: path.clone(),
                task: session.clone(),
            },
            session,
            upload_urls: Vec::new(),
            agent_checksum: None,
            priority: controller.priority,
            task,
        }))
    }

    fn post_request(
        &self,
        url: &Url,
        request: &TaskRequest,
    ) -> Result<Option<TaskResponse>, Failure> {
        let text = request.to_text(Style::OLD).map_err(|error| {
            let why = format!("unable to write task request: {error}");
            Failure::new(FailureClass::Setup, why)
        })?;
        let body = Body::Bytes(text.as_bytes());
        let answer = self.client.post(url, MANIFEST, &body, RESPONSE_MAX)?;
        TaskResponse::parse(&answer.body, "")
            .map_err(|error| unreadable(&error, &answer.content_type))
    }

    /// Posts a result request. Once this is `Ok` the controller has it; it may
    /// have it after a failure as well, and ignores it the second time.
    ///
    /// # Errors
    ///
    /// Whatever is not a 2xx, classified: see [`Failure::is_final`].
    pub fn upload(&mut self, target: &UploadTarget, text: &[u8]) -> Result<(), Failure> {
        match target {
            UploadTarget::Http(url) => {
                // The header says all: what comes after it is not waited for.
                let body = Body::Bytes(text);
                self.client.post(url, MANIFEST, &body, 0).map(|_| ())
            }
            UploadTarget::Spool { directory, task } => self.spool(directory).deliver(task, text),
            UploadTarget::Nowhere => Ok(()),
        }
    }

    /// Posts an artifact; returns what the controller says about it.
    ///
    /// # Errors
    ///
    /// Whatever is not a 2xx, classified. 422 (wrong checksum) is final.
    pub fn upload_artifact(
        &self,
        target: &UploadTarget,
        form: &Form<'_>,
        file: &File,
    ) -> Result<String, Failure> {
        let UploadTarget::Http(url) = target else {
            let why = "artifacts can only be posted to http: and https: urls";
            return Err(Failure::new(FailureClass::Client(400), why));
        };
        let form = form.encode();
        let body = Body::File(&form.before, file, &form.after);
        let answer = self
            .client
            .post(url, &form.content_type, &body, UPLOAD_ANSWER_MAX)?;
        Ok(multipart::message(&answer.body))
    }

    /// Locks a claimed task of a directory after a restart: its result is stored and will
    /// be delivered, so that no other agent is to take it. Does nothing for other
    /// controllers.
    pub fn hold(&mut self, target: &UploadTarget) {
        if let UploadTarget::Spool { directory, task } = target {
            self.spool(directory).hold(task);
        }
    }

    /// Gives a task of a directory back, since we are told to stop: it has not
    /// been tried then. Does nothing for other controllers, which are sent a
    /// result.
    pub fn release(&mut self, target: &UploadTarget) {
        if let UploadTarget::Spool { directory, task } = target {
            self.spool(directory).release(task);
        }
    }

    fn spool(&mut self, dir: &std::path::Path) -> &mut Spool {
        let known = self.spools.iter().position(|spool| spool.dir() == dir);
        let index = known.unwrap_or_else(|| {
            self.spools.push(Spool::new(PathBuf::from(dir)));
            self.spools.len() - 1
        });
        &mut self.spools[index]
    }
}

/// The assignment of a controller's answer.
fn assignment(
    controller: String,
    priority: Priority,
    response: TaskResponse,
) -> Result<Assignment, Failure> {
    // A server must not make the agent write files of the server's choice.
    let target = |what: &str, text: &str| {
        Url::parse(text).map(UploadTarget::Http).map_err(|why| {
            let text = masked(text);
            Failure::new(FailureClass::Content, format!("{what} '{text}': {why}"))
        })
    };
    let result_url = target("result-url", &response.result_url)?;
    let mut upload_urls = Vec::new();
    for (kind, text) in response.upload_urls {
        let url = target(&format!("{kind}-upload-url"), &text)?;
        upload_urls.push((kind, url));
    }
    Ok(Assignment {
        controller,
        session: response.session,
        challenge: response.challenge,
        result_url,
        upload_urls,
        agent_checksum: response.agent_checksum,
        priority,
        task: response.task,
    })
}

fn unreadable(error: &ParseError, content_type: &str) -> Failure {
    let mut why = error.to_string();
    // The login page of a captive portal is not a manifest with mistakes.
    if !content_type.is_empty() && !content_type.starts_with(MANIFEST) {
        why = format!("the answer is {content_type}, not {MANIFEST}: {why}");
    }
    Failure::new(FailureClass::Content, why)
}
