//! Completion for the Z shell.

use std::fmt::Write as _;

use super::super::flags::{Complete, Takes, all};
use super::first_sentence;

/// A function for `compsys`, to be installed as `share/zsh/site-functions/_bbot-agent`.
pub(super) fn completion() -> String {
    let mut out = String::from(
        "#compdef bbot-agent\n\
         # zsh completion for bbot-agent, made by bbot-agent --print-completion zsh\n\n\
         _arguments -s",
    );
    for flag in all() {
        let about = first_sentence(flag).replace(['[', ']', ':'], "");
        let action = match flag.complete {
            Complete::Nothing => " ".to_owned(),
            Complete::File => "_files".to_owned(),
            Complete::Directory => "_files -/".to_owned(),
            Complete::Words(words) => format!("({})", words.join(" ")),
        };
        let (end, value) = match flag.takes {
            Takes::Nothing => ("", String::new()),
            Takes::Value(name) => ("=", format!(":{name}:{action}")),
            Takes::Maybe(name) => ("=-", format!("::{name}:{action}")),
        };
        let star = if flag.repeats { "*" } else { "" };
        let names = std::iter::once(format!("--{}{end}", flag.name))
            .chain(flag.short.map(|c| format!("-{c}")));
        for name in names {
            let item = format!("{star}{name}[{about}]{value}").replace('\'', "'\\''");
            // Writing to a String does not fail.
            let _ = write!(out, " \\\n  '{item}'");
        }
    }
    out.push_str(" \\\n  '*:controller:_files -/'\n");
    out
}
