//! Results cut to the size that a controller accepts.
//!
//! A controller answers 413 to a request over its limit. The important lines of a
//! log are most often near its end or its start, so a log that is too long keeps
//! its head and its tail, with a note of the number of bytes between them.

use super::messages::ResultRequest;
use super::normalize::note_operation;
use super::syntax::{SerializeError, Style};
use super::values::Values;

/// A cut moves by at most this many bytes to fall between two lines.
const LINE_REACH: usize = 4 << 10;

/// Attempts to meet the limit. The second attempt succeeds unless the rest of a log
/// wraps very differently from the part that was cut.
const MAX_ATTEMPTS: usize = 8;

/// A log that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The operation; `whole` if no operation fits, `checksums` if checksums and
    /// unknown values did not fit.
    pub operation: String,
    /// Number of bytes that were cut.
    pub bytes: usize,
}

/// The text of `request` in at most `limit` bytes, and the logs that were cut.
pub fn fit(
    request: &ResultRequest,
    limit: usize,
    style: Style,
) -> Result<(String, Vec<Cut>), SerializeError> {
    let mut text = request.to_text(style)?;
    if text.len() <= limit {
        return Ok((text, Vec::new()));
    }
    let mut bare = request.clone();
    for result in &mut bare.result.results {
        result.log = String::new();
    }
    let fixed = bare.to_text(style)?.len();
    if fixed > limit
        && let Some(slim) = without_checksums(request)
    {
        // A checksum has a few dozen characters; longer ones are dropped first.
        let gone = text.len() - slim.to_text(style)?.len();
        let (text, mut cuts) = fit(&slim, limit, style)?;
        let operation = "checksums".to_owned();
        cuts.push(Cut {
            operation,
            bytes: gone,
        });
        return Ok((text, cuts));
    }
    let lengths: Vec<usize> = request.result.results.iter().map(|r| r.log.len()).collect();
    // Escapes and wrapping make logs longer in the text.
    let mut available = limit.saturating_sub(fixed);
    let raw: usize = lengths.iter().sum();
    available = scale(available, raw, text.len() - fixed);
    for _ in 0..MAX_ATTEMPTS {
        let share = share(&lengths, available);
        let mut cuts = Vec::new();
        for (whole, part) in request.result.results.iter().zip(&mut bare.result.results) {
            let (log, gone) = cut(&whole.log, share);
            part.log = log;
            if gone > 0 {
                cuts.push(Cut {
                    operation: whole.operation.clone(),
                    bytes: gone,
                });
            }
        }
        text = bare.to_text(style)?;
        if text.len() <= limit {
            return Ok((text, cuts));
        }
        // Reduced by the excess and a margin.
        let target = limit.saturating_sub(fixed);
        available = scale(available, target, text.len().saturating_sub(fixed)) / 64 * 63;
    }
    for result in &mut bare.result.results {
        result.log = String::new();
    }
    if fixed > limit {
        // So many operations that their names alone do not fit.
        let reason = format!("{} operations left out, too many to report", lengths.len());
        bare.result.results = vec![note_operation(bare.result.status, &reason)];
        let operation = "whole".to_owned();
        let cut = Cut {
            operation,
            bytes: raw,
        };
        return Ok((bare.to_text(style)?, vec![cut]));
    }
    let cuts = request.result.results.iter().filter(|r| !r.log.is_empty());
    let cuts = cuts.map(|r| Cut {
        operation: r.operation.clone(),
        bytes: r.log.len(),
    });
    Ok((bare.to_text(style)?, cuts.collect()))
}

/// The request without checksums, which a hostile worker can make megabytes long,
/// and without unknown values; `None` if it has neither.
fn without_checksums(request: &ResultRequest) -> Option<ResultRequest> {
    let mut slim = request.clone();
    slim.result.worker_checksum = None;
    slim.result.dependency_checksum = None;
    slim.result.others = Values::default();
    (slim != *request).then_some(slim)
}

/// `number * up / down`, without overflow.
fn scale(number: usize, up: usize, down: usize) -> usize {
    let product = number as u128 * up as u128 / (down as u128).max(1);
    usize::try_from(product).unwrap_or(usize::MAX)
}

/// The maximum length of one log such that all logs together have at most `available`
/// bytes: short logs stay whole and leave their share to the long ones.
fn share(lengths: &[usize], available: usize) -> usize {
    let mut lengths = lengths.to_vec();
    lengths.sort_unstable();
    let mut left = available;
    for (done, length) in lengths.iter().enumerate() {
        let share = left / (lengths.len() - done);
        if *length > share {
            return share;
        }
        left -= length;
    }
    usize::MAX
}

