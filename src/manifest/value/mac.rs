//! MAC addresses in manifests.

/// Checks a MAC address: six octets in lower-case hexadecimal, separated by
/// colons.
pub fn check_mac(text: &str) -> Result<(), &'static str> {
    let is_digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let octet = |o: &[u8]| o.len() == 2 && o.iter().all(is_digit);
    let mut parts = text.as_bytes().split(|b| *b == b':');
    if text.len() == 6 * 3 - 1 && parts.all(octet) {
        return Ok(());
    }
    Err("six lower-case hexadecimal octets separated by colons expected")
}
