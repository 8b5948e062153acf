//! Tells how a task gets on while its log says nothing.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::cli::client::{Client, Error, Task};
use crate::cli::format::printable;
use crate::cli::out;

/// The first look, and between looks while nothing changes at most.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(3);
/// Between two drawings of the line.
const TICK: Duration = Duration::from_millis(500);

/// What a task is at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Phase {
    attempt: i64,
    /// What it does: its state, or something more exact.
    word: String,
    /// What holds it up.
    why: String,
}

impl Phase {
    fn of(task: &Task, events: &Value) -> Self {
        let attempt = task.latest_attempt();
        let mut phase = Self { attempt, word: task.state.0.clone(), why: String::new() };
        if task.state.0 == "starting"
            && let Some(message) = pulling(events, attempt)
        {
            "pulling".clone_into(&mut phase.word);
            phase.why = message;
        }
        if let Some(condition) = task.conditions.first() {
            let word = condition.kind.replace('_', " ");
            phase = Self { attempt, word, why: condition.message.clone() };
        }
        phase
    }

    fn tell(&self, id: &str) -> String {
        let attempt = match self.attempt {
            ..=1 => String::new(),
            attempt => format!(" (attempt {attempt})"),
        };
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        printable(&format!("task {id} {}{attempt}{why}", self.word))
    }
}

/// The message of the latest event of an attempt, if that is a pull which is not over.
fn pulling(events: &Value, attempt: i64) -> Option<String> {
    let of_attempt = |it: &&Value| it["attempt"].as_i64().is_none_or(|it| it == attempt);
    let last = events["items"].as_array()?.iter().rev().find(of_attempt)?;
    (last["reason"] == "pulling").then(|| last["message"].as_str().unwrap_or_default().to_owned())
}

/// The progress of one task, on a terminal as a line that changes, elsewhere a line for each change.
#[derive(Debug)]
pub(super) struct Progress {
    id: String,
    phase: Phase,
    since: Instant,
}

impl Progress {
    /// The state that it has here was told already, and what holds it up was not.
    pub(super) fn new(task: &Task) -> Self {
        let (attempt, word) = (task.latest_attempt(), task.state.0.clone());
        let phase = Phase { attempt, word, why: String::new() };
        Self { id: task.id.clone(), phase, since: Instant::now() }
    }

    /// Tells until it is dropped. What goes wrong is for somebody else to say.
    pub(super) async fn tell(&mut self, mut client: Client) -> Infallible {
        let mut pause = FIRST;
        loop {
            self.rest(pause).await;
            match look(&client, &self.id).await {
                Ok(phase) if phase == self.phase => pause = (pause * 2).min(LONGEST),
                Ok(phase) => {
                    pause = FIRST;
                    self.phase = phase;
                    self.since = Instant::now();
                    if !out::has_progress() {
                        out::note(self.phase.tell(&self.id));
                    }
                }
                Err(_) => {
                    pause = LONGEST;
                    client.find_again();
                }
            }
        }
    }

    async fn rest(&self, pause: Duration) {
        let over = Instant::now() + pause;
        while let Some(left) =
            over.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())
        {
            if out::has_progress() {
                let seconds = self.since.elapsed().as_secs();
                out::status(Some(&format!("{seconds:>4} s  {}", self.phase.tell(&self.id))));
            }
            tokio::time::sleep(left.min(TICK)).await;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        out::status(None);
    }
}

async fn look(client: &Client, id: &str) -> Result<Phase, Error> {
    let events = client.json(client.request(Method::GET, &["tasks", id, "events"], &[])).await?;
    // The later of the two answers is the one with the state.
    Ok(Phase::of(&client.task(id).await?, &events))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(document: Value, events: Value) -> String {
        Phase::of(&Task::read(document).unwrap(), &events).tell("7")
    }

    #[test]
    fn what_a_task_is_at_is_told_as_exactly_as_it_is_known() {
        let starting = json!({"id": "7", "state": "starting", "attempt": 1});
        let pulling = json!({"items": [
            {"reason": "claimed", "attempt": 1, "message": "a worker took the task"},
            {"reason": "pulling", "attempt": 1, "message": "pulls \"a\u{7}\""}]});
        assert_eq!(told(starting.clone(), json!({"items": []})), "task 7 starting");
        assert_eq!(told(starting, pulling.clone()), "task 7 pulling: pulls \"a\u{fffd}\"");
        let second = json!({"id": "7", "state": "queued", "attempt": 2,
            "conditions": [{"type": "retrying", "message": "attempt 2 waits"}]});
        assert_eq!(told(second, pulling.clone()), "task 7 retrying (attempt 2): attempt 2 waits");
        let second = json!({"id": "7", "state": "starting", "attempt": 2});
        assert_eq!(told(second, pulling), "task 7 starting (attempt 2)");
    }
}
