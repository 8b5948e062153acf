//! Killed at any moment, it goes on where it was: nothing is lost and nothing runs twice.

use std::fmt::Write as _;

use serde_json::json;

use crate::support::containers;
use crate::support::service::Service;

const LINES: usize = 30;

fn expected() -> String {
    (0..LINES).fold(String::new(), |mut text, n| {
        writeln!(text, "line {n}").unwrap();
        text
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_containers_outlive_a_kill_and_are_accounted_for_once() {
    if !containers::available().await {
        return;
    }
    let starts = containers::Starts::record().await;
    let mut service = Service::start().await;
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); usleep 100000; done; \
        echo '{{\"done\": true}}' > $SUPERCARGO_OUTPUT"
    );
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(
            service
                .submit(json!({"image": "busybox:latest", "command": ["sh", "-c", script]}))
                .await,
        );
    }
    for id in &ids {
        service.until_state(id, "running").await;
    }
    service.kill9();
    service.restart().await;
    for id in &ids {
        let task = service.ended(id).await;
        assert_eq!(task["state"], "succeeded", "{task:#}");
        assert_eq!(task["outputs"]["done"], true, "{task:#}");
        assert_eq!(task["attempt"], 1);
        assert_eq!(service.log(id).await, expected());
        assert_eq!(starts.of(id), 1, "task {id}");
        containers::gone(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_while_it_starts_and_ends_tasks() {
    if !containers::available().await {
        return;
    }
    let starts = containers::Starts::record().await;
    let mut service = Service::start().await;
    let mut ids = Vec::new();
    for round in 0..6 {
        for n in 0..4 {
            let command =
                ["sh", "-c", &format!("echo {round} {n}; usleep {}; echo end", n * 150_000)];
            ids.push((
                service.submit(json!({"image": "busybox:latest", "command": command})).await,
                format!("{round} {n}\nend\n"),
            ));
        }
        // Somewhere between claims, creates, starts, exits and removals: as soon as one of them has moved on.
        let last = &ids[ids.len() - 1 - round % 4].0;
        crate::support::until(
            "a task has left the queue",
            std::time::Duration::from_secs(30),
            async || (service.task(last).await["state"] != "queued").then_some(()),
        )
        .await;
        service.kill9();
        service.restart().await;
    }
    for (id, log) in &ids {
        let task = service.ended(id).await;
        assert_eq!(task["state"], "succeeded", "{task:#}");
        assert_eq!(service.log(id).await, *log, "task {id}");
        assert_eq!(starts.of(id), 1, "task {id}");
    }
    for (id, _) in &ids {
        containers::gone(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_containers_running_and_the_next_start_takes_them_back() {
    if !containers::available().await {
        return;
    }
    let starts = containers::Starts::record().await;
    let mut service = Service::start().await;
    let script =
        format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); usleep 100000; done");
    let id =
        service.submit(json!({"image": "busybox:latest", "command": ["sh", "-c", script]})).await;
    service.until_state(&id, "running").await;
    assert!(service.stop().success());
    assert!(containers::is_running(&id).await, "a stop of the service stopped a container");
    service.restart().await;
    assert_eq!(service.ended(&id).await["state"], "succeeded");
    assert_eq!(service.log(&id).await, expected());
    assert_eq!(starts.of(&id), 1);
}
