//! Postgres goes away while tasks run, and comes back.

use std::time::Duration;

use serde_json::json;

use crate::support::service::Service;
use crate::support::{containers, postmaster, until};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_killed_during_a_run_and_nothing_is_lost() {
    if !containers::available().await {
        return;
    }
    let starts = containers::Starts::record().await;
    let service = Service::start().await;
    let script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); usleep 100000; done";
    let id =
        service.submit(json!({"image": "busybox:latest", "command": ["sh", "-c", script]})).await;
    service.until_state(&id, "running").await;
    let before = postmaster(&service.data_dir().join("data")).expect("its postgres runs");
    rustix::process::kill_process(before, rustix::process::Signal::KILL).unwrap();
    // While it is away a submit is refused in so many words, or succeeds for good; never half.
    let mut accepted = Vec::new();
    until("submits are taken again", Duration::from_mins(1), async || {
        let task = json!({"image": "busybox:latest", "command": ["true"]});
        let answer = service.request("POST", "/tasks", Some(&task)).await;
        match answer.status {
            201 => {
                accepted.push(answer.json()["id"].as_str().unwrap().to_owned());
                (accepted.len() >= 3
                    && postmaster(&service.data_dir().join("data")) != Some(before))
                .then_some(())
            }
            503 => {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
                assert_eq!(answer.headers["content-type"], "application/problem+json");
                None
            }
            other => panic!("{other}: {}", answer.text()),
        }
    })
    .await;
    let task = service.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    let log = service.log(&id).await;
    assert_eq!(log.lines().count(), 40, "{log}");
    assert_eq!(starts.of(&id), 1);
    for id in &accepted {
        assert_eq!(service.ended(id).await["state"], "succeeded");
        assert_eq!(starts.of(id), 1);
    }
}
