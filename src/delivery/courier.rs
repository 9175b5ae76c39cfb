//! How results reach controllers.

use std::fs::File;

use super::stored::StoredArtifact;
use crate::controller::Controllers;
use crate::controller::address::UploadTarget;
use crate::controller::failure::{Failure, FailureClass};
use crate::controller::multipart::Form;
use crate::error::reason;
use crate::status::Phase;

/// Sends results and artifacts.
pub trait Courier {
    /// Sends a result. Once this is `Ok` the controller has it; after a failure it
    /// may have it as well, and ignores it the second time.
    fn send_result(&mut self, target: &UploadTarget, text: &[u8]) -> Result<(), Failure>;

    /// Sends an artifact of the task of `session`; returns the controller's message.
    fn send_artifact(
        &mut self,
        artifact: &StoredArtifact,
        session: &str,
    ) -> Result<String, Failure>;

    /// Puts a task of a directory that plays controller back, as if it had not been
    /// taken. Does nothing for other controllers, which are sent a result.
    fn release(&mut self, target: &UploadTarget);

    /// Whether the agent must stop, so that no further exchange is begun.
    fn must_stop(&self) -> bool;
}

impl Courier for Controllers {
    fn send_result(&mut self, target: &UploadTarget, text: &[u8]) -> Result<(), Failure> {
        self.watch.enter(Phase::Uploading, None);
        self.upload(target, text)
    }

    fn send_artifact(
        &mut self,
        artifact: &StoredArtifact,
        session: &str,
    ) -> Result<String, Failure> {
        self.watch.enter(Phase::Uploading, None);
        let file = File::open(&artifact.path).map_err(|error| {
            Failure::new(
                FailureClass::Setup,
                format!("{}: {}", artifact.path.display(), reason(&error)),
            )
        })?;
        let form = Form {
            session,
            challenge: artifact.challenge.as_deref(),
            instance: &artifact.instance,
            sha256: &artifact.sha256,
            name: &artifact.name,
        };
        self.upload_artifact(&artifact.url, &form, &file)
    }

    fn release(&mut self, target: &UploadTarget) {
        Controllers::release(self, target);
    }

    fn must_stop(&self) -> bool {
        self.watch.must_stop()
    }
}
