//! What QEMU's monitor could send: read or refused, and what is read reads back.

#![no_main]

use bbot_agent::json::Value;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(value) = Value::parse(text) {
        assert_eq!(Value::parse(&value.to_string()), Ok(value));
    }
});
