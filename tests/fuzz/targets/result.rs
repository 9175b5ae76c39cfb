//! What a guest uploads as its result: cleaned, settled and cut, it is always a
//! request that a controller takes, within the limit.

#![no_main]

use bbot_agent::manifest::{
    ResultManifest, ResultRequest, Style, TaskManifest, ResultRules, fit, sanitize, normalize,
};
use libfuzzer_sys::fuzz_target;

const TASK: &[u8] = b": 1
name: libfoo
version: 1.2.3
dependency-checksum: d
machine: m
worker-checksum: w
";

fuzz_target!(|input: (u16, bool, bool, &[u8])| {
    let (limit, legacy, checksum_matches, text) = input;
    let clean = sanitize(text);
    assert_eq!(sanitize(clean.as_bytes()), clean);
    let Ok(result) = ResultManifest::parse(clean.as_bytes(), "") else {
        return;
    };
    let task = TaskManifest::parse(TASK, "").unwrap();
    let rules = ResultRules {
        task: &task,
        checksum_matches,
        legacy,
    };
    let (result, _) = normalize(result, &rules);
    assert_eq!((&*result.name, &*result.version), ("libfoo", "1.2.3"));
    assert!(!legacy || result.status.is_classic());
    let request = ResultRequest {
        session: "s".to_owned(),
        challenge: None,
        agent_checksum: None,
        result,
    };
    let limit = usize::from(limit);
    let (text, cuts) = fit(&request, limit, Style::OLD).unwrap();
    let mut sent = ResultRequest::parse(text.as_bytes(), "").unwrap();
    // What is left in the end is the package, a status and one line.
    assert!(text.len() <= limit.max(400), "{} > {limit}", text.len());
    if cuts.is_empty() && text.len() <= limit {
        assert_eq!(sent, request);
    }
    if cuts.iter().any(|cut| cut.operation == "whole") {
        return;
    }
    // Nothing but logs is cut, and before them what is too long for a checksum.
    let mut request = request;
    if cuts.iter().any(|cut| cut.operation == "checksums") {
        request.result.worker_checksum = None;
        request.result.dependency_checksum = None;
    }
    for (ours, theirs) in sent.result.results.iter_mut().zip(&request.result.results) {
        ours.log.clone_from(&theirs.log);
    }
    assert_eq!(sent, request);
});
