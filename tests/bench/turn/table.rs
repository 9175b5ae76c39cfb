//! One table of everything that was measured.

use std::collections::BTreeMap;
use std::fs;

use bbot_agent::json::Value;

use super::rows::{Row, file, number};

pub fn print() {
    let text = fs::read_to_string(file("bench.jsonl")).unwrap_or_default();
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines() {
        let Ok(value) = Value::parse(line) else {
            continue;
        };
        let row = match value.get("bench").and_then(Value::as_str) {
            Some("host") => host(&value),
            Some("manifest") => manifest(&value),
            Some("turn" | "tftp") => Row::from_json(&value).into_iter().collect(),
            _ => Vec::new(),
        };
        for row in row {
            // The latest of each counts.
            rows.retain(|old| old.what != row.what);
            rows.push(row);
        }
    }
    println!("| cost | ours | beside | ratio | to reach |");
    println!("|---|---|---|---|---|");
    for row in &rows {
        let ratio = row.ratio().map_or_else(String::new, short);
        let theirs = row.theirs.map_or_else(
            || "-".to_owned(),
            |theirs| format!("{}: {}", row.with, measure(theirs, &row.unit)),
        );
        let met = match row.met {
            None => "",
            Some(true) => ": met",
            Some(false) => ": NOT MET",
        };
        println!(
            "| {} | {} | {theirs} | {ratio} | {}{met} |",
            row.what,
            measure(row.ours, &row.unit),
            row.goal
        );
    }
    let all = Value::Array(rows.iter().map(Row::json).collect());
    let path = file("bench.json");
    fs::write(&path, format!("{all}\n")).unwrap();
    println!("\nalso in {}", path.display());
}

fn measure(n: f64, unit: &str) -> String {
    format!("{} {unit}", short(n)).trim_end().to_owned()
}

/// Three digits that say something.
fn short(n: f64) -> String {
    match n.abs() {
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n if n >= 1.0 || n == 0.0 => format!("{n:.2}"),
        _ => format!("{n:.3}"),
    }
}

/// A row of the bench `host`: beside the program, and beside bare C.
fn host(value: &Value) -> Vec<Row> {
    let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let ms = |name| number(value, name).map(|ns| ns / 1e6);
    let Some(ours) = ms("ours_ns") else {
        return Vec::new();
    };
    let goals = BTreeMap::from([
        ("snapshot", 3.0),
        ("delete", 20.0),
        ("tap created, attached, isolated, up", 20.0),
    ]);
    let operation = text("operation");
    let mut row = Row::new(operation, "ms", ours);
    if let Some(theirs) = ms("tool_ns") {
        row = row.beside(text("tool"), theirs);
    }
    if let Some(least) = goals.get(operation) {
        let met = row.ratio().is_some_and(|ratio| ratio >= *least);
        row = row.goal(&format!("{least} times faster"), met);
    }
    let mut rows = vec![row];
    if let Some(c) = ms("c_ns") {
        let bare = Row::new(&format!("{operation}, beside bare C"), "ms", ours).beside("C", c);
        // The goal is for the same calls, and of a tap ours are some more.
        let same = !operation.starts_with("tap");
        rows.push(match same {
            true => bare.goal("within 1.2", ours <= c * 1.2),
            false => bare,
        });
    }
    rows
}

fn manifest(value: &Value) -> Vec<Row> {
    let case = value
        .get("case")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(speed) = number(value, "megabytes_per_second") else {
        return Vec::new();
    };
    let copies = number(value, "times_copy").unwrap_or_default();
    let row = Row::new(&format!("manifest: {case}"), "MB/s", speed)
        .beside("copying the same in memory", speed * copies);
    if case.starts_with("parse, 15 MB") {
        return vec![row.goal("> 500 MB/s", speed > 500.0)];
    }
    vec![row]
}
