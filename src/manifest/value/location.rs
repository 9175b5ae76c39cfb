//! Repository locations.

use std::fmt;

/// The kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryType {
    /// Packed packages behind a list of them.
    Pkg,
    /// A directory of unpacked ones.
    Dir,
    /// A git repository.
    Git,
}

impl RepositoryType {
    /// Reads the word for it.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn parse(word: &str) -> Result<RepositoryType, String> {
        match word {
            "pkg" => Ok(RepositoryType::Pkg),
            "dir" => Ok(RepositoryType::Dir),
            "git" => Ok(RepositoryType::Git),
            _ => Err(format!("invalid repository type '{word}'")),
        }
    }
}

impl fmt::Display for RepositoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RepositoryType::Pkg => "pkg",
            RepositoryType::Dir => "dir",
            RepositoryType::Git => "git",
        })
    }
}

/// Where packages come from.
///
/// An agent hands locations on as they are; this is to show them the way other
/// tools do, by their canonical names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryLocation {
    kind: RepositoryType,
    url: String,
    canonical_name: String,
}

/// A URL, as far as it matters here. A path is one of scheme `file`.
struct Url<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    path: &'a str,
    fragment: Option<&'a str>,
}

impl RepositoryLocation {
    /// Reads a location; its type is guessed if it is neither given nor in the
    /// scheme of the URL.
    ///
    /// # Errors
    ///
    /// Why it cannot be one.
    pub fn parse(url: &str, kind: Option<RepositoryType>) -> Result<RepositoryLocation, String> {
        let typed = url.split_once('+').and_then(|(word, rest)| {
            let is_url = rest.contains("://");
            Some((RepositoryType::parse(word).ok().filter(|_| is_url)?, rest))
        });
        let (in_scheme, plain) = match typed {
            Some((in_scheme, rest)) => (Some(in_scheme), rest),
            None => (None, url),
        };
        if let (Some(kind), Some(in_scheme)) = (kind, in_scheme)
            && kind != in_scheme
        {
            return Err(format!(
                "mismatching repository types: {kind} specified, {in_scheme} in URL scheme"
            ));
        }
        let parts = split(plain)?;
        let kind = kind.or(in_scheme).unwrap_or_else(|| guess(&parts));
        let is_local = parts.scheme == "file";
        if is_local && !parts.path.starts_with('/') {
            return Err("relative filesystem path".to_owned());
        }
        let canonical = match kind {
            RepositoryType::Pkg if parts.fragment.is_some() => {
                return Err("unexpected fragment".to_owned());
            }
            RepositoryType::Pkg => canonical_pkg(&parts)?,
            RepositoryType::Dir if !is_local => return Err("should be local".to_owned()),
            RepositoryType::Dir => parts.path.to_owned(),
            RepositoryType::Git => canonical_git(&parts),
        };
        let url = if is_local { parts.path } else { plain };
        let fragment = parts.fragment.filter(|_| is_local);
        let mut url = url
            .strip_suffix('/')
            .filter(|u| !u.is_empty())
            .unwrap_or(url)
            .to_owned();
        url.extend(fragment.map(|f| format!("#{f}")));
        Ok(RepositoryLocation {
            kind,
            url,
            canonical_name: format!("{kind}:{canonical}"),
        })
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> RepositoryType {
        self.kind
    }

    /// The URL, or the path of a local one, without its type.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name that all ways to spell the location share.
    #[must_use]
    pub fn canonical_name(&self) -> &str {
        &self.canonical_name
    }
}

/// The URL, with its type where it would be guessed wrong.
impl fmt::Display for RepositoryLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guessed = split(&self.url).map(|parts| guess(&parts));
        if guessed == Ok(self.kind) || self.url.starts_with('/') {
            return f.write_str(&self.url);
        }
        write!(f, "{}+{}", self.kind, self.url)
    }
}

fn split(url: &str) -> Result<Url<'_>, String> {
    let (url, fragment) = match url.split_once('#') {
        Some((url, fragment)) => (url, Some(fragment)),
        None => (url, None),
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        return Ok(Url {
            scheme: "file",
            host: "",
            port: None,
            path: url,
            fragment,
        });
    };
    if !matches!(scheme, "http" | "https" | "git" | "ssh" | "file") {
        return Err(format!("unsupported scheme '{scheme}'"));
    }
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    if host.is_empty() && scheme != "file" {
        return Err("missing host".to_owned());
    }
    Ok(Url {
        scheme,
        host,
        port,
        path,
        fragment,
    })
}

fn guess(url: &Url<'_>) -> RepositoryType {
    let path = url.path.trim_end_matches('/');
    if url.scheme == "git" || path.ends_with(".git") {
        RepositoryType::Git
    } else {
        RepositoryType::Pkg
    }
}

/// The host without what says nothing, and the port unless it is the usual one.
fn authority(url: &Url<'_>, prefixes: &[&str]) -> String {
    let host = url.host.to_ascii_lowercase();
    let bare = host.strip_prefix("www.").unwrap_or(&host);
    let bare = prefixes
        .iter()
        .find_map(|p| bare.strip_prefix(p))
        .unwrap_or(bare);
    let usual = match url.scheme {
        "http" => "80",
        "https" => "443",
        "git" => "9418",
        _ => "22",
    };
    match url.port {
        Some(port) if port != usual => format!("{bare}:{port}"),
        _ => bare.to_owned(),
    }
}

/// Host and path without the version of the format, which has to be in it; of
/// a local path, only what is behind the version.
fn canonical_pkg(url: &Url<'_>) -> Result<String, String> {
    let parts: Vec<&str> = url.path.split('/').filter(|p| !p.is_empty()).collect();
    let version = parts.iter().position(|p| *p == "1");
    let version = version.ok_or("missing repository version")?;
    let (before, after) = (&parts[..version], &parts[version + 1..]);
    if url.scheme == "file" {
        return Ok(after.join("/"));
    }
    let before = match before {
        // Where packages usually are on a host that has other things as well.
        ["pkg" | "bpkg", rest @ ..] => rest,
        before => before,
    };
    let path = [before, after].concat();
    Ok([&[&*authority(url, &["pkg.", "bpkg."])], &path[..]]
        .concat()
        .join("/"))
}

fn canonical_git(url: &Url<'_>) -> String {
    let path = url.path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let fragment = url.fragment.map(|f| format!("#{f}")).unwrap_or_default();
    if url.scheme == "file" {
        return format!("{path}{fragment}");
    }
    format!("{}{path}{fragment}", authority(url, &["git.", "scm."]))
}
