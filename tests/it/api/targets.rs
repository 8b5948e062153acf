use axum::http::StatusCode;
use serde_json::{Value, json};
use supercargo::domain::target::TargetCheck;

use crate::support::api::TestApp;
use crate::support::worker::{TestWorker, succeeded};
use crate::support::{PATIENCE, until};
use crate::test_app;

const PATH: &str = "/api/v1/targets";

fn path(name: &str) -> String {
    format!("{PATH}/{name}")
}

#[tokio::test]
async fn a_target_is_put_shown_changed_and_deleted() {
    let app = test_app!();
    let names = async || {
        let items = app.get(PATH).await.items();
        items.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["local", "simulated"]);
    let document = json!({"kind": "docker", "host": "/run/d.sock", "labels": {"zone": "a"}});
    let made = app.put(&path("second"), &document).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(names().await, ["local", "second", "simulated"]);
    let shown = app.get(&path("second")).await.json();
    assert_eq!(
        shown["document"],
        json!({"kind": "docker", "host": "unix:///run/d.sock", "enabled": true, "labels": {"zone": "a"}})
    );
    assert_eq!(shown["origin"], "api");
    assert_eq!(
        shown["state"],
        json!({"reachable": false, "why": "no worker that runs now has it", "workers": 0, "running": 0, "queued": 0})
    );
    let mut drained = shown["document"].clone();
    drained["enabled"] = json!(false);
    let put = app.put(&path("second"), &drained).await;
    assert_eq!(put.status, StatusCode::OK, "{put:?}");
    assert_eq!(put.json()["document"], drained);

    assert_eq!(app.delete(&path("second")).await.status, StatusCode::NO_CONTENT);
    let gone = app.get(&path("second")).await.problem();
    assert!(gone.starts_with("404 target_not_found"), "{gone}");
    assert!(app.delete(&path("second")).await.problem().starts_with("404 target_not_found"));
    assert!(app.get(&path("locl")).await.problem().contains("did you mean \"local\""));
}

#[tokio::test]
async fn secrets_are_written_and_never_shown() {
    let app = test_app!();
    let document = json!({
        "kind": "kubernetes", "server": "https://10.0.0.1:6443", "token": "s3cret", "tls_skip_verify": true,
        "proxy": "http://u:s3cret@p:1"});
    let made = app.put(&path("prod"), &document).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let shown = app.get(&path("prod")).await;
    for text in [made.text(), shown.text(), app.get(PATH).await.text()] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    let mut document = shown.json()["document"].clone();
    assert_eq!(document["token"], "***");
    document["namespace"] = json!("etl");
    let put = app.put(&path("prod"), &document).await;
    assert_eq!(put.status, StatusCode::OK, "{put:?}");
    let stored = app.store.list_targets().await.unwrap();
    let stored = stored.into_iter().find(|it| it.name == "prod").unwrap();
    let stored = serde_json::to_string(&stored.target.unwrap()).unwrap();
    assert_eq!(stored.matches("s3cret").count(), 2, "{stored}");
    assert!(stored.contains("etl"), "{stored}");
    document["server"] = json!("https://evil");
    let refused = app.put(&path("prod"), &document).await.problem();
    assert!(refused.starts_with("422 document_invalid: \"***\" stands for"), "{refused}");
}

#[tokio::test]
async fn what_is_no_target_is_refused_with_every_fault() {
    let app = test_app!();
    let refused = app.put(&path("a"), &json!({"kind": "docker", "hots": "x", "enabled": 1})).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
    assert_eq!(refused.json()["errors"].as_array().unwrap().len(), 2);
    for name in ["A", "a_b", "-a"] {
        let refused = app.put(&path(name), &json!({"kind": "simulated"})).await.problem();
        assert!(refused.starts_with("400 invalid_parameter"), "{refused}");
    }
}

#[tokio::test]
async fn what_is_built_in_or_configured_is_not_changed_here() {
    let app = test_app!();
    for (name, why) in [("simulated", "built in"), ("local", "[docker] of the default")] {
        let put = app.put(&path(name), &json!({"kind": "simulated"})).await.problem();
        let deleted = app.delete(&path(name)).await.problem();
        for refused in [put, deleted] {
            assert!(refused.starts_with("409 target_fixed"), "{refused}");
            assert!(refused.contains(why), "{refused}");
        }
    }
}

