//! Result manifests.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::syntax::{Pair, ParseError, SerializeError, Serializer, Style};
use super::values::{Section, Values, end, pair, single, start};

/// The status of a task or of one of its operations, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResultStatus {
    /// Nothing has changed since the last build.
    Skip,
    /// It succeeded.
    Success,
    /// It succeeded with warnings.
    Warning,
    /// It failed.
    Error,
    /// It could not be completed, for instance because of a timeout.
    Abort,
    /// The worker or the agent failed.
    Abnormal,
    /// It was interrupted in favour of another task.
    Interrupt,
}

impl ResultStatus {
    /// All statuses.
    pub const ALL: [ResultStatus; 7] = [
        ResultStatus::Skip,
        ResultStatus::Success,
        ResultStatus::Warning,
        ResultStatus::Error,
        ResultStatus::Abort,
        ResultStatus::Abnormal,
        ResultStatus::Interrupt,
    ];

    /// The status as a manifest value.
    pub fn word(self) -> &'static str {
        match self {
            ResultStatus::Skip => "skip",
            ResultStatus::Success => "success",
            ResultStatus::Warning => "warning",
            ResultStatus::Error => "error",
            ResultStatus::Abort => "abort",
            ResultStatus::Abnormal => "abnormal",
            ResultStatus::Interrupt => "interrupt",
        }
    }

    /// The status of this manifest value.
    pub fn from_word(word: &str) -> Option<ResultStatus> {
        Self::ALL.into_iter().find(|s| s.word() == word)
    }

    /// Whether controllers of 2017 know it.
    pub fn is_classic(self) -> bool {
        !matches!(self, ResultStatus::Skip | ResultStatus::Interrupt)
    }
}

impl fmt::Display for ResultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The result of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationResult {
    /// `configure`, `update`, `test`, ...
    pub operation: String,
    /// The status.
    pub status: ResultStatus,
    /// The output.
    pub log: String,
}

/// A result manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultManifest {
    /// The name of the package.
    pub name: String,
    /// The version of the package; `0` if the worker does not know it.
    pub version: String,
    /// The status of the task.
    pub status: ResultStatus,
    /// The operations in the order in which they ran.
    pub results: Vec<OperationResult>,
    /// The worker's checksum.
    pub worker_checksum: Option<String>,
    /// The checksum of the dependencies.
    pub dependency_checksum: Option<String>,
    /// Unknown values.
    pub others: Values,
}

impl ResultManifest {
    pub(super) const KIND: &str = "result";

    /// A result without operations.
    pub fn new(name: &str, version: &str, status: ResultStatus) -> ResultManifest {
        ResultManifest {
            name: name.to_owned(),
            version: version.to_owned(),
            status,
            results: Vec::new(),
            worker_checksum: None,
            dependency_checksum: None,
            others: Values::default(),
        }
    }

    /// Reads a result manifest.
    ///
    /// A status without a log has an empty one. A log without a status counts
    /// as an operation that ended as the task did, after all others.
    pub fn parse(text: &[u8], source: &str) -> Result<ResultManifest, ParseError> {
        ResultManifest::read(single(text, source, Self::KIND)?)
    }

    pub(super) fn read(section: Section<'_>) -> Result<ResultManifest, ParseError> {
        let status = section.required("status")?;
        let mut result = ResultManifest::new(
            &section.required("name")?.value,
            &section.required("version")?.value,
            read_status(&section, status)?,
        );
        let checksum = |name| -> Result<_, ParseError> {
            let pair = section.unique(name)?;
            // An empty one says nothing. It is no reason to lose the logs.
            let pair = pair.filter(|pair| !pair.value.is_empty());
            Ok(pair.map(|pair| pair.value.to_string()))
        };
        result.worker_checksum = checksum("worker-checksum")?;
        result.dependency_checksum = checksum("dependency-checksum")?;
        // Indexed by name: a hostile worker can send any number of operations.
        let mut index = HashMap::new();
        for pair in section.pairs() {
            let Some(operation) = operation(pair.name, "-status") else {
                continue;
            };
            if index.insert(operation, result.results.len()).is_some() {
                return Err(section.redefinition(pair));
            }
            result.results.push(OperationResult {
                operation: operation.to_owned(),
                status: read_status(&section, pair)?,
                log: String::new(),
            });
        }
        let mut seen = HashSet::new();
        for pair in section.pairs() {
            if operation(pair.name, "-log").is_some() && !seen.insert(pair.name) {
                return Err(section.redefinition(pair));
            }
        }
        for pair in section.into_pairs() {
            if let Some(operation) = operation(pair.name, "-log") {
                let log = pair.value.into_owned();
                match index.get(operation) {
                    Some(&at) => result.results[at].log = log,
                    None => result.results.push(OperationResult {
                        operation: operation.to_owned(),
                        status: result.status,
                        log,
                    }),
                }
            } else if operation(pair.name, "-status").is_none() && !KNOWN.contains(&pair.name) {
                result.others.push(pair.name, pair.value);
            }
        }
        Ok(result)
    }

    /// The text.
    pub fn to_text(&self, style: Style) -> Result<String, SerializeError> {
        let mut serializer = Serializer::new("result manifest", style);
        self.write(&mut serializer)?;
        Ok(serializer.into_text())
    }

    pub(super) fn write(&self, to: &mut Serializer<'_>) -> Result<(), SerializeError> {
        // One allocation for all: most of the text is logs.
        to.reserve(self.results.iter().map(|r| r.log.len() + 64).sum());
        start(to)?;
        pair(to, "name", &self.name)?;
        pair(to, "version", &self.version)?;
        pair(to, "status", self.status.word())?;
        for result in &self.results {
            pair(
                to,
                &format!("{}-status", result.operation),
                result.status.word(),
            )?;
        }
        for result in &self.results {
            pair(to, &format!("{}-log", result.operation), &result.log)?;
        }
        if let Some(checksum) = &self.worker_checksum {
            pair(to, "worker-checksum", checksum)?;
        }
        if let Some(checksum) = &self.dependency_checksum {
            pair(to, "dependency-checksum", checksum)?;
        }
        for (name, value) in self.others.iter() {
            pair(to, name, value)?;
        }
        end(to)
    }
}

const KNOWN: [&str; 5] = [
    "name",
    "version",
    "status",
    "worker-checksum",
    "dependency-checksum",
];

/// The operation of a name such as `update-log`.
fn operation<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    name.strip_suffix(suffix)
        .filter(|operation| !operation.is_empty())
}

fn read_status(section: &Section<'_>, pair: &Pair<'_>) -> Result<ResultStatus, ParseError> {
    let status = ResultStatus::from_word(&pair.value);
    status.ok_or_else(|| section.error(pair, format!("invalid result status '{}'", pair.value)))
}
