//! Changes a worker's result so that its controller accepts it.
//!
//! A controller answers 400 to a result that does not match its task, and the build
//! is lost. Small differences are corrected; a result that cannot be corrected is
//! replaced by one that states the reason.

use super::result::{OperationResult, ResultManifest, ResultStatus};
use super::task::TaskManifest;
use super::value::PackageVersion;

/// The operation whose log has the agent's own messages. All controllers know it,
/// as they use it for their own.
const OPERATION: &str = "configure";

/// The controller's requirements for a result.
#[derive(Clone, Copy, Debug)]
pub struct ResultRules<'a> {
    /// The task as the worker got it.
    pub task: &'a TaskManifest,
    /// Whether the controller's agent checksum is the agent's own. A worker may skip
    /// a build only then; see [`accept_checksums`](super::accept_checksums).
    pub checksum_matches: bool,
    /// Whether the controller dates from 2017 and knows neither checksums nor the
    /// statuses `skip` and `interrupt`.
    pub legacy: bool,
}

/// A result with one operation, whose log is `reason`.
pub fn failure_result(task: &TaskManifest, status: ResultStatus, reason: &str) -> ResultManifest {
    let mut result = ResultManifest::new(task.name(), task.version(), status);
    result.results.push(note_operation(status, reason));
    result
}

/// An operation of the agent itself, with `reason` as its log.
pub(super) fn note_operation(status: ResultStatus, reason: &str) -> OperationResult {
    OperationResult {
        operation: OPERATION.to_owned(),
        status,
        log: super::sanitize(format!("bbot-agent: {reason}").as_bytes()).into_owned(),
    }
}

/// The result to send, and a note on each change to the worker's result.
pub fn normalize(
    mut result: ResultManifest,
    rules: &ResultRules<'_>,
) -> (ResultManifest, Vec<String>) {
    let mut notes = Vec::new();
    if let Some(reason) = wrong_package(&result, rules.task) {
        notes.push(reason.clone());
        return (
            failure_result(rules.task, ResultStatus::Abnormal, &reason),
            notes,
        );
    }
    let task = (rules.task.name(), rules.task.version());
    if (result.name.as_str(), result.version.as_str()) != task {
        let was = named(&result);
        notes.push(format!(
            "result for {was} taken as that for {}/{}",
            task.0, task.1
        ));
        task.0.clone_into(&mut result.name);
        task.1.clone_into(&mut result.version);
    }
    if result.status == ResultStatus::Skip
        && let Some(reason) = illegal_skip(&result, rules)
    {
        notes.push(reason.clone());
        return (
            failure_result(rules.task, ResultStatus::Abort, &reason),
            notes,
        );
    }
    if rules.legacy {
        downgrade(&mut result, &mut notes);
    }
    if !result.others.is_empty() {
        let names: Vec<_> = result.others.iter().map(|(n, _)| n).take(5).collect();
        notes.push(format!(
            "unknown result values dropped: {}",
            names.join(", ")
        ));
        result.others = super::Values::default();
    }
    (result, notes)
}

/// The reason why the result cannot belong to the task, if there is one.
fn wrong_package(result: &ResultManifest, task: &TaskManifest) -> Option<String> {
    let found = PackageVersion::parse(&result.version).ok();
    let expected = PackageVersion::parse(task.version()).ok();
    // The name is a placeholder if the version is unknown.
    let is_unknown = found.as_ref().is_some_and(PackageVersion::is_unknown);
    let same_name = result.name.eq_ignore_ascii_case(task.name());
    let same_version = result.version == task.version() || found.is_some() && found == expected;
    if is_unknown || same_name && same_version {
        return None;
    }
    let named = named(result);
    Some(format!(
        "worker returned the result of {named} for the task {}/{}",
        task.name(),
        task.version()
    ))
}

/// Name and version, shortened: a worker can send megabytes of them.
fn named(result: &ResultManifest) -> String {
    let short = |text: &str| text.chars().take(100).collect::<String>();
    format!("{}/{}", short(&result.name), short(&result.version))
}

/// The reason why the worker may not skip the build, if there is one.
fn illegal_skip(result: &ResultManifest, rules: &ResultRules<'_>) -> Option<String> {
    if rules.legacy {
        return Some(
            "worker skipped a build for a controller that does not support skipping".to_owned(),
        );
    }
    if !rules.checksum_matches {
        return Some("worker skipped a build without a matching agent checksum".to_owned());
    }
    let checksums = [
        (
            "worker",
            rules.task.worker_checksum(),
            &result.worker_checksum,
        ),
        (
            "dependency",
            rules.task.dependency_checksum(),
            &result.dependency_checksum,
        ),
    ];
    let (what, ..) = checksums
        .into_iter()
        .find(|(_, task, result)| task.is_none() || *task != result.as_deref())?;
    Some(format!(
        "worker skipped a build without a matching {what} checksum"
    ))
}

