//! What goes wrong with pods, each as its user is to be told. Nothing twice, nothing left, the log whole.

use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::scene::{PATIENCE, Scene, is_running, task};
use crate::support::cluster::Cluster;
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_others_delete_is_accounted_for() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster, &[]).await;
    let waits = scene.service.submit(task("true", json!({"resources": {"cpu": "1000"}}))).await;
    let runs = scene.service.submit(task("echo it ran; sleep 600", json!({}))).await;
    let again = scene
        .service
        .submit(task("test $SUPERCARGO_ATTEMPT -gt 1 || sleep 600", json!({"platform_retries": 1})))
        .await;
    scene.until_pod(&waits, "there", |_| true).await;
    for id in [&runs, &again] {
        scene.until_pod(id, "running", is_running).await;
    }
    until("its log is there", PATIENCE, async || {
        (scene.service.log(&runs).await == "it ran\n").then_some(())
    })
    .await;
    for id in [&waits, &runs, &again] {
        scene.delete_pod(id).await;
    }
    for id in [&waits, &runs] {
        assert_eq!(scene.reason(id).await, "deleted_externally");
    }
    assert_eq!(scene.service.log(&runs).await, "it ran\n");
    let again = scene.ended(&again).await;
    assert_eq!((&again["state"], &again["attempt"]), (&json!("succeeded"), &json!(2)), "{again:#}");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_takes_its_tasks_along_and_goes() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster, &[]).await;
    let id = scene.service.submit(task("sleep 600", json!({}))).await;
    scene.until_pod(&id, "running", is_running).await;
    scene.delete_namespace().await;
    assert_eq!(scene.reason(&id).await, "deleted_externally");
    let namespaces = Api::<Namespace>::all(scene.cluster.client.clone());
    until("the namespace is gone", PATIENCE, async || {
        namespaces.get_opt(&scene.namespace).await.unwrap().is_none().then_some(())
    })
    .await;
    let late = scene.service.submit(task("true", json!({}))).await;
    assert_eq!(scene.reason(&late).await, "create_config_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_waited_for() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster, &[]).await;
    let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}});
    let quotas = Api::<ResourceQuota>::namespaced(scene.cluster.client.clone(), &scene.namespace);
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    until("the quota counts", PATIENCE, async || {
        quotas.get("one").await.unwrap().status.and_then(|it| it.used).map(drop)
    })
    .await;
    let first = scene.service.submit(task("sleep 5", json!({}))).await;
    scene.until_pod(&first, "there", |_| true).await;
    let second = scene.service.submit(task("echo now", json!({}))).await;
    let hopeless = task("true", json!({"timeouts": {"schedule": "1s", "stop_grace": "1s"}}));
    let hopeless = scene.service.submit(hopeless).await;
    assert_eq!(scene.reason(&hopeless).await, "unschedulable");
    for id in [&first, &second] {
        assert_eq!(scene.ended(id).await["state"], "succeeded");
    }
    let events = scene.service.request("GET", &format!("/tasks/{second}/events"), None).await;
    assert!(events.text().contains("quota_exceeded"), "{}", events.text());
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_start_says_why_at_once() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster, &[]).await;
    let env = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "a"}}}]);
    let template = |it| json!({"kubernetes": {"pod_template": {"spec": it}}});
    let init = json!([{"name": "first", "image": "busybox:latest", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo no; exit 7"]}]);
    for (more, expected) in [
        (json!({"image": "supercargo.invalid/none:1", "pull_policy": "never"}), "image_not_found"),
        (json!({"image": "UPPER CASE".replace(' ', "/")}), "invalid_image"),
        (
            json!({"image": "127.0.0.1:9/none:1",
                "timeouts": {"pull": "15s", "stop_grace": "1s"}}),
            "registry_transient",
        ),
        (template(json!({"containers": [{"name": "main", "env": env}]})), "create_config_error"),
        (template(json!({"initContainers": init})), "init_failed"),
        (json!({"command": ["/no/such"]}), "command_not_found"),
        (json!({"command": ["/etc"]}), "command_not_executable"),
        (
            json!({"resources": {"cpu": "1000"}, "timeouts": {"schedule": "1s", "stop_grace": "1s"}}),
            "unschedulable",
        ),
    ] {
        let id = scene.service.submit(task("true", more.clone())).await;
        assert_eq!(scene.reason(&id).await, expected, "{more}");
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_works_in_every_phase_of_a_pod() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster, &[]).await;
    let unscheduled =
        scene.service.submit(task("true", json!({"resources": {"cpu": "1000"}}))).await;
    let pulling = json!({"image": "127.0.0.1:9/none:1"});
    let pulling = scene.service.submit(task("true", pulling)).await;
    let side = json!([{"name": "side", "image": "busybox:latest", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "while :; do sleep 1; done"]}]);
    let side = json!({"kubernetes": {"pod_template": {"spec": {"containers": side}}}});
    let runs = scene.service.submit(task("echo it ran; sleep 600", side)).await;
    for id in [&unscheduled, &pulling] {
        scene.until_pod(id, "there", |_| true).await;
    }
    until("its log is there", PATIENCE, async || {
        (scene.service.log(&runs).await == "it ran\n").then_some(())
    })
    .await;
    for id in [&unscheduled, &pulling, &runs] {
        scene.service.request("POST", &format!("/tasks/{id}/cancel"), None).await;
    }
    for id in [&unscheduled, &pulling, &runs] {
        let it = scene.ended(id).await;
        assert_eq!(it["state"], "cancelled", "{it:#}");
    }
    assert_eq!(scene.service.log(&runs).await, "it ran\n");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pods_at_once_all_end() {
    let Some(cluster) = Cluster::find_alone().await else { return };
    let scene = Scene::start(cluster, &[("SUPERCARGO__WORKER__CONCURRENCY", "100")]).await;
    let tasks: Vec<_> =
        (0..100).map(|it| task(&format!("echo {it}"), json!({"platform_retries": 3}))).collect();
    let answer =
        scene.service.request("POST", "/tasks/batch", Some(&json!({"tasks": tasks}))).await;
    assert!(answer.status < 300, "{}", answer.text());
    let answer = answer.json();
    let items = answer["items"].as_array().unwrap();
    assert_eq!(items.len(), 100);
    for (index, it) in items.iter().enumerate() {
        let id = it["id"].as_str().unwrap();
        let task = scene.ended(id).await;
        assert_eq!(
            (&task["state"], &task["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{task:#}"
        );
        assert_eq!(scene.service.log(id).await, format!("{index}\n"));
    }
    scene.close().await;
}
