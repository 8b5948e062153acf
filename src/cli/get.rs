//! `supercargo get`: shows one task.

use std::fmt;

use serde_json::Value;

use super::client::{Client, Task, seconds};
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, printable, time};
use super::out;
use super::wait::WaitArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the task
    id: String,

    #[command(flatten)]
    wait: WaitArgs,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let task = if args.wait.wanted() {
        args.wait.until_terminal(client, &args.id).await?
    } else {
        client.task(&args.id).await?
    };
    match args.format.output {
        Format::Json => format::json(&task.document)?,
        Format::Table => out::data(Details(&task).to_string().as_bytes())?,
    }
    Ok(if args.wait.wanted() { task.exit() } else { Exit::Ok })
}

/// What there is to say about a task, one line for each thing.
struct Details<'a>(&'a Task);

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.0;
        let mut line = |name: &str, value: &str| match value {
            "" => Ok(()),
            value => writeln!(f, "{name:<10} {}", printable(value)),
        };
        line("id", &task.id)?;
        line("name", &task.name)?;
        line("image", &task.image)?;
        line("target", &task.target)?;
        line("state", &task.state.0)?;
        line("exit code", &task.exit_code.map(|it| it.to_string()).unwrap_or_default())?;
        for it in &task.conditions {
            line("condition", &format!("{}: {}", it.kind, it.message))?;
        }
        if let Some(it) = &task.failure {
            line("failure", &format!("{} ({}): {}", it.reason, it.class, it.message))?;
            for text in &it.log_tail {
                line("", &format!("| {text}"))?;
            }
        }
        let timings = &task.timings;
        line("queued", &timings.queued.map(time).unwrap_or_default())?;
        line("started", &timings.started.map(time).unwrap_or_default())?;
        line("finished", &timings.finished.map(time).unwrap_or_default())?;
        line("ran for", &timings.ran_for().map(seconds).unwrap_or_default())?;
        if task.attempts.len() > 1 {
            for it in &task.attempts {
                let failure =
                    it.failure.as_ref().map(|it| format!(": {}", it.message)).unwrap_or_default();
                line("attempt", &format!("{} {}{failure}", it.number, it.state.0))?;
            }
        }
        for (name, value) in &task.outputs {
            line("output", &format!("{name} = {}", output(value)))?;
        }
        for (name, value) in &task.labels {
            line("label", &format!("{name}={}", text(value)))?;
        }
        Ok(())
    }
}

/// A file is shown by what it is, as `supercargo output` fetches it by its name.
fn output(value: &Value) -> String {
    match (&value["href"], value["size"].as_u64(), value["media_type"].as_str()) {
        (Value::String(_), Some(size), Some(media_type)) => format!("{media_type}, {size} bytes"),
        _ => value.to_string(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_task_shows_why() {
        let task = Task::read(json!({
            "id": "0199", "name": "count", "image": "busybox:latest", "state": "failed", "exit_code": 3,
            "target": "local", "attempt": 2,
            "attempts": [
                {"number": 1, "state": "failed", "failure": {"reason": "lost", "message": "the engine was gone"}},
                {"number": 2, "state": "failed", "exit_code": 3, "started_at": "2026-11-21T09:00:01Z"}
            ],
            "failure": {"reason": "exit_nonzero", "class": "user", "message": "exited with code 3",
                        "log_tail": ["no \u{1b}[31msuch file", "bye"]},
            "conditions": [{"type": "target_unreachable", "message": "engine away", "since": "2026-11-21T09:00:00Z"}],
            "outputs": {"report": {"href": "/x", "media_type": "text/csv", "path": "/r", "sha256": "ab", "size": 12},
                        "words": 7},
            "timings": {"queued_at": "2026-11-21T09:00:00.123456Z", "started_at": "2026-11-21T09:00:01Z",
                        "finished_at": "2026-11-21T09:00:01.25Z"},
            "labels": {"team": "a"}
        }))
        .unwrap();
        let shown = "\
id         0199
name       count
image      busybox:latest
target     local
state      failed
exit code  3
condition  target_unreachable: engine away
failure    exit_nonzero (user): exited with code 3
           | no \u{fffd}[31msuch file
           | bye
queued     2026-11-21T09:00:00Z
started    2026-11-21T09:00:01Z
finished   2026-11-21T09:00:01Z
ran for    0.25 s
attempt    1 failed: the engine was gone
attempt    2 failed
output     report = text/csv, 12 bytes
output     words = 7
label      team=a
";
        assert_eq!(Details(&task).to_string(), shown);
    }

    #[test]
    fn what_is_not_there_is_not_shown() {
        let task = Task::read(json!({"id": "0199", "state": "queued"})).unwrap();
        assert_eq!(Details(&task).to_string(), "id         0199\nstate      queued\n");
    }
}
