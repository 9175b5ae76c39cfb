//! What is written beside a stored result, and its digests.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::json::Value;
use crate::manifest::hex;

/// Where a result goes, and what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Seconds since 1970 when it was stored.
    pub stored: u64,
    /// The boot in which it was, if that has a name.
    pub boot: Option<String>,
    /// Seconds since the start of the host when it was.
    pub uptime: u64,
    /// The controller that the task came from, for diagnostics.
    pub controller: String,
    /// Where it is posted to.
    pub result_url: String,
    /// The controller's name of the task.
    pub session: String,
    /// `<name>/<version> on <machine>`, for diagnostics.
    pub task: String,
}

/// A file to be posted before the result.
pub struct Artifact<'a> {
    /// The `<type>` of `<type>-upload-url`.
    pub kind: String,
    /// Where it is posted to.
    pub url: String,
    /// The upload instance, `archive` for instance.
    pub instance: String,
    /// Its name, without directories.
    pub name: String,
    /// The signed challenge, if the controller authenticates agents.
    pub challenge: Option<String>,
    /// What it holds.
    pub contents: &'a mut dyn Read,
}

impl fmt::Debug for Artifact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("kind", &self.kind)
            .field("instance", &self.instance)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An [`Artifact`] in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredArtifact {
    /// As in [`Artifact`].
    pub kind: String,
    /// As in [`Artifact`].
    pub url: String,
    /// As in [`Artifact`].
    pub instance: String,
    /// As in [`Artifact`].
    pub name: String,
    /// As in [`Artifact`].
    pub challenge: Option<String>,
    /// SHA-256 of its contents, in lower-case hex.
    pub sha256: String,
    /// Where its contents are.
    pub path: PathBuf,
}

/// A result in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name in the store; later ones sort after earlier ones.
    pub id: String,
    /// Where it goes.
    pub envelope: Envelope,
    /// What goes before it, and has not gone yet.
    pub artifacts: Vec<StoredArtifact>,
    /// SHA-256 of its text.
    pub(super) sha256: String,
}

/// A reader that computes SHA-256 of what passes.
pub(super) struct Hashing<'a> {
    reader: &'a mut dyn Read,
    context: ring::digest::Context,
}

impl<'a> Hashing<'a> {
    pub(super) fn new(reader: &'a mut dyn Read) -> Hashing<'a> {
        Hashing {
            reader,
            context: ring::digest::Context::new(&ring::digest::SHA256),
        }
    }

    pub(super) fn finish(self) -> String {
        hex(self.context.finish().as_ref())
    }
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.context.update(&buffer[..count]);
        Ok(count)
    }
}

/// SHA-256 of what is at hand.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

pub(super) fn encode(stored: &Stored) -> Value {
    let artifacts = stored.artifacts.iter().map(|artifact| {
        let mut pairs = vec![
            ("type", string(&artifact.kind)),
            ("url", string(&artifact.url)),
            ("instance", string(&artifact.instance)),
            ("name", string(&artifact.name)),
            ("sha256", string(&artifact.sha256)),
        ];
        if let Some(challenge) = &artifact.challenge {
            pairs.push(("challenge", string(challenge)));
        }
        Value::object(pairs)
    });
    let envelope = &stored.envelope;
    let number = |number: u64| Value::Number(number.to_string());
    Value::object([
        ("stored", number(envelope.stored)),
        ("boot", envelope.boot.as_deref().map_or(Value::Null, string)),
        ("uptime", number(envelope.uptime)),
        ("controller", string(&envelope.controller)),
        ("result-url", string(&envelope.result_url)),
        ("session", string(&envelope.session)),
        ("task", string(&envelope.task)),
        ("sha256", string(&stored.sha256)),
        ("artifacts", Value::Array(artifacts.collect())),
    ])
}

/// `dir` is where its artifacts are.
pub(super) fn decode(dir: &Path, id: &str, value: &Value) -> Option<Stored> {
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let mut artifacts = Vec::new();
    for (i, item) in value.get("artifacts")?.as_array()?.iter().enumerate() {
        let path = dir.join(format!("artifact-{i}"));
        // Posted already. If that cannot be found out, the upload will tell.
        if !path.try_exists().unwrap_or(true) {
            continue;
        }
        artifacts.push(StoredArtifact {
            kind: text(item, "type")?,
            url: text(item, "url")?,
            instance: text(item, "instance")?,
            name: text(item, "name")?,
            challenge: text(item, "challenge"),
            sha256: text(item, "sha256")?,
            path,
        });
    }
    Some(Stored {
        id: id.to_owned(),
        envelope: Envelope {
            stored: value.get("stored")?.as_u64()?,
            boot: text(value, "boot"),
            uptime: value.get("uptime").and_then(Value::as_u64).unwrap_or(0),
            controller: text(value, "controller")?,
            result_url: text(value, "result-url")?,
            session: text(value, "session")?,
            task: text(value, "task")?,
        },
        artifacts,
        sha256: text(value, "sha256")?,
    })
}
