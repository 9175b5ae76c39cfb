//! `--status`: the state file of another process, for people or programs.

use std::time::Duration;

use super::{Idle, Moment, human};
use crate::json::Value;
use crate::sys::procfs::start_time;

/// Whether the process that wrote the state is still there: the same id, and
/// started at the same time, since ids come again.
fn is_alive(state: &Value) -> bool {
    let number = |name| state.get(name).and_then(Value::as_u64);
    let (Some(pid), Some(start)) = (number("pid"), number("pid_start")) else {
        return false;
    };
    u32::try_from(pid).is_ok_and(|pid| start_time(pid) == Some(start))
}

fn elapsed(state: &Value, now: Moment) -> Duration {
    let since = state.get("since_monotonic").and_then(Value::as_u64);
    let now = now.monotonic.as_secs();
    Duration::from_secs(now.saturating_sub(since.unwrap_or(now)))
}

/// The state for programs: what the file has, whether the agent is `alive` and
/// how many seconds have `elapsed` in the phase.
pub fn json(state: &Value, now: Moment) -> Value {
    let mut members = match state {
        Value::Object(members) => members.clone(),
        _ => Vec::new(),
    };
    let seconds = elapsed(state, now).as_secs().to_string();
    let alive = is_alive(state);
    // The guest of a killed agent is gone with it.
    members.retain(|(name, _)| alive || name != "login");
    members.push(("alive".to_owned(), Value::Bool(alive)));
    members.push(("elapsed".to_owned(), Value::Number(seconds)));
    Value::Object(members)
}

/// The state of `agent` for people, in lines; and whether it is alive. `claim` is its part
/// of the host.
pub fn text(agent: &str, state: &Value, now: Moment, claim: Option<String>) -> (String, bool) {
    let word = |name| state.get(name).and_then(Value::as_str).unwrap_or("?");
    let number = |name| state.get(name).and_then(Value::as_u64);
    let alive = is_alive(state);
    let pid = number("pid").unwrap_or(0);
    let mut out = format!("{agent}: ");
    if alive {
        out.push_str(word("phase"));
        if word("phase") != word("work") {
            out.push_str(", ");
            out.push_str(word("work"));
        }
        let reason = Idle::ALL
            .iter()
            .find(|reason| reason.keyword() == word("reason"));
        if let Some(reason) = reason {
            out.push_str(": ");
            out.push_str(reason.text());
        }
        if !word("detail").is_empty() {
            out.push_str(": ");
            out.push_str(word("detail"));
        }
        out.push_str(", ");
        out.push_str(&human(elapsed(state, now)));
        if let Some(limit) = number("limit") {
            out.push_str(" of ");
            out.push_str(&human(Duration::from_secs(limit)));
        }
        out.push_str(&format!(" (pid {pid})\n"));
    } else if word("phase") == "stopped" {
        let ago = human(elapsed(state, now));
        out.push_str(&format!("stopped {ago} ago (pid {pid})\n"));
    } else {
        // It was killed: its last phase is still in the file.
        out.push_str(&format!("not running, was {} (pid {pid})\n", word("phase")));
    }
    for name in ["task", "machine", "session", "controller", "login"] {
        let value = state.get(name).and_then(Value::as_str);
        // The guest of a killed agent is gone with it.
        if let Some(value) = value.filter(|_| alive || name != "login") {
            out.push_str(&format!("  {name:<11} {value}\n"));
        }
    }
    let auxiliary = state.get("auxiliary").and_then(Value::as_array);
    for (i, name) in auxiliary.unwrap_or_default().iter().enumerate() {
        let title = if i == 0 { "auxiliary" } else { "" };
        out.push_str(&format!("  {title:<11} {}\n", name.as_str().unwrap_or("?")));
    }
    if let Some(claim) = claim {
        out.push_str(&format!("  {:<11} {claim}\n", "guest"));
    }
    let results = state.get("results").and_then(Value::as_array);
    for (i, result) in results.unwrap_or_default().iter().enumerate() {
        let word = |name| result.get(name).and_then(Value::as_str).unwrap_or("?");
        let number = |name| result.get(name).and_then(Value::as_u64).unwrap_or(0);
        let ago = now.wall.as_secs().saturating_sub(number("at"));
        out.push_str(&format!(
            "  {:<11} {} on {}: {} in {}, {} ago\n",
            if i == 0 { "results" } else { "" },
            word("task"),
            word("machine"),
            word("status"),
            human(Duration::from_secs(number("seconds"))),
            human(Duration::from_secs(ago)),
        ));
    }
    let mut safe = String::new();
    for line in out.lines() {
        // Names of tasks come from controllers, and this goes to a terminal.
        crate::diag::escape(&mut safe, line);
        safe.push('\n');
    }
    (safe, alive)
}
