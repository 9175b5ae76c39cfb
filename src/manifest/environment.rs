//! The environment of auxiliary machines: variables that they tell the worker.

use super::auxiliary::{is_variable_name, variable_part};
use super::syntax::class;

/// The maximum size of the environment of a machine, in bytes.
pub const MAX_ENVIRONMENT_BYTES: usize = 64 << 10;

/// The maximum size of a line of it, in bytes.
const MAX_LINE_BYTES: usize = 8 << 10;

/// The maximum number of variables of a machine.
const MAX_VARIABLES: usize = 256;

/// The variables of all auxiliary machines of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuxiliaryEnvironment(Vec<(String, String)>);

impl AuxiliaryEnvironment {
    /// Adds the variables of the text that the machine of `environment` has uploaded.
    /// Their names get `<environment>_` in front, in upper case before a name without
    /// lower-case letters. The error is a clause.
    pub fn add(&mut self, environment: &str, text: &[u8]) -> Result<(), String> {
        if text.len() > MAX_ENVIRONMENT_BYTES {
            return Err(format!(
                "its environment is larger than {MAX_ENVIRONMENT_BYTES} bytes"
            ));
        }
        let text = std::str::from_utf8(text).map_err(|_| "its environment is not UTF-8")?;
        let mut count = 0;
        for (index, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let variable = variable(line);
            let (name, value) =
                variable.map_err(|why| format!("line {} of its environment {why}", index + 1))?;
            count += 1;
            if count > MAX_VARIABLES {
                return Err(format!(
                    "its environment has more than {MAX_VARIABLES} variables"
                ));
            }
            let name = prefixed(environment, name);
            if self.0.iter().any(|(known, _)| *known == name) {
                return Err(format!("its environment sets {name}, which is set already"));
            }
            self.0.push((name, value.to_owned()));
        }
        Ok(())
    }

    /// The text for the worker: a line for each variable.
    pub fn to_text(&self) -> String {
        let lines: Vec<_> = self.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
        lines.join("\n")
    }
}

/// The name and value of a line; an error says what the line has.
fn variable(line: &str) -> Result<(&str, &str), String> {
    if line.len() > MAX_LINE_BYTES {
        return Err(format!("is longer than {MAX_LINE_BYTES} bytes"));
    }
    if let Some(c) = line.chars().find(|c| class(*c).is_some()) {
        return Err(format!("has the character U+{:04X}", u32::from(c)));
    }
    match line.split_once('=') {
        Some((name, value)) if is_variable_name(name) => Ok((name, value)),
        _ => Err("is not <name>=<value>".to_owned()),
    }
}

fn prefixed(environment: &str, name: &str) -> String {
    let front = variable_part(environment);
    match front.is_empty() {
        true => name.to_owned(),
        false if name.contains(|c: char| c.is_ascii_lowercase()) => format!("{front}_{name}"),
        false => format!("{}_{name}", front.to_ascii_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &str, text: &str) -> Result<String, String> {
        let mut all = AuxiliaryEnvironment::default();
        all.add(environment, text.as_bytes())?;
        Ok(all.to_text())
    }

    #[test]
    fn names_of_variables_begin_with_that_of_the_environment() {
        let text = "HOST=10.0.0.2\r\n\n# comment\nport=5432\nURL=a=b # c\n_=\n";
        for (environment, expected) in [
            ("", "HOST=10.0.0.2\nport=5432\nURL=a=b # c\n_="),
            (
                "pg-sql",
                "PG_SQL_HOST=10.0.0.2\npg_sql_port=5432\nPG_SQL_URL=a=b # c\nPG_SQL__=",
            ),
        ] {
            assert_eq!(read(environment, text).unwrap(), expected);
        }
        assert_eq!(read("x", "").unwrap(), "");
    }

    #[test]
    fn hostile_environments_are_refused_with_the_line() {
        let long = format!("A={}", "x".repeat(MAX_LINE_BYTES));
        let many: String = (0..=MAX_VARIABLES).map(|n| format!("V{n}=\n")).collect();
        for (text, why) in [
            (
                "A=b\nnonsense\n",
                "line 2 of its environment is not <name>=<value>",
            ),
            ("=b", "line 1 of its environment is not <name>=<value>"),
            ("1A=b", "line 1 of its environment is not <name>=<value>"),
            ("A B=c", "line 1 of its environment is not <name>=<value>"),
            (" A=b", "line 1 of its environment is not <name>=<value>"),
            (
                "\u{c4}=b",
                "line 1 of its environment is not <name>=<value>",
            ),
            (
                "A=\u{1b}[2J",
                "line 1 of its environment has the character U+001B",
            ),
            (
                "A=b\rB=c",
                "line 1 of its environment has the character U+000D",
            ),
            (
                "A=\tb",
                "line 1 of its environment has the character U+0009",
            ),
            ("A=\0", "line 1 of its environment has the character U+0000"),
            (
                "A=\u{202e}",
                "line 1 of its environment has the character U+202E",
            ),
            ("A=1\nA=2", "its environment sets X_A, which is set already"),
            (&long, "line 1 of its environment is longer than 8192 bytes"),
            (&many, "its environment has more than 256 variables"),
            (
                &" ".repeat(MAX_ENVIRONMENT_BYTES + 1),
                "its environment is larger than 65536 bytes",
            ),
        ] {
            assert_eq!(read("x", text).unwrap_err(), why);
        }
        let mut all = AuxiliaryEnvironment::default();
        assert_eq!(
            all.add("", b"A=\xff").unwrap_err(),
            "its environment is not UTF-8"
        );
        // Two machines can make one name.
        all.add("a", b"B_C=1").unwrap();
        assert!(all.add("a_b", b"C=2").unwrap_err().contains("A_B_C"));
    }
}
