//! Manifests of templates: guests that were stopped when they asked for their task.

use super::syntax::{ParseError, SerializeError, Style};
use super::values::{Section, Values, single};

/// The manifest of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateManifest {
    /// The time of its making, in seconds since 1970.
    pub made: u64,
    /// The host and the way to run the guest that it is valid for, by name.
    pub key: Values,
    /// The guest.
    pub contents: TemplateContents,
}

/// The guest of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateContents {
    /// It waits for its task.
    Guest(WaitingGuest),
    /// There is none, for this reason: the machine is not tried again.
    Unable(String),
}

/// A guest that was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingGuest {
    /// The hardware address of its gateway.
    pub gateway: String,
    /// The address and port that it asked from.
    pub peer: String,
    /// Its request, in hexadecimal digits.
    pub request: String,
    /// The checksum of its files.
    pub checksum: String,
    /// Whether a guest agent runs in it.
    pub has_agent: bool,
    /// Whether QEMU maps its memory from the template itself.
    pub is_shared: bool,
}

/// The prefix of the names of the key.
const KEY: &str = "for-";

impl TemplateManifest {
    const KIND: &str = "template";

    /// Reads a template manifest.
    pub fn parse(text: &[u8], source: &str) -> Result<TemplateManifest, ParseError> {
        let section = single(text, source, Self::KIND)?;
        let made = section.read("made", str::parse)?;
        let made = made.ok_or_else(|| section.missing("made"))?;
        let contents = contents(&section)?;
        let values = section.into_values();
        let key = values
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(KEY)?, value)));
        Ok(TemplateManifest {
            made,
            key: key.collect(),
            contents,
        })
    }

    /// The text.
    pub fn to_text(&self) -> Result<String, SerializeError> {
        let mut values = Values::default();
        values.push("made", self.made.to_string());
        for (name, value) in self.key.iter() {
            values.push(format!("{KEY}{name}"), value);
        }
        match &self.contents {
            TemplateContents::Unable(reason) => values.push("unable", reason),
            TemplateContents::Guest(guest) => {
                values.push("gateway", &guest.gateway);
                values.push("peer", &guest.peer);
                values.push("request", &guest.request);
                values.push("checksum", &guest.checksum);
                let word = |is: bool| if is { "yes" } else { "no" };
                values.push("guest-agent", word(guest.has_agent));
                values.push("shared-memory", word(guest.is_shared));
            }
        }
        values.to_text("template manifest", Style::default())
    }
}

fn contents(section: &Section<'_>) -> Result<TemplateContents, ParseError> {
    if let Some(reason) = section.optional("unable")? {
        return Ok(TemplateContents::Unable(reason.value.to_string()));
    }
    let value =
        |name| -> Result<String, ParseError> { Ok(section.required(name)?.value.to_string()) };
    Ok(TemplateContents::Guest(WaitingGuest {
        gateway: value("gateway")?,
        peer: value("peer")?,
        request: value("request")?,
        checksum: value("checksum")?,
        has_agent: value("guest-agent")? == "yes",
        is_shared: value("shared-memory")? == "yes",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(contents: TemplateContents) -> TemplateManifest {
        TemplateManifest {
            made: 7,
            key: [("qemu", "/usr/bin/qemu 1"), ("kernel", "6.1\n#1")]
                .into_iter()
                .collect(),
            contents,
        }
    }

    #[test]
    fn a_template_manifest_is_read_as_it_was_written() {
        let guest = WaitingGuest {
            gateway: "02:00:00:00:00:01".into(),
            peer: "10.0.0.2:1024".into(),
            request: "0001".into(),
            checksum: "ab".into(),
            has_agent: true,
            is_shared: true,
        };
        for contents in [
            TemplateContents::Guest(guest),
            TemplateContents::Unable("a device\nof it".into()),
        ] {
            let manifest = manifest(contents);
            let text = manifest.to_text().unwrap();
            assert_eq!(
                TemplateManifest::parse(text.as_bytes(), "").unwrap(),
                manifest
            );
        }
    }

    #[test]
    fn a_part_of_a_template_manifest_is_an_error() {
        for (text, error) in [
            (": 1\nunable: x\n", "no made specified"),
            (": 1\nmade: x\nunable: x\n", "invalid made"),
            (": 1\nmade: 1\npeer: 10.0.0.2:1\n", "no gateway specified"),
            ("", "template manifest expected"),
        ] {
            let found = TemplateManifest::parse(text.as_bytes(), "").unwrap_err();
            assert!(found.to_string().contains(error), "{found}");
        }
    }
}
