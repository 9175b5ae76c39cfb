//! See the checks.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../checks/tftp.rs"]
mod checks;

fuzz_target!(|octets: &[u8]| checks::packet(octets));
