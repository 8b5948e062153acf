//! Parts of the cluster go away and come back. These tests have the cluster for themselves.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::time::Instant;

use super::scene::{PATIENCE, Scene, is_running, task};
use crate::support::cluster::{Cluster, Control};
use crate::support::until;

/// Says a line each 100 ms, `seconds` long.
fn ticking(seconds: u32) -> String {
    format!("i=1; while [ $i -le {} ]; do echo line $i; i=$((i+1)); sleep 0.1; done", seconds * 10)
}

fn lines(seconds: u32) -> String {
    (1..=seconds * 10).map(|it| format!("line {it}\n")).collect()
}

/// Lets the time pass that something is to be away.
async fn away_for(time: Duration) {
    let until_then = Instant::now() + time;
    until("it was away long enough", time * 2, async || {
        (Instant::now() >= until_then).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_away_for_a_while_costs_nothing() {
    let Some(control) = Control::find() else { return };
    let Some(cluster) = Cluster::find_alone().await else { return };
    let scene = Scene::start(cluster, &[]).await;
    for (component, time) in [("kubelet", 15), ("apiserver", 30), ("containerd", 5)] {
        let id = scene.service.submit(task(&ticking(time + 5), json!({}))).await;
        scene.until_pod(&id, "running", is_running).await;
        control.run(&["stop", component]);
        away_for(Duration::from_secs(time.into())).await;
        if component == "apiserver" {
            let ready = scene.service.request("GET", "/readyz", None).await;
            assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")));
        }
        control.run(&["start", component]);
        let ended = scene.ended(&id).await;
        assert_eq!(
            (&ended["state"], &ended["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{component}: {ended:#}"
        );
        assert!(scene.service.log(&id).await == lines(time + 5), "{component}: its log");
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_node_is_gone_is_lost_and_runs_again() {
    let Some(control) = Control::find() else { return };
    let Some(cluster) = Cluster::find_alone().await else { return };
    let scene = Scene::start(cluster, &[]).await;
    let script = "echo it ran; test $SUPERCARGO_ATTEMPT -gt 1 || sleep 600";
    let id = scene.service.submit(task(script, json!({"platform_retries": 1}))).await;
    let pod = scene.until_pod(&id, "running", is_running).await;
    let node = pod.spec.unwrap().node_name.unwrap();
    control.run(&["stop", "kubelet"]);
    let nodes = Api::<Node>::all(scene.cluster.client.clone());
    nodes.delete(&node, &DeleteParams::default()).await.unwrap();
    let lost = until("the attempt is lost", PATIENCE, async || {
        let task = scene.service.task(&id).await;
        (task["attempt"] == 2).then_some(task)
    })
    .await;
    // It makes its node anew.
    control.run(&["start", "kubelet"]);
    assert_eq!(lost["attempts"][0]["failure"]["reason"], "node_lost", "{lost:#}");
    let ended = scene.ended(&id).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("succeeded"), &json!(2)), "{ended:#}");
    scene.close().await;
}
