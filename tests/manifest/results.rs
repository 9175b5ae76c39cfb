//! Result manifests: what is read, kept and refused.

use bbot_agent::manifest::{
    ResultManifest, ResultRequest, ResultStatus, Style, TaskRequest, sanitize,
};

#[test]
fn a_result_reads_back() {
    let text = "\
: 1
name: libfoo
version: 1.2.3
status: warning
configure-status: success
update-status: warning
test-status: success
configure-log:
\\
a
b
\\
update-log: foo.cxx:3:1: warning: unused
test-log:
worker-checksum: 2
dependency-checksum: 5b2e
from-the-future: x
";
    let result = ResultManifest::parse(text.as_bytes(), "f").unwrap();
    assert_eq!(result.status, ResultStatus::Warning);
    let operations: Vec<_> = result
        .results
        .iter()
        .map(|r| (&*r.operation, r.status, &*r.log))
        .collect();
    assert_eq!(
        operations,
        [
            ("configure", ResultStatus::Success, "a\nb"),
            (
                "update",
                ResultStatus::Warning,
                "foo.cxx:3:1: warning: unused"
            ),
            ("test", ResultStatus::Success, ""),
        ]
    );
    assert_eq!(result.worker_checksum.as_deref(), Some("2"));
    assert_eq!(result.to_text(Style::TODAY).unwrap(), text);
}

#[test]
fn statuses_and_logs_need_not_match() {
    let text = b": 1\nstatus: error\nversion: 0\nname: x\ntest-log: t\nupdate-status: error\n-log: odd\nlog: odd\n";
    let result = ResultManifest::parse(text, "f").unwrap();
    let operations: Vec<_> = result
        .results
        .iter()
        .map(|r| (&*r.operation, r.status, &*r.log))
        .collect();
    assert_eq!(
        operations,
        [
            ("update", ResultStatus::Error, ""),
            ("test", ResultStatus::Error, "t")
        ]
    );
    assert_eq!(
        result.others.iter().collect::<Vec<_>>(),
        [("-log", "odd"), ("log", "odd")]
    );
}

#[test]
fn a_result_is_refused_with_a_reason() {
    for (text, expected) in [
        ("name: x\nversion: 0\n", "f:4:1: no status specified"),
        (
            "name: x\nversion: 0\nstatus: fine\n",
            "f:4:9: invalid result status 'fine'",
        ),
        (
            "name: x\nversion: 0\nstatus: error\nu-status: Error\n",
            "f:5:11: invalid result status 'Error'",
        ),
        (
            "name: x\nversion: 0\nstatus: error\nu-status: error\nu-status: error\n",
            "f:6:1: u-status redefinition",
        ),
        (
            "name: x\nversion: 0\nstatus: error\nu-log: a\nu-log: b\n",
            "f:6:1: u-log redefinition",
        ),
        ("version: 0\nstatus: error\n", "f:4:1: no name specified"),
    ] {
        let error = ResultManifest::parse(format!(": 1\n{text}").as_bytes(), "f").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("invalid result manifest: {expected}")
        );
    }
}

#[test]
fn a_dirty_result_is_read_once_it_is_clean() {
    let text = ": 1\nname: x\nversion: 1\nstatus: error\nupdate-status: error\nupdate-log:\\\n\
                \u{1B}[31mred\u{1B}[0m\r\n\u{0}\n\\\n";
    let error = ResultManifest::parse(text.as_bytes(), "f").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("invalid result manifest: f:7:1: "),
        "{error}"
    );
    let clean = sanitize(text.as_bytes());
    let result = ResultManifest::parse(clean.as_bytes(), "f").unwrap();
    assert_eq!(result.results[0].log, "red\n?");
}

#[test]
fn any_number_of_operations_is_read_in_linear_time() {
    let mut text = ": 1\nname: x\nversion: 1\nstatus: error\n".to_owned();
    for i in 0..40_000 {
        text.push_str(&format!("o{i}-status: error\n"));
    }
    for i in 0..40_000 {
        text.push_str(&format!("o{i}-log: {i}\n"));
    }
    let result = ResultManifest::parse(text.as_bytes(), "f").unwrap();
    assert_eq!(result.results.len(), 40_000);
    assert_eq!(result.results[39_999].log, "39999");
}

#[test]
fn a_result_request_is_a_session_and_a_result() {
    let text = "\
: 1
session: s
challenge:
\\
apYbkpnOF7C9fiA/0hIiP/FQrcKrb1pXLc2B8EVEZVDKRX4Qg7O2I2Ov51YexYx7MHNGdJJkRJle
CalPwlYQ3643mviSTdC89nf9SIxWFV1ahtfEbQ7cYc5gHAZ4kXWNkr74wu4erlRWFjvvCDOS3i9L
\\
agent-checksum: 1
:
name: libfoo
version: 1.2.3
status: success
";
    let request = ResultRequest::parse(text.as_bytes(), "f").unwrap();
    assert_eq!(request.session, "s");
    assert_eq!(request.challenge.as_ref().unwrap().lines().count(), 2);
    assert_eq!(request.result.status, ResultStatus::Success);
    assert_eq!(request.to_text(Style::TODAY).unwrap(), text);
    let old = request.to_text(Style::OLD).unwrap();
    assert_eq!(old, text.replace("challenge:\n\\", "challenge: \\"));
    let error = ResultRequest::parse(b": 1\nsession: s\n", "f").unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid result manifest: f:3:1: result manifest expected"
    );
}

#[test]
fn a_value_that_cannot_be_written_is_named() {
    let mut request = TaskRequest {
        agent: "a\u{1}".to_owned(),
        ..TaskRequest::default()
    };
    let error = request.to_text(Style::TODAY).unwrap_err();
    assert_eq!(
        error.to_string(),
        "task request manifest: error: agent: invalid value: invalid Unicode codepoint (control)"
    );
    request.agent = "a".to_owned();
    request.to_text(Style::TODAY).unwrap();
}
