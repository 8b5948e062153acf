//! The engine is away: at the start, or while tasks run.

use std::time::Duration;

use serde_json::json;

use crate::support::engine::OwnEngine;
use crate::support::service::{Options, Service};
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_down_at_the_start_is_a_condition_and_no_failure() {
    let Some(mut own) = OwnEngine::start().await else { return };
    own.crash().await;
    let service = Service::start_with(Options {
        docker_host: Some(format!("unix://{}", own.socket().display())),
        ..Options::default()
    })
    .await;
    let ready = service.request("GET", "/readyz", None).await;
    assert_eq!(ready.status, 200, "a sick target must not take the API down");
    let id = service.submit(json!({"image": "busybox:latest", "command": ["echo", "hello"]})).await;
    until("the condition shows", Duration::from_secs(20), async || {
        let task = service.task(&id).await;
        assert_eq!(task["state"], "queued");
        task["conditions"]
            .as_array()?
            .iter()
            .any(|it| it["type"] == "target_unavailable")
            .then_some(())
    })
    .await;
    own.run().await;
    let task = service.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    assert!(task["conditions"].as_array().is_none_or(Vec::is_empty), "{task:#}");
    assert_eq!(service.log(&id).await, "hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_under_a_task_is_a_platform_failure_that_is_tried_again() {
    let Some(mut own) = OwnEngine::start().await else { return };
    let service = Service::start_with(Options {
        docker_host: Some(format!("unix://{}", own.socket().display())),
        ..Options::default()
    })
    .await;
    // Without live-restore the engine takes its containers with it. The second attempt finds the marker.
    let again = json!({"image": "busybox:latest",
        "command": ["sh", "-c", "echo attempt $SUPERCARGO_ATTEMPT; [ $SUPERCARGO_ATTEMPT -gt 1 ] || sleep 600"]});
    let once =
        json!({"image": "busybox:latest", "command": ["sleep", "600"], "at_most_once": true});
    let (again, once) = (service.submit(again).await, service.submit(once).await);
    for id in [&again, &once] {
        service.until_state(id, "running").await;
    }
    own.crash().await;
    until("the condition shows", Duration::from_secs(20), async || {
        let task = service.task(&again).await;
        assert_eq!(task["state"], "running", "{task:#}");
        task["conditions"]
            .as_array()?
            .iter()
            .any(|it| it["type"] == "target_unavailable")
            .then_some(())
    })
    .await;
    own.run().await;
    let task = service.ended(&again).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("succeeded"), &json!(2)), "{task:#}");
    assert_eq!(task["attempts"][0]["failure"]["reason"], "node_lost", "{task:#}");
    assert_eq!(task["attempts"][0]["failure"]["class"], "platform", "{task:#}");
    let task = service.ended(&once).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("failed"), &json!(1)), "{task:#}");
    assert_eq!(task["failure"]["reason"], "node_lost", "{task:#}");
}
