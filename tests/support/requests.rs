//! The requests of agents, as brep reads them: manifests, forms and signatures.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbot_agent::manifest::{Parser, hex};
use ring::digest::{SHA256, digest};

pub(super) fn bad(why: impl Into<String>) -> (u16, String) {
    (400, why.into())
}

pub(super) type Pairs = Vec<(String, String)>;

/// The manifests of a stream.
pub(super) fn stream(text: &[u8]) -> Result<Vec<Pairs>, (u16, String)> {
    let mut parser = Parser::new(text, "request");
    let mut list = Vec::new();
    while let Some(pairs) = parser.next_manifest().map_err(|e| bad(e.to_string()))? {
        let owned = pairs
            .iter()
            .map(|p| (p.name.to_string(), p.value.to_string()));
        list.push(owned.collect());
    }
    Ok(list)
}

pub(super) fn get<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(n, _)| n == name);
    found.map(|(_, value)| value.as_str())
}

pub(super) fn need<'a>(pairs: &'a Pairs, name: &str) -> Result<&'a str, (u16, String)> {
    match get(pairs, name) {
        Some("") => Err(bad(format!("empty {name}"))),
        Some(value) => Ok(value),
        None => Err(bad(format!("no {name} specified"))),
    }
}

pub(super) fn strict(pairs: &Pairs, known: impl Fn(&str) -> bool) -> Result<(), (u16, String)> {
    let mut seen = BTreeSet::new();
    for (name, _) in pairs {
        if !known(name) {
            return Err(bad(format!("unknown name '{name}' in request")));
        }
        if !seen.insert(name) {
            return Err(bad(format!("{name} redefinition")));
        }
    }
    Ok(())
}

/// Checks the name of an auxiliary machine.
pub(super) fn architecture(name: &str) -> Result<(), (u16, String)> {
    match name.split_once('-') {
        Some(("", _)) | None => Err(bad(format!(
            "no architecture component in machine name '{name}'"
        ))),
        Some((_, "")) => Err(bad(format!("no OS component in machine name '{name}'"))),
        Some(_) => Ok(()),
    }
}

pub(super) fn kilobytes(pairs: &Pairs, name: &str) -> Result<Option<u64>, (u16, String)> {
    let value = get(pairs, name).map(|value| {
        let number = value.parse();
        number.map_err(|_| bad(format!("invalid {name} value '{value}'")))
    });
    value.transpose()
}

/// Whether the auxiliary machines of a task were offered, each for one environment, and
/// their minimum memory is there; without `ram` there is no limit.
pub(super) fn has_room(task: &Pairs, offered: &[(&str, Option<u64>)], ram: Option<u64>) -> bool {
    let mut left: Vec<_> = offered.to_vec();
    let mut used = 0;
    let needs = task
        .iter()
        .filter(|(n, _)| n.starts_with("auxiliary-machine"));
    let mut all = needs.map(|(_, machine)| {
        let index = left.iter().position(|(name, _)| name == machine)?;
        used += left.remove(index).1.unwrap_or_default();
        ram.is_none_or(|ram| used <= ram).then_some(())
    });
    all.all(|found| found.is_some())
}

pub(super) struct Field {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) content: Vec<u8>,
}

/// Splits a form; nothing if it is not one.
pub(super) fn form(body: &[u8], boundary: &str) -> Option<Vec<Field>> {
    let find = |text: &[u8], what: &str| {
        let what = what.as_bytes();
        text.windows(what.len()).position(|w| w == what)
    };
    let mut rest = body.strip_prefix(format!("--{boundary}\r\n").as_bytes())?;
    let mut fields = Vec::new();
    let delimiter = format!("\r\n--{boundary}");
    loop {
        let end = find(rest, &delimiter)?;
        let (part, after) = (&rest[..end], &rest[end + delimiter.len()..]);
        let head_end = find(part, "\r\n\r\n")?;
        let head = std::str::from_utf8(&part[..head_end]).ok()?;
        let quoted = |key: &str| {
            let (_, after) = head.split_once(&format!("{key}=\""))?;
            Some(after.split_once('"')?.0.to_owned())
        };
        fields.push(Field {
            name: quoted(" name")?,
            file: quoted("filename").unwrap_or_default(),
            content: part[head_end + 4..].to_vec(),
        });
        if after == b"--\r\n" {
            return Some(fields);
        }
        rest = after.strip_prefix(b"\r\n")?;
    }
}

/// Checks that `answer` is a signature of `challenge` by the key whose public half is in
/// the file `key`.
pub(super) fn check_signature(key: &Path, challenge: &str, answer: &str) -> Result<(), String> {
    let signature = STANDARD
        .decode(answer.replace('\n', ""))
        .map_err(|e| format!("bad base64: {e}"))?;
    let file = key.with_extension("signature");
    fs::write(&file, signature).unwrap();
    let recovered = Command::new("openssl")
        .args(["pkeyutl", "-verifyrecover", "-pubin", "-inkey"])
        .arg(key)
        .arg("-in")
        .arg(&file)
        .output()
        .unwrap();
    if recovered.status.success() && recovered.stdout == challenge.as_bytes() {
        Ok(())
    } else {
        Err("challenge mismatch".to_owned())
    }
}

/// SHA-256 of the DER of a public key, as brep computes it.
pub(super) fn fingerprint(key: &Path) -> String {
    let der = Command::new("openssl")
        .args(["pkey", "-pubin", "-outform", "DER", "-in"])
        .arg(key)
        .output()
        .unwrap();
    hex(digest(&SHA256, &der.stdout).as_ref())
}
