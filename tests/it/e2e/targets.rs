//! Targets that come, change and go while the service runs.

use serde_json::{Value, json};

use crate::support::engine::OwnEngine;
use crate::support::proxy::Proxy;
use crate::support::service::{Options, Service};
use crate::support::{PATIENCE, until};

async fn put(service: &Service, name: &str, document: Value) -> Value {
    let answer = service.request("PUT", &format!("/targets/{name}"), Some(&document)).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
    answer.json()
}

async fn state(service: &Service, name: &str) -> Value {
    service.request("GET", &format!("/targets/{name}"), None).await.json()["state"].clone()
}

fn simulated(target: &Value, run_for: &str) -> Value {
    json!({"image": "none", "target": target, "env": {"FAKE_RUN_FOR": run_for}})
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_used_drained_and_deleted_while_the_service_runs() {
    let service = Service::start().await;
    for (name, zone) in [("one", "a"), ("two", "b")] {
        put(
            &service,
            name,
            json!({"kind": "simulated", "labels": {"zone": zone}, "concurrency": 1}),
        )
        .await;
    }
    let named = service.submit(simulated(&json!("one"), "0s")).await;
    assert_eq!(service.ended(&named).await["target"], "one");
    let by_label = service.submit(simulated(&json!({"labels": {"zone": "b"}}), "0s")).await;
    assert_eq!(service.ended(&by_label).await["target"], "two");

    // One at a time, as the target says; and disabled it finishes what it has, and no more.
    let runs = service.submit(simulated(&json!("one"), "4s")).await;
    service.until_state(&runs, "running").await;
    let waits = service.submit(simulated(&json!("one"), "0s")).await;
    put(&service, "one", json!({"kind": "simulated", "labels": {"zone": "a"}, "enabled": false}))
        .await;
    assert_eq!(service.ended(&runs).await["state"], "succeeded");
    let condition = until("the task says why it waits", PATIENCE, async || {
        service.task(&waits).await["conditions"][0]["type"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(condition, "target_disabled");
    let refused = service.request("DELETE", "/targets/one", None).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("target_in_use")));
    put(&service, "one", json!({"kind": "simulated", "labels": {"zone": "a"}})).await;
    assert_eq!(service.ended(&waits).await["state"], "succeeded");

    assert_eq!(service.request("DELETE", "/targets/one", None).await.status, 204);
    let refused = service.request("POST", "/tasks", Some(&simulated(&json!("one"), "0s"))).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    until("no worker has it any more", PATIENCE, async || {
        let ready = service.request("GET", "/readyz", None).await.json();
        ready["targets"].get("one").is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_targets_of_one_engine_leave_each_other_alone() {
    let service = Service::start().await;
    let host = std::env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_owned());
    put(&service, "second", json!({"kind": "docker", "host": host})).await;
    until("the worker reaches it", PATIENCE, async || {
        (state(&service, "second").await["reachable"] == true).then_some(())
    })
    .await;
    let checked = service.request("POST", "/targets/second/check", None).await;
    assert_eq!(checked.status, 200, "{}", checked.text());
    let (checked, local) = (checked.json(), state(&service, "local").await);
    assert_eq!((&checked["reachable"], &checked["engine"]), (&json!(true), &local["engine"]));
    let task = |target: &str| {
        json!({"image": "busybox:latest", "target": target,
            "command": ["sh", "-c", "echo begun; until test -e /tmp/go; do sleep 0.1; done; echo ended"],
            "timeouts": {"run": "20s", "stop_grace": "0s"}})
    };
    let (first, second) =
        (service.submit(task("local")).await, service.submit(task("second")).await);
    for id in [&first, &second] {
        service.until_state(id, "running").await;
    }
    // Another document: what runs there is followed to its end, what is new goes the new way.
    let moved = put(&service, "second", json!({"kind": "docker", "host": "unix:///nowhere.sock"}));
    moved.await;
    until("it is away", PATIENCE, async || {
        let state = state(&service, "second").await;
        (state["reachable"] == false && state["why"] != "connecting").then_some(())
    })
    .await;
    put(&service, "second", json!({"kind": "docker", "host": host})).await;
    let third =
        service.submit(json!({"image": "busybox:latest", "target": "second", "command": "true"}));
    let third = third.await;
    assert_eq!(service.ended(&third).await["state"], "succeeded");
    for id in [&first, &second] {
        assert_eq!(service.task(id).await["state"], "running");
        assert_eq!(service.request("POST", &format!("/tasks/{id}/cancel"), None).await.status, 202);
        let task = service.ended(id).await;
        assert_eq!(
            (&task["state"], &task["attempt"]),
            (&json!("cancelled"), &json!(1)),
            "{task:#}"
        );
        assert_eq!(service.log(id).await, "begun\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_followed_over_another_way_to_its_engine() {
    let Some(engine) = OwnEngine::start().await else { return };
    let proxy = Proxy::start(engine.socket());
    let service = Service::start().await;
    put(&service, "far", json!({"kind": "docker", "host": proxy.host()})).await;
    let task = json!({"image": "busybox:latest", "target": "far",
        "command": ["sh", "-c", "echo begun; sleep 600"], "timeouts": {"stop_grace": "0s"}});
    let id = service.submit(task).await;
    service.until_state(&id, "running").await;
    proxy.close();
    until("the engine is away", PATIENCE, async || {
        (state(&service, "far").await["reachable"] == false).then_some(())
    })
    .await;
    let host = format!("unix://{}", engine.socket().display());
    put(&service, "far", json!({"kind": "docker", "host": host})).await;
    assert_eq!(service.request("POST", &format!("/tasks/{id}/cancel"), None).await.status, 202);
    let task = service.ended(&id).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("cancelled"), &json!(1)), "{task:#}");
    assert_eq!(service.log(&id).await, "begun\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_of_the_configuration_come_and_go_with_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "default_target = \"first\"\n[docker]\nenabled = false\n[targets.first]\nkind = \"simulated\"\n";
    std::fs::write(file.path(), text).unwrap();
    let config = vec!["--config".to_owned(), file.path().to_str().unwrap().to_owned()];
    let env = vec![("SUPERCARGO__TARGETS__OTHER_ONE__KIND".to_owned(), "simulated".to_owned())];
    let mut service =
        Service::start_with(Options { args: config, env, ..Options::default() }).await;
    let names = async |service: &Service| {
        let targets = service.request("GET", "/targets", None).await.json();
        let items = targets["items"].as_array().unwrap().clone();
        items.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&service).await, ["first", "other-one", "simulated"]);
    let id = service.submit(json!({"image": "none"})).await;
    assert_eq!(service.ended(&id).await["target"], "first");
    let refused = service
        .request("PUT", "/targets/first", Some(&json!({"kind": "simulated", "enabled": false})))
        .await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains(":4)"), "{}", refused.text());
    put(&service, "stored", json!({"kind": "simulated"})).await;

    service.kill9();
    std::fs::write(file.path(), "default_target = \"stored\"\n[docker]\nenabled = false\n")
        .unwrap();
    service.restart().await;
    assert_eq!(names(&service).await, ["other-one", "simulated", "stored"]);
    let id = service.submit(json!({"image": "none"})).await;
    assert_eq!(service.ended(&id).await["target"], "stored");
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn every_process_hears_of_a_target_within_a_moment() {
    let first = Service::start().await;
    let url = first.database_url();
    let objects = first.data_dir().join("data/objects").to_str().unwrap().to_owned();
    let env =
        [("SUPERCARGO__OBJECT_STORE__FOLDER", objects.as_str()), ("SUPERCARGO__ROLES", "api")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let api =
        Service::start_with(Options { database_url: Some(url), env, ..Options::default() }).await;
    put(&first, "new", json!({"kind": "simulated"})).await;
    let task = simulated(&json!("new"), "0s");
    let id = until("the other process takes a task for it", PATIENCE, async || {
        let answer = api.request("POST", "/tasks", Some(&task)).await;
        (answer.status == 201).then(|| answer.json()["id"].as_str().unwrap().to_owned())
    })
    .await;
    assert_eq!(api.ended(&id).await["target"], "new");
    let checked = api.request("POST", "/targets/new/check", None).await;
    assert_eq!((checked.status, &checked.json()["reachable"]), (200, &json!(true)));
    drop(api);
}
