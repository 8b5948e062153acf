//! A service whose tasks are pods.

use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use supercargo::ids::TaskId;
use supercargo::runner::naming;
use tempfile::TempDir;

use crate::support::cluster::Cluster;
use crate::support::service::{Options, Service};
use crate::support::until;

/// A node may have much to do.
pub(super) const PATIENCE: Duration = Duration::from_mins(3);

pub(super) struct Scene {
    pub(super) service: Service,
    pub(super) cluster: Cluster,
    pub(super) namespace: String,
    config: TempDir,
}

impl Scene {
    /// In a namespace of its own.
    pub(super) async fn start(cluster: Cluster, env: &[(&str, &str)]) -> Self {
        let namespace = format!("sc-it-{}", &TaskId::generate().uuid().simple().to_string()[20..]);
        cluster.make_namespace(&namespace).await;
        let config = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = config.path().join("supercargo.toml");
        let kubeconfig = std::env::var("KUBECONFIG").unwrap();
        let text = format!(
            "default_target = \"cluster\"\n[docker]\nenabled = false\n[targets.cluster]\n\
             kind = \"kubernetes\"\nkubeconfig = {{ path = {kubeconfig:?} }}\nnamespace = {namespace:?}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut env: Vec<_> =
            env.iter().map(|&(name, it)| (name.to_owned(), it.to_owned())).collect();
        env.push(("SUPERCARGO_CONFIG".to_owned(), file.display().to_string()));
        let service = Service::start_with(Options { env, ..Options::default() }).await;
        Self { service, cluster, namespace, config }
    }

    /// The command line with the settings of the service.
    pub(super) fn cli(&self, args: &[&str]) -> Command {
        let mut command = self.service.cli(args);
        command.env("SUPERCARGO_CONFIG", self.config.path().join("supercargo.toml"));
        command
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// The pods that there are of a task.
    pub(super) async fn pods_of(&self, task: &str) -> Vec<Pod> {
        let params = ListParams::default().labels(&format!("{}={task}", naming::LABEL_TASK));
        self.pods().list(&params).await.unwrap().items
    }

    pub(super) async fn until_pod(&self, task: &str, what: &str, is: impl Fn(&Pod) -> bool) -> Pod {
        until(&format!("the pod of {task} is {what}"), PATIENCE, async || {
            self.pods_of(task).await.into_iter().find(|it| is(it))
        })
        .await
    }

    /// Asks somebody else's way for the removal of the pod of a task.
    pub(super) async fn delete_pod(&self, task: &str) {
        let name = self.pods_of(task).await.remove(0).metadata.name.unwrap();
        self.pods().delete(&name, &DeleteParams::default()).await.unwrap();
    }

    pub(super) async fn ended(&self, task: &str) -> Value {
        until(&format!("task {task} has ended"), PATIENCE, async || {
            let it = self.service.try_request("GET", &format!("/tasks/{task}"), None).await.ok()?;
            let it = serde_json::from_slice::<Value>(&it.bytes).ok()?;
            let state = it["state"].as_str()?;
            ["succeeded", "failed", "skipped", "cancelled"].contains(&state).then_some(it)
        })
        .await
    }

    /// Why the only attempt of a task failed.
    pub(super) async fn reason(&self, task: &str) -> String {
        let task = self.ended(task).await;
        assert_eq!(task["state"], "failed", "{task:#}");
        task["failure"]["reason"].as_str().unwrap().to_owned()
    }

    pub(super) async fn nothing_is_left(&self) {
        until("no pod is left", PATIENCE, async || {
            self.pods().list(&ListParams::default()).await.ok()?.items.is_empty().then_some(())
        })
        .await;
    }

    /// The end of a test that has left nothing.
    pub(super) async fn close(self) {
        self.nothing_is_left().await;
        self.delete_namespace().await;
    }

    pub(super) async fn delete_namespace(&self) {
        let namespaces = Api::<Namespace>::all(self.cluster.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

/// A task that ends by itself, once, with these fields on top.
pub(super) fn task(script: &str, more: Value) -> Value {
    let mut task = json!({
        "image": "busybox:latest", "command": ["sh", "-c", script], "platform_retries": 0,
        "timeouts": {"stop_grace": "1s"},
    });
    for (name, it) in more.as_object().unwrap() {
        task[name] = it.clone();
    }
    task
}

pub(super) fn is_running(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|it| it.container_statuses.as_ref());
    statuses
        .into_iter()
        .flatten()
        .any(|it| it.state.as_ref().is_some_and(|it| it.running.is_some()))
}
