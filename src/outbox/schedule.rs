//! When to try again, and with whom not to.

use std::time::Duration;

use crate::controller::failure::FailureClass;

/// How long to try, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long controllers wait for a result.
    pub expiry: Duration,
    /// The pause after the first failure; each further one doubles it.
    pub first_pause: Duration,
    /// The longest pause.
    pub last_pause: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            expiry: Duration::from_secs(3 * 3600),
            first_pause: Duration::from_secs(10),
            last_pause: Duration::from_secs(600),
        }
    }
}

/// Whether others for the same place need not be tried in this turn.
pub(super) fn is_dead(class: FailureClass) -> bool {
    matches!(
        class,
        FailureClass::Name
            | FailureClass::Connect
            | FailureClass::Tls
            | FailureClass::Timeout
            | FailureClass::Setup
    )
}

/// Scheme and authority.
pub(super) fn place(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']);
    url[..end.map_or(url.len(), |at| start + at)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_for_one_server_share_their_fate() {
        assert_eq!(place("https://h:1/a?b"), "https://h:1");
        assert_eq!(place("http://h"), "http://h");
        assert_eq!(place("file:///srv/c/results/a.manifest"), "file://");
    }
}
