//! What somebody at a terminal sees.

use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;
use tokio::sync::Notify;

use super::fake::{Answer, Fake};
use super::{command, finish};

/// Runs with a terminal as stderr: what was sent to the terminal.
async fn at_a_terminal(fake: &Fake, args: &[&str], vars: &[(&str, &str)]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut command = command(fake.data_dir(), args);
    command.envs(vars.iter().copied()).env("TERM", "xterm").stderr(Stdio::from(slave));
    let child = command.spawn().unwrap();
    // Else the terminal has a writer for as long as the test.
    drop(command);
    let mut terminal = std::fs::File::from(master);
    let reading = tokio::task::spawn_blocking(move || {
        let mut sent = Vec::new();
        // Ends with an error once the last writer is gone.
        terminal.read_to_end(&mut sent).unwrap_or_default();
        sent
    });
    finish(child).await.exits_with(0);
    String::from_utf8(reading.await.unwrap()).unwrap()
}

async fn service() -> Fake {
    let fake = Fake::start().await;
    let gate = Arc::new(Notify::new());
    let task = |state: &str| json!({"id": "7", "state": state, "attempt": 1});
    fake.on("POST /api/v1/tasks", [Answer::json(201, &task("queued"))]);
    fake.on(
        "GET /api/v1/tasks/7/logs",
        [
            Answer::lines(1, &[]).behind(&gate),
            Answer::lines(1, &[(0, "stderr", "a line")]),
            Answer::lines(1, &[]),
        ],
    );
    fake.on("GET /api/v1/tasks/7/events", [Answer::json(200, &json!({"items": []}))]);
    // The second look is that after the line was drawn.
    let looked = Answer::json(200, &task("running")).doing(move || gate.notify_one());
    fake.on(
        "GET /api/v1/tasks/7",
        [Answer::json(200, &task("starting")), looked, Answer::json(200, &task("succeeded"))],
    );
    fake
}

#[tokio::test]
async fn the_progress_is_one_line_that_is_gone_when_it_is_over() {
    let sent = at_a_terminal(&service().await, &["run", "a"], &[("NO_COLOR", "1")]).await;
    assert!(sent.contains("s  task 7 starting"), "{sent:?}");
    assert_eq!(seen(&sent), "task 7 queued\na line\ntask 7 succeeded\n", "{sent:?}");
    assert!(!sent.contains("\u{1b}[3"), "{sent:?}");

    let sent = at_a_terminal(&service().await, &["run", "a"], &[]).await;
    assert!(sent.contains("task 7 \u{1b}[32msucceeded\u{1b}[0m"), "{sent:?}");
    let args = ["run", "--color", "never", "--quiet", "a"];
    let sent = at_a_terminal(&service().await, &args, &[]).await;
    assert_eq!(sent, "a line\r\n");
}

/// The lines that are left on the terminal.
fn seen(sent: &str) -> String {
    let mut lines = String::new();
    for line in sent.split_inclusive('\n') {
        // What stands before the last erasure is gone.
        let left = line.rsplit("\r\u{1b}[K").next().unwrap_or_default();
        lines.push_str(&left.replace('\r', ""));
    }
    lines
}
