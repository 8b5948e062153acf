//! The rows of the model in the form that Postgres gives its own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Tables;

fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

fn opt(at: Option<Timestamp>) -> Option<i64> {
    at.map(micros)
}

impl Tables {
    /// Each table with its rows in the order of their keys. Times are in microseconds since the epoch.
    pub(crate) fn rows(&self) -> Value {
        json!({
            "live_tasks": self.live_rows(),
            "attempts": self.attempt_rows(),
            "ended_tasks": self.ended_rows(),
            "superseded_specs": self.superseded.iter().map(|((task, no), (_, hash))| json!({
                "task_id": task, "attempt_no": no, "spec_hash": hash,
            })).collect::<Vec<_>>(),
            "idempotency_keys": self.keys.iter().map(|((project, key), (task, _))| json!({
                "project": project, "key": key, "task_id": task,
            })).collect::<Vec<_>>(),
            "run_keys": self.run_keys.iter().map(|((project, key), task)| json!({
                "project": project, "key": key, "task_id": task,
            })).collect::<Vec<_>>(),
        })
    }

    fn live_rows(&self) -> Vec<Value> {
        self.live
            .iter()
            .map(|(task, it)| {
                json!({
                    "task_id": task,
                    "state": it.state.as_str(),
                    "priority": it.priority,
                    "target": it.target,
                    "queued_at": micros(it.queued_at),
                    "not_before": opt(it.not_before),
                    "queue_deadline": opt(it.queue_deadline),
                    "attempt_id": it.attempt,
                    "attempt_no": it.attempt_no,
                    "platform_failures": it.platform_failures,
                    "user_failures": it.user_failures,
                    "fence": it.fence,
                    "worker_id": it.worker,
                    "engine_id": it.engine,
                    "claimed_at": opt(it.claimed_at),
                    "started_at": opt(it.started_at),
                    "handle": it.handle,
                    "image_digest": it.image_digest,
                    "stop_reason": it.stop.map(|it| it.0.as_str()),
                    "stop_requested_at": opt(it.stop.map(|it| it.1)),
                    "attempt_queued_at": opt(it.attempt_queued_at),
                    "after_task_id": it.after,
                    "unconfirmed": it.unconfirmed,
                    // No runs of workflows.
                    "run_id": null,
                    "node": null,
                    "item": null,
                })
            })
            .collect()
    }

    fn attempt_rows(&self) -> Vec<Value> {
        self.attempts
            .iter()
            .map(|((task, no), it)| {
                json!({
                    "task_id": task,
                    "attempt_no": no,
                    "attempt_id": it.attempt,
                    "state": it.state.as_str(),
                    "exit_code": it.exit_code,
                    "failure": it.failure,
                    "target": it.target,
                    "engine_id": it.engine,
                    "worker_id": it.worker,
                    "handle": it.handle,
                    "image_digest": it.image_digest,
                    "keep_sandbox": it.keep_sandbox,
                    "log": it.log,
                    "queued_at": micros(it.queued_at),
                    "claimed_at": opt(it.claimed_at),
                    "started_at": opt(it.started_at),
                    "finished_at": micros(it.finished_at),
                    "node": it.node,
                    "sandbox": it.sandbox,
                    "unconfirmed": it.unconfirmed,
                })
            })
            .collect()
    }

    fn ended_rows(&self) -> Vec<Value> {
        self.ended
            .iter()
            .map(|(task, it)| {
                json!({
                    "task_id": task,
                    "state": it.state.as_str(),
                    "attempt_no": it.attempt_no,
                    "exit_code": it.exit_code,
                    "failure": it.failure,
                    "queued_at": micros(it.queued_at),
                    "started_at": opt(it.started_at),
                    "finished_at": micros(it.finished_at),
                })
            })
            .collect()
    }
}
