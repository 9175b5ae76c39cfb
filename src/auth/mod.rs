//! The agent's key: its fingerprint, and signatures over challenges.
//!
//! A controller with agent authentication knows the public keys of its agents.
//! The agent says which one it has by the fingerprint (SHA-256 of the DER
//! SubjectPublicKeyInfo, in hex), and proves it by the RSA private-key operation
//! with PKCS#1 v1.5 type 1 padding over the challenge itself: no hash, no
//! `DigestInfo` (RFC 8017 section 9.2, without step 2).
//!
//! The openssl program does both, as in the original: so engines and hardware
//! keys work, and no private key is ever in this process. The challenge travels
//! by pipe, the key is named by its path; neither is ever shown. `openssl` is
//! `--openssl`, and `--openssl-option` is handed to each of its commands.

mod openssl;

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::durable;
use crate::error::{Class, Context as _, Error, Result};
use crate::manifest::hex;
use crate::manifest::value::encode_base64;
use crate::watch::Watch;
use openssl::Openssl;
use ring::digest::{SHA256, digest};

/// Longest challenge that can be signed: what `openssl pkeyutl` takes.
const CHALLENGE_MAX: usize = 64;
/// RSA signatures are as long as the modulus; 16384 bits are OpenSSL's most.
const SIGNATURE_MAX: usize = 2048;
/// Public keys in DER are a little longer than the modulus.
const PUBLIC_MAX: usize = 4096;
/// A PEM private key of 16384 bits has some 13 kB.
const KEY_MAX: u64 = 64 * 1024;

/// Where the key is, and how it is used.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The RSA private key in PEM form.
    pub key: PathBuf,
    /// The openssl program, a name or a path.
    pub openssl: PathBuf,
    /// Further options for each of its commands.
    pub options: Vec<String>,
    /// How long one command may take; a hardware key has its time.
    pub timeout: Duration,
}

impl KeySettings {
    /// The key at `key`, with the openssl of the host.
    pub fn new(key: impl Into<PathBuf>) -> KeySettings {
        KeySettings {
            key: key.into(),
            openssl: PathBuf::from("openssl"),
            options: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// A key that has been seen to work.
#[derive(Debug)]
pub struct Key {
    settings: KeySettings,
    openssl: Openssl,
    fingerprint: String,
}

impl Key {
    /// Checks the key and computes its fingerprint; signs something, so that
    /// what cannot work later fails now.
    ///
    /// # Errors
    ///
    /// A key that is missing, not readable, readable by others, encrypted or
    /// not RSA; an openssl that is missing, fails or hangs. Of class
    /// [`Class::Config`], or [`Class::Permission`].
    pub fn open(settings: KeySettings, watch: &Watch) -> Result<Key> {
        let what = || format!("unable to use key {}", settings.key.display());
        check_file(&settings.key).context(what)?;
        let openssl = Openssl::find(&settings, watch.clone()).context(what)?;
        let public = openssl
            .run(
                &["pkey", "-pubout", "-outform", "DER"],
                "-in",
                b"",
                PUBLIC_MAX,
            )
            .context(what)?;
        if !is_rsa(&public) {
            return Err(Error::new(format!("{}: not an RSA key", what()))
                .with_class(Class::Config)
                .hint("make one: openssl genrsa -out <file> 4096"));
        }
        let key = Key {
            fingerprint: hex(digest(&SHA256, &public).as_ref()),
            settings,
            openssl,
        };
        key.sign(&[b'0'; CHALLENGE_MAX])?;
        Ok(key)
    }

    /// The fingerprint for the task request: 64 hex digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Signs a challenge; the answer is base64 in lines of 76 columns, as the
    /// value of `challenge` in a result request.
    pub fn sign(&self, challenge: &[u8]) -> Result<String> {
        let what = || {
            format!(
                "unable to sign challenge with key {}",
                self.settings.key.display()
            )
        };
        let length = challenge.len();
        if length == 0 || length > CHALLENGE_MAX || challenge.contains(&b'\n') {
            return Err(Error::new(format!(
                "{}: a challenge has 1 to {CHALLENGE_MAX} bytes and no newline, not {length} bytes",
                what()
            )));
        }
        let signature = self
            .openssl
            .run(
                self.openssl.sign_command(),
                "-inkey",
                challenge,
                SIGNATURE_MAX,
            )
            .context(what)?;
        // Nothing shorter can hold the challenge and its padding.
        if signature.len() < length + 11 {
            return Err(Error::new(format!(
                "{}: {} wrote only {} bytes",
                what(),
                self.settings.openssl.display(),
                signature.len()
            )));
        }
        Ok(encode_base64(&signature))
    }
}

/// The checks of a key file that need no use of the key.
fn check_file(path: &Path) -> Result<()> {
    let config = |why: &str| Error::new(why).with_class(Class::Config);
    let file = durable::open(path).context(|| "unable to open it");
    let file = file.map_err(|error| error.with_class(Class::Config))?;
    let metadata = file.metadata().context(|| "unable to look at it")?;
    if !metadata.is_file() {
        return Err(config("not a file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(config("it can be read by others").hint(format!(
            "take their permissions away: chmod 600 {}",
            path.display()
        )));
    }
    let mut text = Vec::new();
    let read = file.take(KEY_MAX).read_to_end(&mut text);
    let verdict = inspect(&text);
    // The copy was only looked at; it does not stay behind in memory.
    text.fill(0);
    std::hint::black_box(&text);
    read.context(|| "unable to read it")?;
    verdict
}

/// Recognises the kinds of key that would only make openssl ask for a password
/// or say something unhelpful.
fn inspect(text: &[u8]) -> Result<()> {
    let config = |why: &str| Error::new(why).with_class(Class::Config);
    let has = |needle: &[u8]| text.windows(needle.len()).any(|w| w == needle);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(config("it is encrypted")
            .hint("store it without a password: openssl rsa -in <old> -out <new>"));
    }
    if has(b"BEGIN OPENSSH PRIVATE KEY") {
        return Err(
            config("it is an OpenSSH key").hint("make one: openssl genrsa -out <file> 4096")
        );
    }
    if has(b"BEGIN EC PRIVATE KEY") || has(b"BEGIN DSA PRIVATE KEY") {
        return Err(config("not an RSA key").hint("make one: openssl genrsa -out <file> 4096"));
    }
    if !has(b"PRIVATE KEY-----") && has(b"PUBLIC KEY-----") {
        return Err(config("it is a public key; the private one is needed"));
    }
    // Anything else may be a reference that an engine or provider understands.
    Ok(())
}

/// Whether DER bytes are a SubjectPublicKeyInfo of `rsaEncryption`
/// (1.2.840.113549.1.1.1), by the algorithm identifier at their beginning.
fn is_rsa(public: &[u8]) -> bool {
    const ALGORITHM: &[u8] = &[
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let start = &public[..public.len().min(32)];
    start.windows(ALGORITHM.len()).any(|w| w == ALGORITHM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_work_are_named() {
        let why = |text: &str| inspect(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            why("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            "it is encrypted"
        );
        assert_eq!(
            why("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"),
            "it is encrypted"
        );
        assert_eq!(why("-----BEGIN EC PRIVATE KEY-----"), "not an RSA key");
        assert_eq!(
            why("-----BEGIN PUBLIC KEY-----"),
            "it is a public key; the private one is needed"
        );
        assert!(inspect(b"-----BEGIN PRIVATE KEY-----").is_ok());
        assert!(inspect(b"-----BEGIN RSA PRIVATE KEY-----").is_ok());
    }
}
