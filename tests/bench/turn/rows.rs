//! Rows of the table: appended to `target/bench.jsonl` as they are measured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bbot_agent::json::Value;

/// One cost, what it is compared with, and what is to be reached.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub what: String,
    pub unit: String,
    pub ours: f64,
    pub theirs: Option<f64>,
    /// What `theirs` is of.
    pub with: String,
    /// In words; empty if there is none.
    pub goal: String,
    pub met: Option<bool>,
}

impl Row {
    pub fn new(what: &str, unit: &str, ours: f64) -> Row {
        Row {
            what: what.to_owned(),
            unit: unit.to_owned(),
            ours,
            ..Row::default()
        }
    }

    pub fn ms(what: &str, ours: Duration) -> Row {
        Row::new(what, "ms", ours.as_secs_f64() * 1e3)
    }

    #[must_use]
    pub fn beside(mut self, with: &str, theirs: f64) -> Row {
        self.theirs = Some(theirs);
        with.clone_into(&mut self.with);
        self
    }

    #[must_use]
    pub fn beside_ms(self, with: &str, theirs: Duration) -> Row {
        self.beside(with, theirs.as_secs_f64() * 1e3)
    }

    #[must_use]
    pub fn goal(mut self, goal: &str, met: bool) -> Row {
        goal.clone_into(&mut self.goal);
        self.met = Some(met);
        self
    }

    /// At most so much.
    #[must_use]
    pub fn under(self, most: f64) -> Row {
        let (goal, met) = (format!("< {most} {}", self.unit), self.ours < most);
        self.goal(goal.trim_end(), met)
    }

    /// How many times better than what it is compared with.
    pub fn ratio(&self) -> Option<f64> {
        let more = self.unit.ends_with("/s");
        let ratio = self.theirs.map(|theirs| {
            if more {
                self.ours / theirs
            } else {
                theirs / self.ours
            }
        });
        // What takes no time at all is no number of times faster.
        ratio.filter(|ratio| ratio.is_finite())
    }

    /// Prints it and adds it to the file.
    pub fn done(self) {
        let ratio = self.ratio().map_or_else(String::new, |ratio| {
            format!(
                ", {} {:.3}, x {ratio:.1}",
                self.with,
                self.theirs.unwrap_or_default()
            )
        });
        println!("{}: {:.3} {}{ratio}", self.what, self.ours, self.unit);
        crate::record::append(&format!("{}\n", self.json()));
    }

    pub fn json(&self) -> Value {
        let number = |n: f64| Value::Number(format!("{n:.6}"));
        let maybe = |n: Option<f64>| n.map_or(Value::Null, number);
        Value::object([
            ("bench", Value::from("turn")),
            ("what", Value::from(self.what.as_str())),
            ("unit", Value::from(self.unit.as_str())),
            ("ours", number(self.ours)),
            ("theirs", maybe(self.theirs)),
            ("with", Value::from(self.with.as_str())),
            ("ratio", maybe(self.ratio())),
            ("goal", Value::from(self.goal.as_str())),
            ("met", self.met.map_or(Value::Null, Value::Bool)),
        ])
    }

    pub fn from_json(value: &Value) -> Option<Row> {
        let text = |name| Some(value.get(name)?.as_str()?.to_owned());
        Some(Row {
            what: text("what")?,
            unit: text("unit")?,
            ours: number(value, "ours")?,
            theirs: number(value, "theirs"),
            with: text("with")?,
            goal: text("goal")?,
            met: value.get("met").and_then(Value::as_bool),
        })
    }
}

/// A member that is a number with a fraction.
pub fn number(value: &Value, name: &str) -> Option<f64> {
    match value.get(name)? {
        Value::Number(text) => text.parse().ok(),
        _ => None,
    }
}

/// A file in `target/`.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name)
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

pub fn least(times: &[Duration]) -> Duration {
    times.iter().min().copied().unwrap_or_default()
}
