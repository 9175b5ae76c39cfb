//! The agent's key, with the real openssl and with some that misbehave.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbot_agent::auth::{Key, KeySettings};
use bbot_agent::error::{Class, Error};
use bbot_agent::json::Value;
use bbot_agent::watch::Watch;

use nix::sys::signal::{Signal, raise};

use crate::support::http::openssl;
use crate::support::{TempDir, require_programs};

const CHALLENGE: &[u8] = b"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

fn vector(name: &str) -> String {
    let text = include_str!("data/auth-vector.json");
    let value = Value::parse(text).unwrap();
    value.get(name).unwrap().as_str().unwrap().to_owned()
}

/// Writes a file that only we can read.
fn private(path: PathBuf, text: impl AsRef<[u8]>) -> PathBuf {
    fs::write(&path, text).unwrap();
    mode(&path, 0o600);
    path
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn open(settings: KeySettings) -> Result<Key, Error> {
    Key::open(settings, &Watch::start().unwrap())
}

fn refused(key: &Path) -> Error {
    open(KeySettings::new(key)).unwrap_err()
}

/// A program that plays openssl; `script` is run for everything but `version`.
fn fake(scratch: &TempDir, version: &str, script: &str) -> PathBuf {
    let path = scratch.path().join("fake-openssl");
    let text =
        format!("#!/bin/sh\nif [ \"$1\" = version ]; then echo '{version}'; exit; fi\n{script}\n");
    // A program that is open for writing cannot be run, and a child that another
    // test is just forking off may hold what we have open: so a child writes it.
    fs::write(path.with_extension("text"), text).unwrap();
    let copied = Command::new("cp")
        .args([&path.with_extension("text"), &path])
        .status()
        .unwrap();
    assert!(copied.success());
    mode(&path, 0o755);
    path
}

#[test]
fn the_vector_is_reproduced() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let file = private(scratch.path().join("key"), vector("private_key_pem"));
    let key = open(KeySettings::new(&file)).unwrap();
    assert_eq!(key.fingerprint(), vector("fingerprint"));
    let signature = key.sign(vector("challenge").as_bytes()).unwrap();
    assert_eq!(signature, vector("signature_base64"));
}

#[test]
fn openssl_recovers_the_challenge_from_our_signature() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    for (bits, form) in [(2048, "PKCS#8"), (2048, "PKCS#1"), (4096, "PKCS#8")] {
        let traditional = if form == "PKCS#1" {
            " -traditional"
        } else {
            ""
        };
        openssl(
            scratch.path(),
            &format!("genrsa{traditional} -out key {bits}"),
        );
        openssl(scratch.path(), "pkey -in key -pubout -out public");
        let text = fs::read_to_string(scratch.path().join("key")).unwrap();
        assert_eq!(text.contains("BEGIN RSA"), form == "PKCS#1", "{text}");
        let key = open(KeySettings::new(scratch.path().join("key"))).unwrap();
        let signature = key.sign(CHALLENGE).unwrap();
        let bytes = STANDARD.decode(signature.replace('\n', "")).unwrap();
        assert_eq!(bytes.len(), bits / 8);
        fs::write(scratch.path().join("signature"), bytes).unwrap();
        openssl(
            scratch.path(),
            "pkeyutl -verifyrecover -pubin -inkey public -in signature -out recovered",
        );
        assert_eq!(
            fs::read(scratch.path().join("recovered")).unwrap(),
            CHALLENGE
        );
    }
}

#[test]
fn keys_that_cannot_work_are_refused_before_they_are_used() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let dir = scratch.path();
    openssl(dir, "genpkey -algorithm ed25519 -out ed25519");
    openssl(dir, "ecparam -name prime256v1 -genkey -noout -out ec");
    openssl(
        dir,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec8",
    );
    openssl(dir, "genrsa -aes128 -passout pass:x -out encrypted 2048");
    openssl(dir, "genrsa -out rsa 2048");
    openssl(dir, "pkey -in rsa -pubout -out public");
    for name in ["ec", "public"] {
        mode(&dir.join(name), 0o600);
    }
    for (name, why) in [
        ("ed25519", "not an RSA key"),
        ("ec", "not an RSA key"),
        ("ec8", "not an RSA key"),
        ("encrypted", "it is encrypted"),
        ("public", "it is a public key; the private one is needed"),
        ("absent", "unable to open it: No such file or directory"),
    ] {
        let path = dir.join(name);
        let error = refused(&path);
        assert_eq!(
            error.to_string(),
            format!("unable to use key {}: {why}", path.display())
        );
    }
    let error = refused(&private(dir.join("junk"), "junk"));
    assert!(error.to_string().contains("openssl pkey"), "{error}");
    assert_eq!(error.class(), Class::Config);
    let error = refused(dir);
    assert!(error.to_string().contains("not a file"), "{error}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let path = private(scratch.path().join("key"), vector("private_key_pem"));
    for bits in [0o640, 0o604, 0o660] {
        mode(&path, bits);
        let error = refused(&path);
        assert!(
            error.to_string().ends_with("it can be read by others"),
            "{error}"
        );
        let hint = error.hints().next().unwrap();
        assert!(hint.contains("chmod 600"), "{hint}");
    }
    mode(&path, 0o400);
    open(KeySettings::new(&path)).unwrap();
}

