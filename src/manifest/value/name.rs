//! Names and identifiers.

const RESERVED: [&str; 5] = ["build", "con", "prn", "aux", "nul"];

/// Checks a package name.
///
/// # Errors
///
/// Which rule it breaks, in libbpkg's words.
pub fn check_package_name(name: &str) -> Result<(), &'static str> {
    let bytes = name.as_bytes();
    let [first, .., last] = bytes else {
        return Err("length is less than two characters");
    };
    let is_device = matches!(
        bytes,
        [b'c', b'o', b'm', b'1'..=b'9'] | [b'l', b'p', b't', b'1'..=b'9']
    );
    if is_device || RESERVED.contains(&name) {
        return Err("illegal name");
    }
    if !first.is_ascii_alphabetic() {
        return Err("illegal first character (must be alphabetic)");
    }
    let is_legal = |b: &u8| b.is_ascii_alphanumeric() || b"_+-.".contains(b);
    if !bytes.iter().all(is_legal) {
        return Err("illegal character");
    }
    if !last.is_ascii_alphanumeric() && *last != b'+' {
        return Err("illegal last character (must be alphabetic, digit, or plus)");
    }
    Ok(())
}

fn is_hex_octets(text: &str, octets: usize, is_digit: impl Fn(&u8) -> bool) -> bool {
    let octet = |o: &[u8]| o.len() == 2 && o.iter().all(&is_digit);
    let mut parts = text.as_bytes().split(|b| *b == b':');
    text.len() == octets * 3 - 1 && parts.all(octet)
}

/// Checks a repository certificate fingerprint, as in `trust`: 32 octets in
/// hexadecimal of any case, separated by colons.
///
/// # Errors
///
/// If it is not one.
pub fn check_fingerprint(text: &str) -> Result<(), &'static str> {
    if is_hex_octets(text, 32, u8::is_ascii_hexdigit) {
        return Ok(());
    }
    Err("32 hexadecimal octets separated by colons expected")
}

/// Checks a MAC address: six octets in lower-case hexadecimal, separated by
/// colons.
///
/// # Errors
///
/// If it is not one.
pub fn check_mac(text: &str) -> Result<(), &'static str> {
    if is_hex_octets(text, 6, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err("six lower-case hexadecimal octets separated by colons expected")
}

/// Checks a SHA-256 sum: 64 digits of lower-case hexadecimal.
///
/// # Errors
///
/// If it is not one.
pub fn check_sha256(text: &str) -> Result<(), &'static str> {
    let is_digit = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == 64 && text.bytes().all(is_digit) {
        return Ok(());
    }
    Err("64 lower-case hexadecimal digits expected")
}

/// The canonical form of a target triplet, `<cpu>-[<vendor>-]<system>`: without
/// the vendors that mean nothing.
///
/// # Errors
///
/// If it is not one.
pub fn target_triplet(text: &str) -> Result<String, &'static str> {
    let mut parts: Vec<&str> = text.split('-').collect();
    if parts[0].is_empty() {
        return Err("missing cpu");
    }
    if parts.len() > 4 {
        return Err("too many components");
    }
    if parts.len() < 2 || parts.contains(&"") {
        return Err("missing os/kernel/abi");
    }
    if parts.len() > 2 && matches!(parts[1], "pc" | "unknown" | "none") {
        parts.remove(1);
    }
    Ok(parts.join("-"))
}