#[tokio::test]
async fn a_task_can_name_a_target_at_once_and_keeps_it_from_going() {
    let app = test_app!();
    let task = json!({"image": "x", "target": "second"});
    let refused = app.post("/api/v1/tasks", &task).await.problem();
    assert!(refused.starts_with("422 spec_invalid: no target \"second\""), "{refused}");
    app.put(&path("second"), &json!({"kind": "simulated"})).await;
    let id = app.submit(&task).await;
    let refused = app.delete(&path("second")).await.problem();
    assert!(refused.starts_with("409 target_in_use: 1 tasks wait"), "{refused}");
    let shown = app.get(&path("second")).await.json();
    assert_eq!((&shown["state"]["queued"], &shown["state"]["running"]), (&json!(1), &json!(0)));

    // Nothing new is started on one that is disabled, and the task says so.
    app.put(&path("second"), &json!({"kind": "simulated", "enabled": false})).await;
    let waits = app.get(&format!("/api/v1/tasks/{id}")).await.json();
    assert_eq!(waits["conditions"][0]["type"], "target_disabled", "{waits:#}");
    app.store.cancel(id, "tester", jiff::Timestamp::now()).await.unwrap();
    assert_eq!(app.delete(&path("second")).await.status, StatusCode::NO_CONTENT);
}

async fn labelled(app: &TestApp, labels: Value) -> Value {
    let task = json!({"image": "x", "target": {"labels": labels}});
    app.post("/api/v1/tasks", &task).await.json()
}

