//! The Prometheus text file (text exposition format 0.0.4), for the textfile
//! collector of the node exporter.

use std::fmt::Write as _;

use super::state::State;
use super::{Idle, Phase};

/// The whole file. `labels` are those of the agent, ready for the braces.
pub(super) fn text(state: &State, labels: &str, started: u64, now: u64) -> String {
    let mut out = String::new();
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        // Writing to a String does not fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    };

    let name = "bbot_agent_phase";
    head(&mut out, name, "gauge", "1 for the phase the agent is in.");
    for word in Phase::KEYWORDS {
        let is = u8::from(word == state.keyword());
        let _ = writeln!(out, "{name}{{{labels},phase=\"{word}\"}} {is}");
    }

    let name = "bbot_agent_idle";
    head(
        &mut out,
        name,
        "gauge",
        "1 for the reason the agent is idle.",
    );
    for reason in Idle::ALL {
        let is = u8::from(state.phase.reason() == Some(reason));
        let word = reason.keyword();
        let _ = writeln!(out, "{name}{{{labels},reason=\"{word}\"}} {is}");
    }

    let mut gauge = |name: &str, help: &str, value: u64| {
        head(&mut out, name, "gauge", help);
        let _ = writeln!(out, "{name}{{{labels}}} {value}");
    };
    let (phase, limit) = (state.since.wall, state.limit.unwrap_or_default());
    gauge(
        "bbot_agent_start_time_seconds",
        "When the agent started.",
        started,
    );
    gauge(
        "bbot_agent_phase_start_time_seconds",
        "When the phase began.",
        phase.as_secs(),
    );
    gauge(
        "bbot_agent_phase_limit_seconds",
        "Limit of the phase, 0 without one.",
        limit.as_secs(),
    );
    gauge(
        "bbot_agent_update_time_seconds",
        "When this file was written.",
        now,
    );
    if let Some(last) = state.outcomes.front() {
        gauge(
            "bbot_agent_last_task_time_seconds",
            "When the last task ended.",
            last.at.as_secs(),
        );
        gauge(
            "bbot_agent_last_task_duration_seconds",
            "How long it took.",
            last.took.as_secs(),
        );
        if let Some(peak) = last.memory_peak {
            gauge(
                "bbot_agent_last_task_memory_peak_bytes",
                "The most memory that its guest had.",
                peak,
            );
        }
    }

    let name = "bbot_agent_tasks_total";
    head(&mut out, name, "counter", "Tasks that ended, by status.");
    for (status, count) in &state.counts {
        let _ = writeln!(
            out,
            "{name}{{{labels},status=\"{}\"}} {count}",
            label(status)
        );
    }
    out
}

/// The value of a label: backslash, quote and newline escaped.
pub(super) fn label(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}
