//! The artifacts that a worker uploaded beside its result: `upload.tar`, whose
//! members are `<type>/<instance>/<file>`. Each goes to the URL that the controller
//! gave for its type.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Take};
use std::path::Path;

use super::task::TaskRecord;
use crate::controller::address::UploadTarget;
use crate::diag;
use crate::error::{Context as _, Result};
use crate::tar::{self, ArchiveLimits};

/// A member of the archive, ready to be stored.
#[derive(Debug)]
pub(super) struct Artifact {
    /// The `<type>` of `<type>-upload-url`.
    pub kind: String,
    /// Where it is posted to.
    pub url: UploadTarget,
    /// The upload instance, `archive` for instance.
    pub instance: String,
    /// Its name, without directories.
    pub name: String,
    /// Its bytes in the archive.
    pub contents: Take<File>,
}

/// The members of `archive` that the controller of `task` wants. An archive that is
/// not valid is reported and has none: the result goes without.
pub(super) fn open(archive: &Path, task: &TaskRecord) -> Result<Vec<Artifact>> {
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
        let Some((kind, instance, name)) = split(&member.name) else {
            diag::warning(format_args!(
                "ignoring artifact {}: not <type>/<instance>/<file>",
                member.name
            ))
            .emit();
            continue;
        };
        let Some((_, url)) = task.upload_urls.iter().find(|(known, _)| known == kind) else {
            diag::warning(format_args!(
                "ignoring artifact {}: the controller takes none of type {kind}",
                member.name
            ))
            .emit();
            continue;
        };
        // Each artifact has a descriptor, and so a position, of its own.
        let mut file = File::open(archive).context(what)?;
        file.seek(SeekFrom::Start(member.offset)).context(what)?;
        wanted.push(Artifact {
            kind: kind.to_owned(),
            url: url.clone(),
            instance: instance.to_owned(),
            name: name.to_owned(),
            contents: file.take(member.size),
        });
    }
    Ok(wanted)
}

/// Type, instance and file name; directories between them are dropped.
fn split(path: &str) -> Option<(&str, &str, &str)> {
    let (kind, rest) = path.split_once('/')?;
    let (instance, rest) = rest.split_once('/')?;
    let name = rest.rsplit('/').next()?;
    Some((kind, instance, name)).filter(|(_, _, name)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_member_is_named_by_type_instance_and_file() {
        assert_eq!(
            split("bindist/archive/x.tar.gz"),
            Some(("bindist", "archive", "x.tar.gz"))
        );
        assert_eq!(
            split("bindist/debian/a/b.deb"),
            Some(("bindist", "debian", "b.deb"))
        );
        assert_eq!(split("bindist/x.tar.gz"), None);
        assert_eq!(split("x"), None);
    }
}