#[tokio::test]
async fn a_task_asks_for_labels_and_shows_who_took_it() {
    let app = test_app!();
    let none = labelled(&app, json!({"gpu": "yes"})).await;
    assert!(none["detail"].as_str().unwrap().ends_with("no target has labels"), "{none}");
    app.put(&path("gpu-1"), &json!({"kind": "simulated", "labels": {"gpu": "yes", "zone": "a"}}))
        .await;
    for (labels, why) in [
        (json!({"gpu": "no"}), "no target has the labels gpu=no: there is gpu=yes, zone=a"),
        (json!({}), "say which labels"),
        (json!({"a b": "x"}), "letters, digits"),
    ] {
        let refused = labelled(&app, labels).await;
        assert_eq!(refused["code"], "spec_invalid", "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains(why), "{refused}");
    }
    let task = labelled(&app, json!({"zone": "a", "gpu": "yes"})).await;
    assert_eq!(task["target"], json!({"labels": {"gpu": "yes", "zone": "a"}}), "{task}");
    let task_path = format!("/api/v1/tasks/{}", task["id"].as_str().unwrap());
    let waits = app.get(&task_path).await.json();
    assert_eq!(waits["conditions"][0]["type"], "no_worker", "{waits:#}");
    let spec = app.get(&format!("{task_path}/spec")).await.json();
    assert_eq!(spec["target"], json!({"labels": {"gpu": "yes", "zone": "a"}}), "{spec}");

    let worker = TestWorker::start(&app.store).await;
    worker.report("gpu-1", false, Some("refused")).await;
    let shown = app.get(&path("gpu-1")).await.json();
    until("its state is shown", PATIENCE, async || {
        let waits = app.get(&task_path).await.json();
        (waits["conditions"][0]["type"] == "target_unavailable").then_some(())
    })
    .await;
    assert_eq!(shown["state"]["reachable"], false);
    let claimed = worker.claim_for("gpu-1", &["gpu=yes,zone=a"]).await.remove(0);
    assert_eq!(app.get(&task_path).await.json()["target"], "gpu-1");
    worker.finish(&claimed, succeeded(), Vec::new()).await;
    let ended = app.get("/api/v1/tasks?target=gpu-1").await.items();
    assert_eq!((ended.len(), &ended[0]["target"]), (1, &json!("gpu-1")), "{ended:?}");
}

#[tokio::test]
async fn a_rendering_is_that_of_the_target_with_the_labels() {
    let app = test_app!();
    app.put(&path("sim"), &json!({"kind": "simulated", "labels": {"a": "1"}})).await;
    let task = json!({"image": "x", "target": {"labels": {"a": "1"}}});
    let rendered = app.post("/api/v1/render", &task).await.json();
    assert_eq!((&rendered["target"], &rendered["kind"]), (&json!("sim"), &json!("simulated")));
}

#[tokio::test]
async fn a_check_is_answered_by_a_worker() {
    let app = test_app!();
    let check = format!("{}/check", path("simulated"));
    let nobody = app.post(&check, &json!({})).await.problem();
    assert!(nobody.starts_with("503 no_worker: no worker runs now"), "{nobody}");
    assert!(
        app.post(&format!("{}/check", path("x")), &json!({})).await.problem().starts_with("404")
    );
    let _worker = TestWorker::start(&app.store).await;
    let store = app.store.clone();
    let worker = async move {
        let taken = until("the question is there", PATIENCE, async || {
            store.take_checks("w1", &[("simulated".to_owned(), None)]).await.unwrap().pop()
        })
        .await;
        let check = TargetCheck::unreachable("refused");
        store.answer_check(taken.id, &check).await.unwrap();
    };
    let empty = json!({});
    let (answer, ()) = tokio::join!(app.post(&check, &empty), worker);
    let body = answer.json();
    assert_eq!(answer.status, StatusCode::OK, "{body}");
    assert_eq!(
        (&body["reachable"], &body["why"], &body["checked_by"], &body["permissions"]),
        (&json!(false), &json!("refused"), &json!("w1"), &json!({"missing": []}))
    );
}

#[tokio::test]
async fn what_a_target_can_not_honour_is_refused_with_field_and_target() {
    let app = test_app!();
    app.put(
        &path("pods"),
        &json!({"kind": "kubernetes", "in_cluster": true, "labels": {"k": "s"}}),
    )
    .await;
    for target in [json!("pods"), json!({"labels": {"k": "s"}})] {
        let task = json!({"image": "x", "target": target, "resources": {"pids": 10}});
        let refused = app.post("/api/v1/tasks", &task).await.json();
        assert_eq!(refused["errors"][0]["pointer"], "/resources/pids", "{refused:#}");
        assert!(refused["detail"].as_str().unwrap().contains("\"pods\""), "{refused:#}");
    }
    let strict = json!({"image": "x", "target": "simulated", "kubernetes": {"strict": true}});
    let refused = app.post("/api/v1/tasks", &strict).await.problem();
    assert!(refused.starts_with("422 spec_invalid"), "{refused}");
}

#[tokio::test]
async fn a_pod_template_that_is_none_is_refused_with_field_and_fix() {
    let app = test_app!();
    app.put(&path("pods"), &json!({"kind": "kubernetes", "in_cluster": true})).await;
    let misspelt = json!({"spec": {"containers": [{"name": "main"}, {"name": "side", "imagee": "x"}],
        "nodeSelektor": {}}});
    let wrong = json!({"spec": {"hostNetwork": "yes"}});
    let of = |task: serde_json::Value| {
        let faults = task["errors"].as_array().unwrap_or_else(|| panic!("{task:#}")).clone();
        faults
            .into_iter()
            .map(|it| {
                [&it["pointer"], &it["code"], &it["detail"]]
                    .map(|it| it.as_str().unwrap().to_owned())
            })
            .collect::<Vec<_>>()
    };
    // Whatever target it goes to: nobody could take it.
    for target in ["pods", "simulated"] {
        let task = |template: &serde_json::Value| json!({"image": "x", "target": target, "kubernetes": {"pod_template": template}});
        for operation in ["/api/v1/tasks", "/api/v1/render"] {
            let answer = app.post(operation, &task(&misspelt)).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
            let faults = of(answer.json());
            let [(first, second)] = [(&faults[0], &faults[1])];
            assert_eq!(
                first[..2],
                ["/kubernetes/pod_template/spec/containers/1/imagee", "unknown_field"]
            );
            assert!(first[2].contains("kubectl explain pod.spec.containers"), "{first:?}");
            assert_eq!(
                second[..2],
                ["/kubernetes/pod_template/spec/nodeSelektor", "unknown_field"]
            );
            let faults = of(app.post(operation, &task(&wrong)).await.json());
            assert_eq!(faults[0][..2], ["/kubernetes/pod_template/spec/hostNetwork", "wrong_type"]);
            assert!(faults[0][2].contains("expected a boolean"), "{faults:?}");
        }
        let batch = json!({"tasks": [{"image": "x"}, task(&wrong)]});
        let faults = of(app.post("/api/v1/tasks/batch", &batch).await.json());
        assert_eq!(faults[0][0], "/tasks/1/kubernetes/pod_template/spec/hostNetwork");
    }
    assert_eq!(app.count().await, 0, "nothing is stored");
    let target = json!({"kind": "kubernetes", "in_cluster": true, "pod_template": wrong});
    let answer = app.put(&path("pods"), &target).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    assert_eq!(of(answer.json())[0][0], "/pod_template/spec/hostNetwork");
}