/// Removes statuses and values that a controller of 2017 does not know.
fn downgrade(result: &mut ResultManifest, notes: &mut Vec<String>) {
    let operations = result.results.iter_mut().map(|r| &mut r.status);
    for status in operations.chain([&mut result.status]) {
        if !status.is_classic() {
            notes.push(format!(
                "status '{status}' turned into 'abort' for a legacy controller"
            ));
            *status = ResultStatus::Abort;
        }
    }
    result.worker_checksum = None;
    result.dependency_checksum = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = ": 1\nname: libfoo\nversion: 1.2.0\ndependency-checksum: d\nmachine: m\nworker-checksum: w\n";

    fn task() -> TaskManifest {
        TaskManifest::parse(TASK.as_bytes(), "").unwrap()
    }

    fn settled(
        result: ResultManifest,
        legacy: bool,
        checksum_matches: bool,
    ) -> (ResultManifest, Vec<String>) {
        let task = task();
        let rules = ResultRules {
            task: &task,
            checksum_matches,
            legacy,
        };
        normalize(result, &rules)
    }

    fn skip() -> ResultManifest {
        let mut skip = ResultManifest::new("libfoo", "1.2.0", ResultStatus::Skip);
        skip.worker_checksum = Some("w".to_owned());
        skip.dependency_checksum = Some("d".to_owned());
        skip
    }

    #[test]
    fn a_result_as_it_should_be_is_left_alone() {
        let mut result = skip();
        for status in ResultStatus::ALL {
            result.status = status;
            assert_eq!(
                settled(result.clone(), false, true),
                (result.clone(), vec![])
            );
        }
    }

    #[test]
    fn an_unknown_version_is_replaced_with_the_tasks() {
        for status in [ResultStatus::Abnormal, ResultStatus::Success] {
            let (result, notes) = settled(ResultManifest::new("unknown", "0", status), false, true);
            assert_eq!((&*result.name, &*result.version), ("libfoo", "1.2.0"));
            assert_eq!(result.status, status);
            assert_eq!(
                notes,
                ["result for unknown/0 taken as that for libfoo/1.2.0"]
            );
        }
    }

    #[test]
    fn other_spellings_of_the_same_package_are_put_right() {
        for (name, version) in [
            ("libfoo", "1.2"),
            ("LibFoo", "1.2.0"),
            ("libfoo", "+1-01.2.0+0"),
        ] {
            let result = ResultManifest::new(name, version, ResultStatus::Success);
            let (result, notes) = settled(result, false, true);
            assert_eq!((&*result.name, &*result.version), ("libfoo", "1.2.0"));
            assert_eq!((result.status, notes.len()), (ResultStatus::Success, 1));
        }
    }

    #[test]
    fn the_result_of_another_package_is_refused_and_says_so() {
        for (name, version) in [
            ("libbar", "1.2.0"),
            ("libfoo", "1.2.1"),
            ("libfoo", "1.2.0+1"),
            ("libfoo", "?"),
        ] {
            let result = ResultManifest::new(name, version, ResultStatus::Success);
            let (result, notes) = settled(result, false, true);
            assert_eq!((&*result.name, &*result.version), ("libfoo", "1.2.0"));
            assert_eq!(result.status, ResultStatus::Abnormal);
            let reason =
                format!("worker returned the result of {name}/{version} for the task libfoo/1.2.0");
            assert_eq!(result.results[0].log, format!("bbot-agent: {reason}"));
            assert_eq!(notes, [reason]);
        }
    }

    #[test]
    fn a_version_that_is_none_matches_itself() {
        let text = TASK.replace("1.2.0", "v1~x");
        let task = TaskManifest::parse(text.as_bytes(), "").unwrap();
        let result = ResultManifest::new("libfoo", "v1~x", ResultStatus::Success);
        assert_eq!(wrong_package(&result, &task), None);
    }

    #[test]
    fn a_skip_needs_all_three_checksums() {
        let reason = |result: ResultManifest, legacy, checksum_matches| {
            let (result, notes) = settled(result, legacy, checksum_matches);
            assert_eq!(result.status, ResultStatus::Abort);
            assert_eq!(result.results[0].log, format!("bbot-agent: {}", notes[0]));
            notes.concat()
        };
        assert!(reason(skip(), false, false).ends_with("without a matching agent checksum"));
        assert!(reason(skip(), true, true).ends_with("does not support skipping"));
        let mut other = skip();
        other.dependency_checksum = Some("e".to_owned());
        assert!(reason(other, false, true).ends_with("without a matching dependency checksum"));
        let mut none = skip();
        none.worker_checksum = None;
        assert!(reason(none, false, true).ends_with("without a matching worker checksum"));

        // The task did not have them.
        let mut task = task();
        task.drop_checksums();
        let rules = ResultRules {
            task: &task,
            checksum_matches: true,
            legacy: false,
        };
        let mut bare = skip();
        bare.worker_checksum = None;
        bare.dependency_checksum = None;
        assert_eq!(normalize(bare, &rules).0.status, ResultStatus::Abort);
    }

    #[test]
    fn a_legacy_controller_gets_five_statuses_and_no_checksums() {
        let mut result = skip();
        result.status = ResultStatus::Interrupt;
        for status in ResultStatus::ALL {
            result.results.push(OperationResult {
                operation: status.word().to_owned(),
                status,
                log: String::new(),
            });
        }
        result.others.push("x", "y");
        let (result, notes) = settled(result, true, true);
        assert_eq!(result.status, ResultStatus::Abort);
        assert!(result.results.iter().all(|r| r.status.is_classic()));
        assert_eq!(
            (result.worker_checksum, result.dependency_checksum),
            (None, None)
        );
        assert_eq!(notes.last().unwrap(), "unknown result values dropped: x");
        assert_eq!(notes.len(), 4);
    }

    #[test]
    fn an_explanation_can_always_be_written() {
        let result = failure_result(&task(), ResultStatus::Abort, "\u{1B}[1mbad\0\r\n");
        assert_eq!(result.results[0].log, "bbot-agent: bad?\n");
    }
}
