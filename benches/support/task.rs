//! Tasks, as callers of the service have them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::http::Http;
use super::service::Service;
use super::{engine, stats};

/// How a task went, as its caller saw it, and as the service tells it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) id: String,
    /// From the first byte of the submit to the last byte of the answer that says how it ended.
    pub(crate) total: Duration,
    /// Queued to claimed, to started, to ended, in milliseconds.
    pub(crate) queued: f64,
    pub(crate) launched: f64,
    pub(crate) ran: f64,
}

impl Seen {
    /// From the end of the container to the caller's knowledge of it, but for the way of the submit.
    pub(crate) fn told(&self) -> f64 {
        stats::ms(self.total) - self.queued - self.launched - self.ran
    }
}

/// The document of a task in a container of the local engine.
pub(crate) fn local(command: &[&str]) -> String {
    json!({"name": "bench", "image": engine::IMAGE, "command": command}).to_string()
}

/// Without a container: it has ended when it is launched.
pub(crate) fn simulated() -> Value {
    json!({
        "name": "bench", "image": engine::IMAGE, "target": "simulated",
        "command": ["sh", "-c", "wc -w < /in/a.txt"], "env": {"LANG": "C", "STAGE": "count"},
    })
}

/// Without a container, for a while.
pub(crate) fn simulated_for(duration: &str) -> Value {
    let mut task = simulated();
    task["env"]["FAKE_RUN_FOR"] = duration.into();
    task
}

/// The document of a batch of the same task.
pub(crate) fn batch(task: &Value, count: usize) -> String {
    json!({"tasks": vec![task; count]}).to_string()
}

pub(crate) async fn submit(
    service: &Service,
    http: &mut Http<TcpStream>,
    task: &str,
) -> anyhow::Result<String> {
    let answer = http.create(&service.request("POST", "/tasks", Some(task))).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    Ok(answer["id"].as_str().context("a task has no id")?.to_owned())
}

/// Waits for the end, as clients do: follows the service from wait to wait.
pub(crate) async fn end(
    service: &Service,
    http: &mut Http<TcpStream>,
    id: &str,
) -> anyhow::Result<Value> {
    let mut request = service.request("GET", &format!("/tasks/{id}?wait=50s"), None);
    loop {
        let (head, answer) = http.call(&request).await?;
        match (head.status, head.location) {
            (200, _) => return Ok(serde_json::from_slice(&answer)?),
            (303, Some(location)) => request = service.follow(&location),
            (status, _) => bail!("{status}: {}", String::from_utf8_lossy(&answer)),
        }
    }
}

/// Submits a task and waits for its end.
pub(crate) async fn run(
    service: &Service,
    http: &mut Http<TcpStream>,
    task: &str,
) -> anyhow::Result<Seen> {
    let begun = Instant::now();
    let id = submit(service, http, task).await?;
    let ended = end(service, http, &id).await?;
    let total = begun.elapsed();
    ensure!(ended["state"] == "succeeded", "a task ended as {ended}");
    let attempt = &ended["attempts"][0];
    let queued_at = time(&ended["timings"]["queued_at"])?;
    let claimed_at = time(&attempt["claimed_at"])?;
    let started_at = time(&attempt["started_at"])?;
    let finished_at = time(&attempt["finished_at"])?;
    let between = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64() * 1e3;
    Ok(Seen {
        id,
        total,
        queued: between(queued_at, claimed_at),
        launched: between(claimed_at, started_at),
        ran: between(started_at, finished_at),
    })
}

fn time(it: &Value) -> anyhow::Result<Timestamp> {
    it.as_str().and_then(|it| it.parse().ok()).with_context(|| format!("{it} is no time"))
}
