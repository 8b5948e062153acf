//! `supercargo doctor` where tasks are pods.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use supercargo::runner::naming;

use super::scene::{Scene, is_running, task};
use crate::support::cluster::{Cluster, other_ca};

struct Report(Vec<Value>);

impl Report {
    fn of(scene: &Scene) -> Self {
        let output = scene.cli(&["doctor", "--json"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let document: Value =
            serde_json::from_str(&text).unwrap_or_else(|it| panic!("{it}: {text}"));
        Self(document["checks"].as_array().unwrap().clone())
    }

    #[track_caller]
    fn says(&self, name: &str, status: &str, found: &str) -> &Self {
        let check = self.0.iter().find(|it| it["check"] == name);
        let check = check.unwrap_or_else(|| panic!("no {name}: {:#?}", self.0));
        assert_eq!(check["status"], status, "{check:#}");
        assert!(check["found"].as_str().unwrap().contains(found), "{found:?}: {check:#}");
        assert_eq!(check.get("fix").is_some(), status != "ok", "{check:#}");
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_looked_at_with_what_it_has_of_the_installation() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster.clone(), &[]).await;
    let id = scene.service.submit(task("sleep 600", json!({}))).await;
    let pod = scene.until_pod(&id, "running", is_running).await;
    scene.service.until_state(&id, "running").await;
    let report = Report::of(&scene);
    report
        .says("cluster cluster", "ok", &format!("{} answers: version v1.", cluster.server()))
        .says("cluster cluster identity", "ok", "1 live attempt here")
        .says("cluster cluster permissions", "ok", "may do there what tasks need")
        .says("pods cluster", "ok", "1 of a live attempt");
    // How much room the machine has is not for this test to say.
    let of_clusters = |it: &&Value| it["check"].as_str().unwrap().contains("cluster");
    let mut of_clusters = report.0.iter().filter(of_clusters);
    assert!(of_clusters.all(|it| it["status"] == "ok"), "{:#?}", report.0);

    // A pod of ours that nobody knows of; one that a node would never get.
    let mut labels = pod.metadata.labels.unwrap();
    labels.retain(|name, _| name.starts_with("supercargo.dev/"));
    for name in [naming::LABEL_TASK, naming::LABEL_ATTEMPT] {
        labels.insert(name.to_owned(), uuid::Uuid::now_v7().to_string());
    }
    let orphan: Pod = serde_json::from_value(json!({
        "metadata": {"name": "orphan", "labels": labels},
        "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "main", "image": "busybox:latest"}]},
    }))
    .unwrap();
    scene.pods().create(&PostParams::default(), &orphan).await.unwrap();
    let few = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    let account = cluster.account(&scene.namespace, "few", few).await;
    let (server, token) = (cluster.server(), account.token("first").await);
    let put = async |name: &str, more: Value| {
        let mut it = json!({"kind": "kubernetes", "namespace": scene.namespace, "server": server, "token": token});
        it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = scene.service.request("PUT", &format!("/targets/{name}"), Some(&it)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    put("few", json!({"ca": cluster.ca(), "tls_skip_verify": true})).await;
    put("wrong", json!({"ca": other_ca()})).await;
    Report::of(&scene)
        .says("pods cluster unknown", "warn", &format!("{}/orphan", scene.namespace))
        .says("cluster few", "ok", "answers")
        .says("cluster few permissions", "fail", "create pods in")
        .says("cluster few notes", "warn", "tls_skip_verify")
        .says("cluster wrong", "fail", "is not by the authority in \"ca\"")
        .says("pods wrong", "warn", "not checked");
    scene.pods().delete("orphan", &DeleteParams::default()).await.unwrap();
    scene.service.request("POST", &format!("/tasks/{id}/cancel"), None).await;
    scene.ended(&id).await;
    scene.close().await;
}