#[test]
fn an_openssl_that_is_missing_or_something_else_is_named() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let key = private(scratch.path().join("key"), vector("private_key_pem"));
    let with = |openssl: &str| KeySettings {
        openssl: PathBuf::from(openssl),
        ..KeySettings::new(&key)
    };
    let error = open(with("/nonexistent/openssl")).unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/openssl"),
        "{error}"
    );
    assert!(
        error.hints().any(|hint| hint.contains("--openssl")),
        "{error:?}"
    );
    let error = open(with("/bin/true")).unwrap_err();
    assert!(
        error.to_string().contains("/bin/true is not openssl"),
        "{error}"
    );
}

#[test]
fn an_openssl_that_hangs_is_ended_at_the_deadline() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let key = private(scratch.path().join("key"), vector("private_key_pem"));
    for script in ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000"] {
        let settings = KeySettings {
            openssl: fake(&scratch, "OpenSSL 3.0.0", script),
            timeout: Duration::from_millis(500),
            ..KeySettings::new(&key)
        };
        let started = Instant::now();
        let error = open(settings).unwrap_err();
        assert!(
            error.to_string().contains("not done after 0.5 seconds"),
            "{error}"
        );
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn an_openssl_that_fails_or_babbles_is_an_error() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let key = private(scratch.path().join("key"), vector("private_key_pem"));
    for (script, why) in [
        (
            "echo no luck >&2; exit 3",
            "failed (exit status: 3): no luck",
        ),
        ("kill -9 $$", "failed (signal: 9"),
        ("exec cat /dev/zero", "bytes of output"),
        ("exec cat /dev/zero >&2", "bytes of output"),
        ("true", "not an RSA key"),
    ] {
        let settings = KeySettings {
            openssl: fake(&scratch, "OpenSSL 3.0.0", script),
            ..KeySettings::new(&key)
        };
        let error = open(settings).unwrap_err();
        assert!(error.to_string().contains(why), "{script}: {error}");
    }
}

#[test]
fn before_openssl_3_the_signature_is_made_by_rsautl() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let key = private(scratch.path().join("key"), vector("private_key_pem"));
    let log = scratch.path().join("log");
    let script = format!("echo \"$*\" >> {}; exec openssl \"$@\"", log.display());
    for (version, command) in [
        ("OpenSSL 1.1.1w  11 Sep 2023", "rsautl -sign"),
        ("OpenSSL 3.0.0 7 sep 2021", "pkeyutl -sign"),
    ] {
        let settings = KeySettings {
            openssl: fake(&scratch, version, &script),
            ..KeySettings::new(&key)
        };
        let opened = open(settings).unwrap();
        assert_eq!(
            opened.sign(vector("challenge").as_bytes()).unwrap(),
            vector("signature_base64")
        );
        let last = fs::read_to_string(&log).unwrap();
        let last = last.lines().last().unwrap().to_owned();
        assert_eq!(last, format!("{command} -inkey {}", key.display()));
    }
}

#[test]
fn options_reach_openssl_and_the_challenge_does_not_show() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let key = private(scratch.path().join("key"), vector("private_key_pem"));
    let log = scratch.path().join("log");
    let script = format!(
        "echo \"$*\" >> {0}; env >> {0}; exec openssl \"$@\"",
        log.display()
    );
    let settings = KeySettings {
        openssl: fake(&scratch, "OpenSSL 3.0.0", &script),
        options: vec!["-provider".to_owned(), "default".to_owned()],
        ..KeySettings::new(&key)
    };
    open(settings).unwrap().sign(CHALLENGE).unwrap();
    let seen = fs::read_to_string(&log).unwrap();
    assert!(seen.contains("-sign -provider default -inkey"), "{seen}");
    assert!(!seen.contains(std::str::from_utf8(CHALLENGE).unwrap()));
    assert!(!seen.contains("PRIVATE KEY"));
}

#[test]
fn a_signal_ends_openssl_but_the_last_word_is_still_signed() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let file = private(scratch.path().join("key"), vector("private_key_pem"));
    let watch = Watch::start().unwrap();
    let key = Key::open(KeySettings::new(&file), &watch).unwrap();
    raise(Signal::SIGTERM).unwrap();
    // Under way when the signal comes: ended.
    let settings = KeySettings {
        openssl: fake(&scratch, "OpenSSL 3.0.0", "exec sleep 1000"),
        ..KeySettings::new(&file)
    };
    let started = Instant::now();
    let error = Key::open(settings, &watch).unwrap_err();
    assert!(error.to_string().contains("stopped by a signal"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    // Begun after it: done, if it is quick.
    assert_eq!(
        key.sign(vector("challenge").as_bytes()).unwrap(),
        vector("signature_base64")
    );
}

#[test]
fn a_challenge_that_cannot_be_one_is_refused() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let scratch = TempDir::new();
    let file = private(scratch.path().join("key"), vector("private_key_pem"));
    let key = open(KeySettings::new(&file)).unwrap();
    for challenge in [&b""[..], &[b'x'; 65], b"a\nb"] {
        let error = key.sign(challenge).unwrap_err();
        assert!(
            error.to_string().contains("a challenge has 1 to 64 bytes"),
            "{error}"
        );
    }
}