/// Cuts a log to at most `most` bytes. Returns the rest and the number of bytes
/// that were cut.
fn cut(log: &str, most: usize) -> (String, usize) {
    if log.len() <= most {
        return (log.to_owned(), 0);
    }
    // Two newlines around it.
    let longest = left_out(usize::MAX, usize::MAX).len() + 2;
    let Some(available) = most.checked_sub(longest) else {
        return (String::new(), log.len());
    };
    // Errors are near the end, commands at the start.
    let head = head_end(log, available / 3);
    let tail = tail_start(log, log.len() - (available - available / 3));
    let gone = &log[head..tail];
    let (mut bytes, mut lines) = (gone.len(), gone.bytes().filter(|b| *b == b'\n').count());
    if let Some((former_bytes, former_lines)) = formerly_left_out(gone) {
        bytes = bytes.saturating_add(former_bytes);
        lines = lines.saturating_add(former_lines);
    }
    let mut text = log[..head].to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&left_out(bytes, lines));
    text.push('\n');
    text.push_str(&log[tail..]);
    (text, bytes)
}

/// The note in place of the middle of a log.
pub(super) fn left_out(bytes: usize, lines: usize) -> String {
    format!("[bbot-agent: {bytes} bytes, {lines} lines left out]")
}

/// The numbers in such a note, if the text has one.
fn formerly_left_out(text: &str) -> Option<(usize, usize)> {
    let (_, note) = text.split_once("[bbot-agent: ")?;
    let (bytes, note) = note.split_once(" bytes, ")?;
    let (lines, _) = note.split_once(" lines left out]")?;
    Some((bytes.parse().ok()?, lines.parse().ok()?))
}

/// The end of a log's head, at `most` or before: behind a newline if one is near.
fn head_end(log: &str, most: usize) -> usize {
    let reach = &log.as_bytes()[most.saturating_sub(LINE_REACH)..most];
    match reach.iter().rposition(|b| *b == b'\n') {
        Some(at) => most - reach.len() + at + 1,
        None => (0..=most)
            .rfind(|&at| log.is_char_boundary(at))
            .unwrap_or(0),
    }
}

