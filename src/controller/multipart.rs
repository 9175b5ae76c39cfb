//! Artifacts on the wire: `multipart/form-data` (RFC 7578), the file streamed.

use std::fmt::Write as _;

use crate::manifest::Parser;

/// The values that go with an artifact, as brep's upload handler wants them.
#[derive(Clone, Debug)]
pub struct Form<'a> {
    /// The session of the task.
    pub session: &'a str,
    /// The signed challenge, if the controller authenticates agents.
    pub challenge: Option<&'a str>,
    /// The upload instance, `archive` for instance.
    pub instance: &'a str,
    /// SHA-256 of the file in lower-case hex.
    pub sha256: &'a str,
    /// The name of the file, without directories.
    pub name: &'a str,
}

/// A form, with a gap where the file goes.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) content_type: String,
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
}

impl Form<'_> {
    pub(super) fn encode(&self) -> Encoded {
        // The digest of the file in the boundary: no file holds that by chance,
        // and one made to hold it does not have that digest.
        let boundary = format!("bbot-agent-{}", self.sha256);
        let mut before = String::new();
        let fields = [
            ("session", Some(self.session)),
            ("challenge", self.challenge),
            ("instance", Some(self.instance)),
            ("sha256sum", Some(self.sha256)),
        ];
        // Writing to a String does not fail.
        for (name, value) in fields {
            if let Some(value) = value {
                let _ = write!(
                    before,
                    "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
                );
            }
        }
        let _ = write!(
            before,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"archive\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            quoted(self.name)
        );
        Encoded {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            before: before.into_bytes(),
            after: format!("\r\n--{boundary}--\r\n").into_bytes(),
        }
    }
}

/// A file name within quotes, as browsers write it (HTML, "multipart form
/// data"): nothing in it ends the quotes or the line.
fn quoted(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default();
    name.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The controller's message about an upload, in one line: its answer is a manifest with
/// `message` and an optional `reference`. Other answers have no message.
pub(super) fn message(answer: &[u8]) -> String {
    let mut parser = Parser::new(answer, "upload response");
    let Ok(Some(pairs)) = parser.next_manifest() else {
        return String::new();
    };
    let value = |name: &str| pairs.iter().find(|p| p.name == name).map(|p| &*p.value);
    match (value("message"), value("reference")) {
        (Some(message), Some(reference)) => format!("{message} (reference {reference})"),
        (Some(message), None) => message.to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_all_fields_before_the_file() {
        let form = Form {
            session: "s/1",
            challenge: Some("QUJD\nREVG"),
            instance: "archive",
            sha256: "00ff",
            name: "../x/a\"b.tar\r\n",
        };
        let encoded = form.encode();
        assert_eq!(
            encoded.content_type,
            "multipart/form-data; boundary=bbot-agent-00ff"
        );
        let before = String::from_utf8(encoded.before).unwrap();
        assert_eq!(
            before,
            "--bbot-agent-00ff\r\nContent-Disposition: form-data; name=\"session\"\r\n\r\ns/1\r\n\
             --bbot-agent-00ff\r\nContent-Disposition: form-data; name=\"challenge\"\r\n\r\nQUJD\nREVG\r\n\
             --bbot-agent-00ff\r\nContent-Disposition: form-data; name=\"instance\"\r\n\r\narchive\r\n\
             --bbot-agent-00ff\r\nContent-Disposition: form-data; name=\"sha256sum\"\r\n\r\n00ff\r\n\
             --bbot-agent-00ff\r\nContent-Disposition: form-data; name=\"archive\"; filename=\"a%22b.tar%0D%0A\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        assert_eq!(encoded.after, b"\r\n--bbot-agent-00ff--\r\n");
    }

    #[test]
    fn the_answer_to_an_upload_is_its_message() {
        let answer = b": 1\nstatus: 200\nmessage: archive is queued\nreference: abc\n";
        assert_eq!(message(answer), "archive is queued (reference abc)");
        assert_eq!(message(b"<html>"), "");
    }
}
