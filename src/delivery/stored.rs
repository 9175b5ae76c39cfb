//! Stored results and artifacts, their JSON, and their digests.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::task::TaskRecord;
use crate::controller::address::UploadTarget;
use crate::json::Value;
use crate::manifest::hex;

/// A file that is posted before the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredArtifact {
    /// The `<type>` of `<type>-upload-url`.
    pub kind: String,
    /// Where it is posted to.
    pub url: UploadTarget,
    /// The upload instance, `archive` for instance.
    pub instance: String,
    /// Its name, without directories.
    pub name: String,
    /// The signed challenge, if the controller authenticates agents.
    pub challenge: Option<String>,
    /// SHA-256 of its contents, in lower-case hex.
    pub sha256: String,
    /// The file with its contents.
    pub path: PathBuf,
}

/// A result in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredResult {
    /// Its name in the queue; later ones sort after earlier ones.
    pub id: String,
    /// The task.
    pub task: TaskRecord,
    /// The artifacts that go before it, and have not gone yet.
    pub artifacts: Vec<StoredArtifact>,
    /// SHA-256 of its text.
    pub(super) sha256: String,
}

/// A reader that computes SHA-256 of what passes.
pub(super) struct Hashing<R> {
    reader: R,
    context: ring::digest::Context,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(reader: R) -> Hashing<R> {
        Hashing {
            reader,
            context: ring::digest::Context::new(&ring::digest::SHA256),
        }
    }

    pub(super) fn finish(self) -> String {
        hex(self.context.finish().as_ref())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.context.update(&buffer[..count]);
        Ok(count)
    }
}

/// SHA-256 in lower-case hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

pub(super) fn encode(stored: &StoredResult) -> Value {
    let artifacts = stored.artifacts.iter().map(|artifact| {
        let mut pairs = vec![
            ("type", Value::from(artifact.kind.as_str())),
            ("url", artifact.url.to_url().into()),
            ("instance", artifact.instance.as_str().into()),
            ("name", artifact.name.as_str().into()),
            ("sha256", artifact.sha256.as_str().into()),
        ];
        if let Some(challenge) = &artifact.challenge {
            pairs.push(("challenge", challenge.as_str().into()));
        }
        Value::object(pairs)
    });
    let artifacts = Value::Array(artifacts.collect());
    let mut pairs = stored.task.to_json();
    pairs.push(("sha256", stored.sha256.as_str().into()));
    pairs.push(("artifacts", artifacts));
    Value::object(pairs)
}

/// `dir` is the directory of its artifacts.
pub(super) fn decode(dir: &Path, id: &str, value: &Value) -> Option<StoredResult> {
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let mut artifacts = Vec::new();
    for (i, item) in value.get("artifacts")?.as_array()?.iter().enumerate() {
        let path = dir.join(format!("artifact-{i}"));
        // An artifact without a file was posted. If that cannot be found out, the
        // upload will tell.
        if !path.try_exists().unwrap_or(true) {
            continue;
        }
        artifacts.push(StoredArtifact {
            kind: text(item, "type")?,
            url: UploadTarget::parse(&text(item, "url")?).ok()?,
            instance: text(item, "instance")?,
            name: text(item, "name")?,
            challenge: text(item, "challenge"),
            sha256: text(item, "sha256")?,
            path,
        });
    }
    Some(StoredResult {
        id: id.to_owned(),
        task: TaskRecord::from_json(value)?,
        artifacts,
        sha256: text(value, "sha256")?,
    })
}