/// The start of a log's tail, at `least` or behind it.
fn tail_start(log: &str, least: usize) -> usize {
    let end = log.len().min(least + LINE_REACH);
    let reach = &log.as_bytes()[least..end];
    match reach.iter().position(|b| *b == b'\n') {
        Some(at) if least + at + 1 < log.len() => least + at + 1,
        _ => (least..log.len())
            .find(|&at| log.is_char_boundary(at))
            .unwrap_or(log.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{OperationResult, ResultManifest, ResultStatus};

    fn request(logs: &[String]) -> ResultRequest {
        let mut result = ResultManifest::new("libfoo", "1.2.3", ResultStatus::Success);
        for (n, log) in logs.iter().enumerate() {
            result.results.push(OperationResult {
                operation: format!("op{n}"),
                status: ResultStatus::Success,
                log: log.clone(),
            });
        }
        ResultRequest {
            session: "s".to_owned(),
            challenge: None,
            agent_checksum: None,
            result,
        }
    }

    fn lines(count: usize) -> String {
        (0..count).map(|n| format!("line {n} of a log\n")).collect()
    }

    #[test]
    fn a_result_that_fits_is_left_alone() {
        let request = request(&[lines(10), String::new()]);
        let text = request.to_text(Style::TODAY).unwrap();
        assert_eq!(
            fit(&request, text.len(), Style::TODAY),
            Ok((text.clone(), vec![]))
        );
        assert_eq!(
            fit(&request, text.len() - 1, Style::TODAY).unwrap().1.len(),
            1
        );
    }

    #[test]
    fn a_long_log_keeps_head_and_tail_and_says_what_is_gone() {
        let log = lines(10_000);
        let request = request(&[lines(3), log.clone()]);
        let (text, cuts) = fit(&request, 10_000, Style::TODAY).unwrap();
        assert!((9_000..=10_000).contains(&text.len()), "{}", text.len());
        let parsed = ResultRequest::parse(text.as_bytes(), "").unwrap();
        assert_eq!(parsed.result.results[0].log, lines(3));
        let kept = &parsed.result.results[1].log;
        let marker = kept
            .lines()
            .find(|l| l.starts_with("[bbot-agent: "))
            .unwrap();
        let (head, tail) = kept.split_once(&format!("{marker}\n")).unwrap();
        assert!(log.starts_with(head) && log.ends_with(tail));
        assert!(tail.len() > head.len() && head.len() > 2_000);
        let gone = log.len() - head.len() - tail.len();
        assert_eq!(
            cuts,
            [Cut {
                operation: "op1".to_owned(),
                bytes: gone
            }]
        );
        let lines = 10_000 - head.lines().count() - tail.lines().count();
        assert_eq!(
            marker,
            format!("[bbot-agent: {gone} bytes, {lines} lines left out]")
        );
    }

    #[test]
    fn any_logs_meet_any_limit() {
        let logs = [
            "x".repeat(50_000),
            "é€😀".repeat(10_000),
            "\\".repeat(30_000),
            "\n".repeat(30_000),
            "word ".repeat(20_000),
            lines(2_000),
            "a\n".repeat(40_000) + &"\\\n".repeat(20_000) + &"w".repeat(20_000),
        ];
        for style in [Style::TODAY, Style::OLD] {
            for limit in (500..400_000).step_by(7_919) {
                let request = request(&logs);
                let (text, cuts) = fit(&request, limit, style).unwrap();
                assert!(text.len() <= limit, "{} > {limit}", text.len());
                assert!(
                    text.len() > limit / 10 * 8 - 400,
                    "{} of {limit}",
                    text.len()
                );
                assert!(!cuts.is_empty());
                let parsed = ResultRequest::parse(text.as_bytes(), "").unwrap();
                assert_eq!(parsed.result.results.len(), logs.len());
            }
        }
    }

    #[test]
    fn without_room_the_logs_go_first() {
        let request = request(&[lines(100), lines(100)]);
        let (text, cuts) = fit(&request, 10, Style::TODAY).unwrap();
        assert_eq!(
            cuts.iter().map(|c| c.bytes).sum::<usize>(),
            2 * lines(100).len()
        );
        let parsed = ResultRequest::parse(text.as_bytes(), "").unwrap();
        assert_eq!(parsed.result.results.len(), 1);
        let available = request.to_text(Style::TODAY).unwrap().len() - 2 * lines(100).len();
        let (text, _) = fit(&request, available, Style::TODAY).unwrap();
        let parsed = ResultRequest::parse(text.as_bytes(), "").unwrap();
        assert_eq!(parsed.result.results.len(), 2);
        assert!(parsed.result.results.iter().all(|r| r.log.is_empty()));
    }

    #[test]
    fn operations_without_end_are_told_of_instead() {
        let mut request = request(&[]);
        for n in 0..20_000 {
            request.result.results.push(OperationResult {
                operation: format!("operation-{n}"),
                status: ResultStatus::Success,
                log: "x".to_owned(),
            });
        }
        let (text, cuts) = fit(&request, 100_000, Style::OLD).unwrap();
        assert!(text.len() < 300);
        let operation = "whole".to_owned();
        assert_eq!(
            cuts,
            [Cut {
                operation,
                bytes: 20_000
            }]
        );
        let parsed = ResultRequest::parse(text.as_bytes(), "").unwrap();
        let log = "bbot-agent: 20000 operations left out, too many to report";
        assert_eq!(parsed.result.results[0].log, log);
        assert_eq!(parsed.result.status, ResultStatus::Success);
    }

    #[test]
    fn checksums_without_end_go_before_any_operation() {
        let mut request = request(&[lines(10)]);
        request.result.worker_checksum = Some("w".repeat(64));
        request.result.dependency_checksum = Some("d".repeat(50_000));
        let (text, cuts) = fit(&request, 10_000, Style::OLD).unwrap();
        assert!(text.len() <= 10_000);
        assert_eq!(cuts.len(), 1);
        assert_eq!(cuts[0].operation, "checksums");
        assert!(cuts[0].bytes > 50_000);
        let parsed = ResultRequest::parse(text.as_bytes(), "").unwrap();
        assert_eq!(parsed.result.dependency_checksum, None);
        assert_eq!(parsed.result.results, request.result.results);
        // Nothing else fits either.
        let (text, cuts) = fit(&request, 100, Style::OLD).unwrap();
        assert!(text.len() < 300, "{}", text.len());
        assert_eq!(cuts.len(), 2);
    }

    #[test]
    fn short_logs_leave_their_room_to_long_ones() {
        assert_eq!(share(&[10, 1000, 20, 1000], 130), 50);
        assert_eq!(share(&[10, 10], 20), usize::MAX);
        assert_eq!(share(&[10, 11], 20), 10);
        assert_eq!(share(&[], 0), usize::MAX);
    }
}
