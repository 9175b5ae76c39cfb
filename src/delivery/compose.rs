//! The text of a result request: signed, and of a size that controllers take.

use super::Delivery;
use super::task::TaskRecord;
use crate::diag;
use crate::error::{Context as _, Result};
use crate::manifest::{
    Cut, OperationResult, ResultManifest, ResultRequest, ResultStatus, Style, fit,
};

/// The number of shortened logs that are named.
const CUTS_SHOWN: usize = 5;

/// The result of a task that is given back: `interrupt`, on which a controller
/// queues the build again. A controller of 2017 does not know that status, and no
/// controller hands an interactive task out again: these get `abort`, with the reason.
pub(super) fn given_back(task: &TaskRecord, reason: &str, legacy: bool) -> ResultManifest {
    let is_final = legacy || task.interactive;
    let status = if is_final {
        ResultStatus::Abort
    } else {
        ResultStatus::Interrupt
    };
    let mut result = ResultManifest::new(&task.name, &task.version, status);
    if is_final {
        result.results.push(OperationResult {
            operation: "configure".to_owned(),
            status,
            log: format!("bbot-agent: {reason}"),
        });
    }
    result
}

impl Delivery {
    /// The text of a request that the controller will take.
    pub(super) fn compose(&self, request: &ResultRequest) -> Result<String> {
        let limit = usize::try_from(self.settings.result_limit).unwrap_or(usize::MAX);
        let (text, cuts) =
            fit(request, limit, Style::OLD).context(|| "unable to compose the result request")?;
        if !cuts.is_empty() {
            let bytes: usize = cuts.iter().map(|cut| cut.bytes).sum();
            let mut record = diag::warning(format_args!(
                "{bytes} bytes of the result are left out, to keep the result below --result-limit"
            ));
            // A result may have thousands of logs.
            for Cut { operation, bytes } in cuts.iter().take(CUTS_SHOWN) {
                record = record.info(format_args!("{bytes} bytes of {operation}"));
            }
            record.emit();
        }
        Ok(text)
    }

    /// The signature of the challenge of a task. Without a key there is none: such a
    /// task was not accepted, and the agent only gives it back.
    pub(super) fn sign(&self, task: &TaskRecord) -> Result<Option<String>> {
        match (&task.challenge, &self.key) {
            (Some(challenge), Some(key)) => key.sign(challenge.as_bytes()).map(Some),
            _ => Ok(None),
        }
    }
}
