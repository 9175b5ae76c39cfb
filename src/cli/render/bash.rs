//! Completion for GNU Bash.

use std::fmt::Write as _;

use super::super::flags::{Complete, Takes, all};

/// A script for `bash-completion`, to be installed as
/// `share/bash-completion/completions/bbot-agent`.
pub(super) fn completion() -> String {
    let mut files = Vec::new();
    let mut directories = Vec::new();
    let mut words = String::new();
    let mut plain = Vec::new();
    let mut names = Vec::new();
    for flag in all() {
        let option = format!("--{}", flag.name);
        names.extend(flag.short.map(|c| format!("-{c}")));
        names.push(match flag.takes {
            Takes::Maybe(_) => format!("{option} {option}="),
            _ => option.clone(),
        });
        if flag.takes == Takes::Nothing {
            continue;
        }
        // The optional value of an option can only follow a `=`.
        let spellings: &[&str] = match flag.takes {
            Takes::Maybe(_) => &["="],
            _ => &["", "="],
        };
        let mut patterns: Vec<String> = std::iter::once(flag.name)
            .chain(flag.aliases.iter().copied())
            .flat_map(|name| spellings.iter().map(move |end| format!("--{name}{end}")))
            .collect();
        match flag.complete {
            Complete::File => files.append(&mut patterns),
            Complete::Directory => directories.append(&mut patterns),
            Complete::Words(list) => {
                let _ = writeln!(
                    words,
                    "    {})\n      COMPREPLY=($(compgen -W '{}' -- \"$cur\"))\n      return ;;",
                    patterns.join("|"),
                    list.join(" ")
                );
            }
            Complete::Nothing => plain.append(&mut patterns),
        }
    }
    format!(
        "\
# bash completion for bbot-agent, made by bbot-agent --print-completion bash

_bbot_agent()
{{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}

  # Bash breaks words at the equals sign.
  if [[ $cur == = ]]; then
    cur= prev+==
  elif [[ $prev == = ]]; then
    prev=${{COMP_WORDS[COMP_CWORD-2]}}=
  fi

  case $prev in
    {files})
      COMPREPLY=($(compgen -f -- \"$cur\"))
      compopt -o filenames
      return ;;
    {directories})
      COMPREPLY=($(compgen -d -- \"$cur\"))
      compopt -o filenames
      return ;;
{words}    {plain})
      return ;;
  esac

  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W '{names}' -- \"$cur\"))
    [[ ${{COMPREPLY[0]-}} == *= ]] && compopt -o nospace
  else
    COMPREPLY=($(compgen -f -- \"$cur\"))
    compopt -o filenames
  fi
  return 0
}}

complete -F _bbot_agent bbot-agent
",
        files = files.join("|"),
        directories = directories.join("|"),
        plain = plain.join("|"),
        names = names.join("\n    "),
    )
}
