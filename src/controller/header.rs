//! The header of an HTTP answer, made plain: ureq takes at most 128 fields and none that
//! is folded into several lines (RFC 9112, section 5.2), and curl takes both.

/// The fields that the client uses, in lower case.
const FIELDS: [&str; 6] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "location",
    "transfer-encoding",
];

/// The state of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// More input is needed.
    Incomplete,
    /// The header of an answer before the final one (1xx), of this length.
    Interim(usize),
    /// The header of the final answer, of this length, and the plain header to use in its
    /// place, which is not longer.
    Final(usize, Vec<u8>),
}

/// Examines the header at the start of `input`.
pub(super) fn examine(input: &[u8]) -> Header {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut length = 0;
    for part in input.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = part.strip_suffix(b"\n") else {
            break;
        };
        length += part.len();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
        match lines.as_mut_slice() {
            [status, fields @ ..] if line.is_empty() => return complete(status, fields, length),
            [_, .., field] if is_folded => {
                field.push(b' ');
                field.extend(line.trim_ascii_start());
            }
            // Before the status line.
            [] if line.is_empty() => {}
            _ => lines.push(line.to_vec()),
        }
    }
    Header::Incomplete
}

fn complete(status: &[u8], fields: &[Vec<u8>], length: usize) -> Header {
    let code = status
        .split(|byte| *byte == b' ')
        .nth(1)
        .unwrap_or_default();
    if matches!(code, [b'1', _, _]) && code != b"101" {
        return Header::Interim(length);
    }
    let is_used = |line: &&Vec<u8>| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        // A line without a name is an error, for curl as well.
        let has_name = !name.is_empty() && name.len() < line.len();
        !has_name
            || FIELDS
                .iter()
                .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
    };
    let mut plain = status.to_vec();
    for line in fields.iter().filter(is_used) {
        // A line feed alone: the header must not become longer.
        plain.push(b'\n');
        plain.extend(line);
    }
    plain.extend(b"\n\n");
    Header::Final(length, plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        match examine(text.as_bytes()) {
            Header::Final(length, plain) => {
                assert!(plain.len() <= length, "{text}");
                String::from_utf8(plain).unwrap()
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn fields_that_are_not_used_are_left_out() {
        let many = "X-Field: 1\r\n".repeat(1000);
        let text = format!("HTTP/1.1 200 OK\r\n{many}Content-length: 5\r\n{many}\r\nabcde");
        assert_eq!(plain(&text), "HTTP/1.1 200 OK\nContent-length: 5\n\n");
        assert_eq!(plain("HTTP/1.0 500\n\n"), "HTTP/1.0 500\n\n");
    }

    #[test]
    fn folded_fields_are_one_line() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: a/b;\r\n\t c=d\r\n  e\r\nA: b\n c\n\r\n";
        let unfolded = "HTTP/1.1 200 OK\nContent-Type: a/b; c=d e\n\n";
        assert_eq!(plain(text), unfolded);
        // Not of the status line, as with curl.
        assert_eq!(plain("HTTP/1.1 200 OK\n x: y\n\n"), "HTTP/1.1 200 OK\n\n");
    }

    #[test]
    fn incomplete_and_interim_headers() {
        let text = "HTTP/1.1 100 Continue\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(
                examine(&text.as_bytes()[..end]),
                Header::Incomplete,
                "{end}"
            );
        }
        let more = format!("{text}HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(examine(more.as_bytes()), Header::Interim(text.len()));
        assert_eq!(examine(b"\r\n\r\n"), Header::Incomplete);
    }
}
