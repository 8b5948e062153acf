//! The task document, as far as the command line looks into it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::cli::exit::Exit;
use crate::cli::format::printable;
use crate::domain::target::Placement;

/// A state is only ever compared: one that a newer service brings does not stop an older client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct State(pub(crate) String);

impl State {
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.0.as_str(), "succeeded" | "failed" | "skipped" | "cancelled")
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) image: String,
    #[serde(default)]
    pub(crate) exit_code: Option<i64>,
    /// Or the labels that it asked for, while it waits.
    #[serde(default, deserialize_with = "placement")]
    pub(crate) target: String,
    #[serde(default)]
    attempt: Option<i64>,
    #[serde(default)]
    pub(crate) attempts: Vec<Attempt>,
    #[serde(default)]
    pub(crate) outputs: Map<String, Value>,
    #[serde(default)]
    pub(crate) failure: Option<Failure>,
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
    #[serde(default)]
    pub(crate) timings: Timings,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, Value>,
    /// As the service sent it.
    #[serde(skip)]
    pub(crate) document: Value,
}

fn placement<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Placement::deserialize(deserializer).map(|it| it.to_string())
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Attempt {
    #[serde(default)]
    pub(crate) number: i64,
    #[serde(default)]
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) failure: Option<Failure>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Failure {
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) class: String,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) log_tail: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Condition {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Timings {
    #[serde(default, rename = "queued_at")]
    pub(crate) queued: Option<jiff::Timestamp>,
    #[serde(default, rename = "started_at")]
    pub(crate) started: Option<jiff::Timestamp>,
    #[serde(default, rename = "finished_at")]
    pub(crate) finished: Option<jiff::Timestamp>,
}

impl Timings {
    pub(crate) fn ran_for(&self) -> Option<jiff::SignedDuration> {
        Some(self.finished?.duration_since(self.started?))
    }
}

impl Task {
    pub(crate) fn read(document: Value) -> Result<Self, serde_json::Error> {
        Ok(Self { document: document.clone(), ..serde_json::from_value(document)? })
    }

    /// From 1, also before it has begun.
    pub(crate) fn latest_attempt(&self) -> i64 {
        self.attempt.unwrap_or(1)
    }

    /// What a command exits with that followed the task to its end.
    pub(crate) fn exit(&self) -> Exit {
        match self.state.0.as_str() {
            "succeeded" | "skipped" => Exit::Ok,
            "cancelled" => Exit::Cancelled,
            "failed" => match self.exit_code.map(u8::try_from) {
                Some(Ok(code @ 1..)) => Exit::Task(code),
                // Ended with 0 and still failed, by a missing output say; or never ran.
                Some(Ok(0) | Err(_)) | None => Exit::Failed,
            },
            _ => Exit::TimedOut,
        }
    }

    /// How it ended, in one line.
    pub(crate) fn summary(&self) -> String {
        let took =
            self.timings.ran_for().map(|it| format!(" after {}", seconds(it))).unwrap_or_default();
        let mut line = format!("task {} {}{took}", self.id, self.state.painted());
        if let Some(failure) = &self.failure {
            line = format!("{line}: {} ({})", printable(&failure.message), failure.reason);
        }
        line
    }
}

/// `0.31 s`, `12.4 s`, `3m20s`: as exact as somebody reads it.
pub(crate) fn seconds(duration: jiff::SignedDuration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        crate::domain::quantity::format_duration(jiff::SignedDuration::from_secs(
            duration.as_secs(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(document: Value) -> Task {
        Task::read(document).unwrap()
    }

    #[test]
    fn the_exit_code_of_a_task_is_that_of_the_command() {
        for (state, exit_code, code) in [
            ("succeeded", json!(0), 0),
            ("skipped", json!(99), 0),
            ("failed", json!(3), 3),
            ("failed", json!(255), 255),
            ("failed", json!(0), 1),
            ("failed", json!(256), 1),
            ("failed", json!(-1), 1),
            ("failed", Value::Null, 1),
            ("cancelled", json!(137), 3),
            ("cancelled", Value::Null, 3),
            ("running", Value::Null, 4),
        ] {
            let task = task(json!({"id": "1", "state": state, "exit_code": exit_code}));
            assert_eq!(task.exit().code(), code, "{state} {exit_code}");
        }
    }

    #[test]
    fn a_task_of_a_newer_service_is_read_too() {
        let task = task(json!({"id": "1", "state": "hibernating", "novelty": {"a": [1]}}));
        assert!(!task.state.is_terminal());
        assert_eq!(task.summary(), "task 1 hibernating");
    }

    #[test]
    fn the_summary_tells_the_failure_and_the_time() {
        let task = task(json!({"id": "1", "state": "failed", "exit_code": 3,
            "failure": {"reason": "exit_nonzero", "class": "user", "message": "exited with code 3", "log_tail": ["x"]},
            "timings": {"queued_at": "2026-11-21T09:00:00Z", "started_at": "2026-11-21T09:00:01Z",
                        "finished_at": "2026-11-21T09:00:02.5Z"}}));
        assert_eq!(task.summary(), "task 1 failed after 1.50 s: exited with code 3 (exit_nonzero)");
        assert_eq!(seconds(jiff::SignedDuration::from_millis(200_900)), "3m20s");
        assert_eq!(seconds(jiff::SignedDuration::from_millis(12_340)), "12.3 s");
    }
}
