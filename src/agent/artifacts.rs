//! What a worker uploaded beside its result: `upload.tar`, whose members are
//! `<type>/<instance>/<file>`. Each goes to the URL that the controller gave for
//! its type.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Take};
use std::path::Path;

use crate::controller::Assignment;
use crate::diag;
use crate::error::{Context as _, Result};
use crate::store::Artifact;
use crate::tar::{self, ArchiveLimits};

/// A member of the archive, ready to be stored.
#[derive(Debug)]
pub(super) struct Member {
    kind: String,
    url: String,
    instance: String,
    name: String,
    contents: Take<File>,
}

impl Member {
    /// As the store wants it.
    pub(super) fn artifact(&mut self, challenge: Option<String>) -> Artifact<'_> {
        Artifact {
            kind: self.kind.clone(),
            url: self.url.clone(),
            instance: self.instance.clone(),
            name: self.name.clone(),
            challenge,
            contents: &mut self.contents,
        }
    }
}

/// The members of `archive` that the controller wants. An archive that is no
/// good is reported and has none: it must not cost the result.
///
/// # Errors
///
/// When the archive cannot be opened.
pub(super) fn open(archive: &Path, assignment: &Assignment) -> Result<Vec<Member>> {
    let what = || format!("unable to read artifacts {}", archive.display());
    let mut file = File::open(archive).context(what)?;
    let members = match tar::members(&mut file, ArchiveLimits::default()) {
        Ok(members) => members,
        Err(error) => {
            diag::warning(format_args!(
                "ignoring the artifacts of the worker: {error}"
            ))
            .emit();
            return Ok(Vec::new());
        }
    };
    let mut wanted = Vec::new();
    for member in members {
        let Some((kind, instance, name)) = place(&member.name) else {
            diag::warning(format_args!(
                "ignoring artifact {}: not <type>/<instance>/<file>",
                member.name
            ))
            .emit();
            continue;
        };
        let Some((_, url)) = assignment
            .upload_urls
            .iter()
            .find(|(known, _)| known == kind)
        else {
            diag::warning(format_args!(
                "ignoring artifact {}: the controller takes none of type {kind}",
                member.name
            ))
            .emit();
            continue;
        };
        // A descriptor of its own for each, as they share no position.
        let mut file = File::open(archive).context(what)?;
        file.seek(SeekFrom::Start(member.offset)).context(what)?;
        wanted.push(Member {
            kind: kind.to_owned(),
            url: url.to_url(),
            instance: instance.to_owned(),
            name: name.to_owned(),
            contents: file.take(member.size),
        });
    }
    Ok(wanted)
}

/// Type, instance and file name; what is between is dropped.
fn place(path: &str) -> Option<(&str, &str, &str)> {
    let (kind, rest) = path.split_once('/')?;
    let (instance, rest) = rest.split_once('/')?;
    let name = rest.rsplit('/').next()?;
    Some((kind, instance, name)).filter(|(_, _, name)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_member_is_named_by_type_instance_and_file() {
        assert_eq!(
            place("bindist/archive/x.tar.gz"),
            Some(("bindist", "archive", "x.tar.gz"))
        );
        assert_eq!(
            place("bindist/debian/a/b.deb"),
            Some(("bindist", "debian", "b.deb"))
        );
        assert_eq!(place("bindist/x.tar.gz"), None);
        assert_eq!(place("x"), None);
    }
}
