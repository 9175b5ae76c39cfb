//! Trial runs without a guest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{BuildEnd, BuildSettings, Performed, RESULTS, TASKS, result};
use crate::error::{Context as _, Error, Result};
use crate::guest::Directory;
use crate::manifest::{ResultManifest, ResultStatus, TaskManifest};
use crate::tftp::Upload;
use crate::trace;
use crate::watch::{Wake, Watch};

/// How often to look for the result.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The replacement of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fake {
    /// The result is an `abort`, at once (`--fake-build`).
    Build,
    /// Another program reads the task from `get/manifest` and writes the result to
    /// `put/manifest` (`--fake-machine`).
    Machine,
}

impl Fake {
    pub(super) fn perform<G>(
        self,
        task: &TaskManifest,
        text: &str,
        directory: &Path,
        config: &BuildSettings,
        watch: &Watch,
    ) -> Result<Performed<G>> {
        match self {
            Fake::Build => {
                let result = ResultManifest::new(task.name(), task.version(), ResultStatus::Abort);
                Ok(Performed::of(BuildEnd::Result(result)))
            }
            Fake::Machine => await_external_result(text, directory, config, watch),
        }
    }
}

/// Waits for the result of another program, for as long as it takes.
fn await_external_result<G>(
    task: &str,
    directory: &Path,
    config: &BuildSettings,
    watch: &Watch,
) -> Result<Performed<G>> {
    let directory = Directory::create(directory)?;
    let get = directory.path().join("get");
    let put = directory.path().join("put");
    for directory in [&get, &put] {
        fs::create_dir(directory)
            .context(|| format!("unable to create directory {}", directory.display()))?;
    }
    let path = get.join(TASKS[0]);
    fs::write(&path, task).context(|| format!("unable to write task {}", path.display()))?;
    let upload = Upload {
        name: RESULTS[0].to_owned(),
        path: put.join(RESULTS[0]),
    };
    while !upload.path.exists() {
        trace!(
            4,
            "await_external_result",
            "waiting for {}",
            upload.path.display()
        );
        if watch.pause(POLL_INTERVAL) == Wake::Signal && watch.must_stop() {
            return Ok(Performed::of(BuildEnd::Stopped));
        }
    }
    let result = result::read(&upload, config)?.map_err(Error::new)?;
    directory.close()?;
    Ok(Performed::of(BuildEnd::Result(result)))
}
