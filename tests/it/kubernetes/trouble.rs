//! What goes wrong with pods, each as its user is to be told. Nothing twice, nothing left, the log whole.

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::scene::{PATIENCE, Scene, task};
use crate::support::cluster::Cluster;
use crate::support::until;

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
            json!({"image": "supercargo.invalid/none:1",
                "timeouts": {"pull": "3s", "stop_grace": "1s"}}),
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
