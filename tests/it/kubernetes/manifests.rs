//! What the conversion makes is what an API server takes: every snapshot of it is posted without being stored.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::support::cluster::Cluster;

const NAMESPACE: &str = "default";

/// The documents of every snapshot, by the name of its file.
fn documents() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runner/kubernetes/snapshots");
    let files = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let files = files.filter(|it: &PathBuf| it.to_str().unwrap().contains("__manifests__"));
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // Behind what insta says about the test.
        let json = text.splitn(3, "---\n").nth(2).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let list: Vec<Value> = serde_json::from_str(json).unwrap();
        all.extend(list.into_iter().map(|it| (name.clone(), it)));
    }
    assert!(all.len() > 10, "{all:?}");
    all
}

/// None where the server would store it.
async fn refusal<T>(client: &Client, mut document: Value) -> Option<String>
where
    T: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    document["metadata"].as_object_mut().unwrap().remove("namespace");
    let api = Api::<T>::namespaced(client.clone(), NAMESPACE);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let resource: T = serde_json::from_value(document).unwrap();
    api.create(&dry, &resource).await.err().map(|it| it.to_string())
}

#[tokio::test]
async fn the_api_server_takes_every_manifest() {
    let Some(Cluster { client, .. }) = Cluster::find().await else { return };
    let mut refused = Vec::new();
    for (name, document) in documents() {
        let why = match document["kind"].as_str().unwrap() {
            "Pod" => refusal::<Pod>(&client, document).await,
            "Secret" => refusal::<Secret>(&client, document).await,
            other => panic!("{name}: {other}"),
        };
        refused.extend(why.map(|why| format!("{name}: {why}")));
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[tokio::test]
async fn the_api_server_refuses_a_manifest_that_is_wrong() {
    let Some(Cluster { client, .. }) = Cluster::find().await else { return };
    let (_, mut pod) = documents().into_iter().find(|(_, it)| it["kind"] == "Pod").unwrap();
    pod["spec"]["restartPolicy"] = Value::from("Sometimes");
    let why = refusal::<Pod>(&client, pod).await.unwrap();
    assert!(why.contains("restartPolicy"), "{why}");
}
