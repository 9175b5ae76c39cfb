//! From the name in a request to a place (pure).
//!
//! A name is split into components before any file system sees it, so that what
//! "outside" means is decided here; the kernel then holds symlinks to it
//! (`openat2(RESOLVE_BENEATH)`, in `tree`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::packet::{ErrorCode, Refusal};

/// How the name of an upload under way begins and ends, where it has one.
pub const PART_PREFIX: &str = ".tftp-";
/// See [`PART_PREFIX`].
pub const PART_SUFFIX: &str = ".part";

/// A file name relative to a root: components joined by `/`, none of them empty,
/// `.`, `..` or that of an upload under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Reads the name of a request.
    ///
    /// Leading slashes go (curl sends `/x` for `tftp://host//x`, U-Boot and iPXE
    /// send absolute paths), as do repeated ones and `.`. A backslash or a `%` is
    /// a character like any other. `a..b` is a good name.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] (ERROR 2) for `..` components, for directories (`a/`), for
    /// NUL, for names of uploads under way, and where nothing is left.
    pub fn parse(raw: &str) -> Result<Name, Refusal> {
        const OUTSIDE: Refusal = Refusal::new(ErrorCode::AccessViolation, "access violation");
        const DIRECTORY: Refusal = Refusal::new(ErrorCode::AccessViolation, "not a file name");

        if raw.ends_with('/') || raw.ends_with("/.") || raw == "." {
            return Err(DIRECTORY);
        }
        let mut name = String::with_capacity(raw.len());
        for part in raw.split('/') {
            match part {
                "" | "." => continue,
                ".." => return Err(OUTSIDE),
                _ if part.contains('\0') => return Err(OUTSIDE),
                _ if part.starts_with(PART_PREFIX) && part.ends_with(PART_SUFFIX) => {
                    return Err(OUTSIDE);
                }
                _ => {}
            }
            if !name.is_empty() {
                name.push('/');
            }
            name.push_str(part);
        }
        if name.is_empty() {
            return Err(DIRECTORY);
        }
        Ok(Name(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where requests lead: GETs to contents in memory, then to directories in the
/// order in which they were added; PUTs to one directory.
///
/// ```
/// use bbot_agent::tftp::Map;
///
/// let map = Map::new()
///     .contents("task.manifest", b": 1\nname: libfoo\n".to_vec())
///     .get("/build/tftp/build/gcc/get")
///     .put("/build/tftp/build/gcc/put");
/// assert!(map.find("task.manifest").is_some());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Map {
    contents: BTreeMap<String, Arc<[u8]>>,
    deferred: BTreeSet<String>,
    get: Vec<PathBuf>,
    put: Option<PathBuf>,
}

impl Map {
    /// A map that leads nowhere: every request is refused.
    pub fn new() -> Map {
        Map::default()
    }

    /// Adds a directory to read from. It need not exist yet.
    pub fn get(mut self, root: impl Into<PathBuf>) -> Map {
        self.get.push(root.into());
        self
    }

    /// Adds a file that exists in memory only. It hides files of that name.
    pub fn contents(mut self, name: impl Into<String>, octets: impl Into<Arc<[u8]>>) -> Map {
        self.contents.insert(name.into(), octets.into());
        self
    }

    /// Adds a file whose readers get no answer for now: see [`Served::Deferred`].
    ///
    /// [`Served::Deferred`]: super::Served::Deferred
    pub fn deferred(mut self, name: impl Into<String>) -> Map {
        self.deferred.insert(name.into());
        self
    }

    /// Sets the directory to write to. It need not exist yet.
    pub fn put(mut self, root: impl Into<PathBuf>) -> Map {
        self.put = Some(root.into());
        self
    }

    /// The contents in memory under `name`.
    pub fn find(&self, name: &str) -> Option<Arc<[u8]>> {
        self.contents.get(name).cloned()
    }

    /// Whether readers of `name` get no answer for now.
    pub fn is_deferred(&self, name: &str) -> bool {
        self.deferred.contains(name)
    }

    /// Whether anything can be read at all.
    pub fn is_readable(&self) -> bool {
        !self.get.is_empty() || !self.contents.is_empty()
    }

    /// The directories to read from, first to last.
    pub fn get_roots(&self) -> &[PathBuf] {
        &self.get
    }

    /// The directory to write to.
    pub fn put_root(&self) -> Option<&Path> {
        self.put.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_form() {
        for (raw, name) in [("/a/b//c", "a/b/c"), ("./x", "x")] {
            assert_eq!(Name::parse(raw).unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_is_outside_or_no_file_is_refused() {
        for raw in [
            "",
            "/",
            ".",
            "..",
            "a/../b",
            "a/",
            "a/.",
            "a\0b",
            "d/.tftp-1-0.part",
        ] {
            let refusal = Name::parse(raw).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::AccessViolation, "{raw}");
        }
        for raw in ["...", "a..b", "..a", ".tftp-1", "x.part"] {
            assert!(Name::parse(raw).is_ok(), "{raw}");
        }
    }
}
