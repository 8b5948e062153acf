//! A task posted over HTTP becomes a container, and its log, exit code and outputs are kept.

use serde_json::json;

use crate::support::service::Service;
use crate::support::{PATIENCE, containers, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_counts_words_and_hands_back_json_and_a_file() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let id = service
        .submit(json!({
            "name": "count", "image": "busybox:latest",
            "command": ["sh", "-c", "echo counting; wc -w < /in/a.txt > /tmp/n; usleep 100000; echo warn >&2; \
                mkdir -p /out; sort /in/a.txt > /out/sorted.txt; echo \"{\\\"words\\\": $(cat /tmp/n)}\" > $SUPERCARGO_OUTPUT"],
            "files": [{"path": "/in/a.txt", "content": "c\nb\na\n"}],
            "outputs": {"sorted": {"path": "/out/sorted.txt", "required": true}, "words": {"required": true}},
        }))
        .await;
    let task = service.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    assert_eq!(task["exit_code"], 0);
    assert_eq!(task["outputs"]["words"], 3);
    assert_eq!(service.log(&id).await, "counting\nwarn\n");
    let file = service.request("GET", &format!("/tasks/{id}/outputs/sorted"), None).await;
    assert_eq!(file.text(), "a\nb\nc\n");
    let result = service.request("GET", &format!("/tasks/{id}/result"), None).await.json();
    assert_eq!(result["words"], 3);
    assert_eq!(result["sorted"]["size"], 6);
    let events = service.request("GET", &format!("/tasks/{id}/events"), None).await.text();
    assert!(events.contains("started"), "{events}");
    containers::gone(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_is_told_the_trace_of_its_caller() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let command = ["sh", "-c", "echo \"$TRACEPARENT $TRACESTATE\""];
    let task = json!({
        "image": "busybox:latest", "command": command, "traceparent": PARENT, "tracestate": "a=1",
    });
    let id = service.submit(task.clone()).await;
    service.ended(&id).await;
    assert_eq!(service.log(&id).await, format!("{PARENT} a=1\n"));
    let mut own = task;
    own["env"] = json!({"TRACEPARENT": "mine"});
    let id = service.submit(own).await;
    service.ended(&id).await;
    assert_eq!(service.log(&id).await, "mine \n");
    containers::gone(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_has_its_state_and_its_reason() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let sh = |script: &str| json!({"image": "busybox:latest", "command": ["sh", "-c", script]});
    let with = |mut task: serde_json::Value, more: serde_json::Value| {
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    let cases = [
        (sh("echo bad >&2; exit 3"), "failed", "exit_nonzero", Some(3)),
        (with(sh("exit 99"), json!({"skip_on_exit_codes": [99]})), "skipped", "", Some(99)),
        (
            json!({"image": "busybox:latest", "command": ["no-such-command"]}),
            "failed",
            "command_not_found",
            None,
        ),
        (
            json!({"image": "busybox:latest", "command": ["/etc"]}),
            "failed",
            "command_not_executable",
            None,
        ),
        (
            json!({"image": "no-such-image:1", "pull_policy": "never"}),
            "failed",
            "image_not_found",
            None,
        ),
        (
            with(sh("sleep 60"), json!({"timeouts": {"run": "300ms", "stop_grace": "100ms"}})),
            "failed",
            "timeout",
            Some(137),
        ),
        (
            with(sh("true"), json!({"outputs": {"report": {"path": "/none", "required": true}}})),
            "failed",
            "output_invalid",
            Some(0),
        ),
        (sh("echo nonsense > $SUPERCARGO_OUTPUT"), "failed", "output_invalid", Some(0)),
        (sh("sh -c 'kill -9 $$'; exit $?"), "failed", "signal_killed", Some(137)),
        (
            with(sh("tail /dev/zero"), json!({"resources": {"memory": "16Mi"}})),
            "failed",
            "oom_killed",
            Some(137),
        ),
    ];
    let mut ids = Vec::new();
    for (task, ..) in &cases {
        ids.push(service.submit(task.clone()).await);
    }
    for (id, (spec, state, reason, code)) in ids.iter().zip(&cases) {
        let task = service.ended(id).await;
        assert_eq!(task["state"], *state, "{spec}: {task:#}");
        assert_eq!(
            task["failure"]["reason"].as_str().unwrap_or_default(),
            *reason,
            "{spec}: {task:#}"
        );
        if let Some(code) = code {
            assert_eq!(task["exit_code"], *code, "{spec}: {task:#}");
        }
        containers::gone(id).await;
    }
    let failed = service.task(&ids[0]).await;
    assert_eq!(failed["failure"]["log_tail"], json!(["bad"]));
    assert_eq!(failed["failure"]["class"], "user");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_works_in_every_state() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let sleep = json!({"image": "busybox:latest", "command": ["sleep", "600"], "timeouts": {"stop_grace": "200ms"}});
    let running = service.submit(sleep.clone()).await;
    service.until_state(&running, "running").await;
    let cancel = format!("/tasks/{running}/cancel");
    assert_eq!(service.request("POST", &cancel, None).await.status, 202);
    let task = service.ended(&running).await;
    assert_eq!(
        (&task["state"], &task["failure"]["reason"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    containers::gone(&running).await;
    assert_eq!(service.request("POST", &cancel, None).await.status, 202);
    assert_eq!(service.task(&running).await["state"], "cancelled");

    // A request to stop on the heels of the submit: it may be queued, starting or running by then.
    for _ in 0..5 {
        let id = service.submit(sleep.clone()).await;
        assert_eq!(service.request("POST", &format!("/tasks/{id}/cancel"), None).await.status, 202);
        assert_eq!(service.ended(&id).await["state"], "cancelled");
        containers::gone(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_comes_while_the_task_runs_and_ends_with_it() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let id = service
        .submit(json!({"image": "busybox:latest",
            "command": ["sh", "-c", "echo first; while [ ! -e /tmp/go ]; do usleep 20000; done; echo last"],
            "timeouts": {"run": "2m"}}))
        .await;
    let follow = format!("/tasks/{id}/logs?follow=true");
    let followed = service.request("GET", &follow, None);
    let released = async {
        until("the first line is readable", PATIENCE, async || {
            (service.log(&id).await == "first\n").then_some(())
        })
        .await;
        containers::exec(&id, &["touch", "/tmp/go"]).await;
    };
    let (followed, ()) = tokio::join!(followed, released);
    assert_eq!(followed.text(), "first\nlast\n");
    assert_eq!(service.task(&id).await["state"], "succeeded");
}
