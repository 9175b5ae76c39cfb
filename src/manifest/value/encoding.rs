//! Base64 as manifests have it, and values that carry a comment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Characters of base64 on a line.
const BASE64_WIDTH: usize = 76;

/// Encodes `bytes` in base64, with a newline after every 76 characters but not
/// at the end: as coreutils' `base64`, less its last newline.
#[must_use]
pub fn encode_base64(bytes: &[u8]) -> String {
    let code = STANDARD.encode(bytes);
    let mut text = String::with_capacity(code.len() + code.len() / BASE64_WIDTH);
    for (at, c) in code.char_indices() {
        if at > 0 && at % BASE64_WIDTH == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text
}

/// Decodes base64 that may have newlines between groups of four characters.
///
/// # Errors
///
/// If there is anything else in it, or the padding is missing or not at the end.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut ended = false;
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        if ended || line.len() % 4 != 0 {
            return Err("invalid input");
        }
        ended = line.ends_with('=');
        let result = STANDARD.decode_vec(line, &mut bytes);
        result.map_err(|_| "invalid input")?;
    }
    Ok(bytes)
}

/// Splits `value; comment` of a packaging manifest.
///
/// In a value of one line, `\;` and `\\` stand for `;` and `\`. In one of
/// several lines, a line that holds just `;` is the separator, and one of
/// backslashes and a `;` stands for its right half.
#[must_use]
pub fn split_comment(text: &str) -> (String, String) {
    if text.contains('\n') {
        return split_comment_lines(text);
    }
    let mut value = String::new();
    let mut chars = text.chars();
    let mut comment = None;
    while let Some(c) = chars.next() {
        if c == ';' {
            comment = Some(chars.as_str());
            break;
        }
        let escaped = chars.as_str().chars().next();
        if let (true, Some(next @ (';' | '\\'))) = (c == '\\', escaped) {
            value.push(next);
            chars.next();
        } else {
            value.push(c);
        }
    }
    value.truncate(value.trim_end_matches([' ', '\t']).len());
    let comment = comment.unwrap_or_default();
    (value, comment.trim_start_matches([' ', '\t']).to_owned())
}

/// Whether a line is backslashes and a semicolon: how many backslashes.
fn escaped_separator(line: &str) -> Option<usize> {
    let backslashes = line.strip_suffix(';')?;
    backslashes
        .bytes()
        .all(|b| b == b'\\')
        .then_some(backslashes.len())
}

fn split_comment_lines(text: &str) -> (String, String) {
    let mut value: Vec<&str> = Vec::new();
    let mut lines = text.split('\n');
    for line in lines.by_ref() {
        match escaped_separator(line) {
            Some(0) => {
                let comment: Vec<&str> = lines.collect();
                return (value.join("\n"), comment.join("\n"));
            }
            Some(backslashes) => value.push(&line[backslashes.div_ceil(2)..]),
            None => value.push(line),
        }
    }
    (value.join("\n"), String::new())
}

/// The inverse of [`split_comment`].
#[must_use]
pub fn merge_comment(value: &str, comment: &str) -> String {
    if !value.contains('\n') && !comment.contains('\n') {
        let mut text = String::new();
        for c in value.chars() {
            if matches!(c, ';' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        if !comment.is_empty() {
            text.push_str("; ");
            text.push_str(comment);
        }
        return text;
    }
    let mut lines: Vec<String> = Vec::new();
    for line in value.split('\n') {
        // Twice the backslashes and one more, of which the right half is read.
        let escape = escaped_separator(line).map_or(0, |n| n + 1);
        lines.push("\\".repeat(escape) + line);
    }
    if !comment.is_empty() {
        lines.push(";".to_owned());
        lines.extend(comment.split('\n').map(str::to_owned));
    }
    lines.join("\n")
}
