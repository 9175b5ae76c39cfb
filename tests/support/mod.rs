//! What the tests share.

pub mod http;

/// Says that the running test needs something that is not here. Under `CI=true`
/// that is a failure: there everything is here.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test} would be skipped: {reason}"
    );
    eprintln!("skipped: {test}: {reason}");
}
