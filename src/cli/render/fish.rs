//! Completion for fish.

use std::fmt::Write as _;

use super::super::flags::{Complete, Takes, all};
use super::first_sentence;

/// A script to be installed as `share/fish/vendor_completions.d/bbot-agent.fish`.
pub(super) fn completion() -> String {
    let mut out = String::from(
        "# fish completion for bbot-agent, made by bbot-agent --print-completion fish\n\n",
    );
    for flag in all() {
        // Writing to a String does not fail.
        let _ = write!(out, "complete -c bbot-agent -l {}", flag.name);
        if let Some(c) = flag.short {
            let _ = write!(out, " -s {c}");
        }
        // Without -r, an option takes a value behind `=` only.
        if matches!(flag.takes, Takes::Value(_)) {
            out.push_str(" -r");
        }
        match flag.complete {
            Complete::Nothing if flag.takes == Takes::Nothing => {}
            Complete::Nothing => out.push_str(" -f"),
            Complete::File => out.push_str(" -F"),
            Complete::Directory => out.push_str(" -f -a '(__fish_complete_directories)'"),
            Complete::Words(words) => {
                let _ = write!(out, " -f -a '{}'", words.join(" "));
            }
        }
        let about = first_sentence(flag).replace('\'', "\\'");
        let _ = writeln!(out, " -d '{about}'");
    }
    out
}
