//! Base64 as manifests have it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Characters of base64 on a line.
const BASE64_WIDTH: usize = 76;

/// Encodes `bytes` in base64, with a newline after every 76 characters but not
/// at the end: as coreutils' `base64`, less its last newline.
pub fn encode_base64(bytes: &[u8]) -> String {
    let code = STANDARD.encode(bytes);
    let mut text = String::with_capacity(code.len() + code.len() / BASE64_WIDTH);
    for (at, c) in code.char_indices() {
        if at > 0 && at % BASE64_WIDTH == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text
}
