//! The floor of a pod: what a careful client asks of a cluster to run one, and nothing more.
//!
//! Create, watch until its container has ended, read the log, delete, over the connections of one client. The
//! pod is the one that the service makes of the same task, but without what its launch protocol adds (the
//! variable from a Secret, the finalizer, the labels): what these cost is the service's tax.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{
    DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

/// Made for the benches, and removed by them.
const NAMESPACE: &str = "supercargo-bench";
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const WITHIN: Duration = Duration::from_mins(5);
/// How many at once are removed.
const AT_ONCE: usize = 8;

/// The cluster that `KUBECONFIG` names.
pub(crate) struct Cluster {
    kubeconfig: Kubeconfig,
    pub(crate) config: Config,
    client: Client,
}

/// How long each step took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) create: Duration,
    pub(crate) end: Duration,
    pub(crate) log: Duration,
    pub(crate) delete: Duration,
}

impl Steps {
    pub(crate) fn total(&self) -> Duration {
        self.create + self.end + self.log + self.delete
    }
}

impl Cluster {
    /// None: there is none to measure on.
    pub(crate) async fn find() -> anyhow::Result<Option<Self>> {
        if std::env::var_os("KUBECONFIG").is_none_or(|it| it.is_empty()) {
            return Ok(None);
        }
        let kubeconfig = Kubeconfig::read()?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await?;
        let client = Client::try_from(config.clone())?;
        client.apiserver_version().await.context("the cluster of KUBECONFIG does not answer")?;
        Ok(Some(Self { kubeconfig, config, client }))
    }

    /// The same, by another way.
    pub(crate) fn at(&self, server: &str) -> anyhow::Result<Self> {
        let (mut kubeconfig, mut config) = (self.kubeconfig.clone(), self.config.clone());
        for it in kubeconfig.clusters.iter_mut().filter_map(|it| it.cluster.as_mut()) {
            it.server = Some(server.to_owned());
        }
        config.cluster_url = server.parse()?;
        let client = Client::try_from(config.clone())?;
        Ok(Self { kubeconfig, config, client })
    }

    /// As a target of the service.
    pub(crate) fn target(&self, concurrency: usize) -> anyhow::Result<String> {
        let content = serde_json::to_string(&self.kubeconfig)?;
        let target = json!({
            "kind": "kubernetes", "kubeconfig": {"content": content}, "namespace": NAMESPACE,
            "concurrency": concurrency,
        });
        Ok(target.to_string())
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    /// A namespace without anything in it.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        self.erase().await?;
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        self.namespaces().create(&PostParams::default(), &namespace).await?;
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), NAMESPACE);
        let give_up = Instant::now() + WITHIN;
        while accounts.get_opt("default").await?.is_none() {
            ensure!(Instant::now() < give_up, "{NAMESPACE} gets no service account");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        // Older clusters refuse a pod until the account has a token, which the API does not promise to show.
        let probe = serde_json::from_value(json!({
            "metadata": {"name": "probe"},
            "spec": {"containers": [{"name": "main", "image": "probe"}], "nodeName": "nowhere"},
        }))?;
        while let Err(error) = self.pods().create(&PostParams::default(), &probe).await {
            ensure!(Instant::now() < give_up, "{NAMESPACE} takes no pod: {error}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.remove("probe").await
    }

    /// Removes the namespace and all that is in it, whoever holds it.
    pub(crate) async fn erase(&self) -> anyhow::Result<()> {
        let give_up = Instant::now() + WITHIN;
        while self.namespaces().get_opt(NAMESPACE).await?.is_some() {
            ensure!(Instant::now() < give_up, "{NAMESPACE} can't be removed");
            let pods = self.pods().list_metadata(&ListParams::default()).await?;
            let names = pods.items.into_iter().filter_map(|it| it.metadata.name);
            let removals = futures_util::stream::iter(names).map(|it| async move {
                let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                self.pods().patch(&it, &PatchParams::default(), &patch).await.ok();
                self.remove(&it).await.ok();
            });
            removals.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
            self.namespaces().delete(NAMESPACE, &DeleteParams::default()).await.ok();
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Without the patience that a pod that has ended does not need.
    async fn remove(&self, pod: &str) -> anyhow::Result<()> {
        self.pods().delete(pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    pub(crate) async fn count(&self, label: &str) -> anyhow::Result<usize> {
        Ok(self.pods().list_metadata(&ListParams::default().labels(label)).await?.items.len())
    }

    /// Waits until no pod with this label (`name=value`) is left.
    pub(crate) async fn until_gone(&self, label: &str) -> anyhow::Result<()> {
        let give_up = Instant::now() + WITHIN;
        while self.count(label).await? > 0 {
            ensure!(Instant::now() < give_up, "pods with {label} are not removed");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// The whole life of a pod that says nothing much.
    pub(crate) async fn run(&self, pod: &Pod) -> anyhow::Result<Steps> {
        let mut at = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            now - std::mem::replace(&mut at, now)
        };
        let pods = self.pods();
        let created = pods.create(&PostParams::default(), pod).await?.metadata;
        let name = created.name.context("a pod has no name")?;
        let create = lap();
        let version = created.resource_version.context("a pod has no version")?;
        self.until_ended(&name, &version).await?;
        let end = lap();
        pods.logs(&name, &LogParams::default()).await?;
        let log = lap();
        self.remove(&name).await?;
        Ok(Steps { create, end, log, delete: lap() })
    }

    async fn until_ended(&self, name: &str, version: &str) -> anyhow::Result<()> {
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let pods = self.pods();
        let mut events = std::pin::pin!(pods.watch(&params, version).await?);
        while let Some(event) = events.try_next().await? {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
                bail!("the watch of {name} broke off: {event:?}");
            };
            let statuses = pod.status.unwrap_or_default().container_statuses.unwrap_or_default();
            let ended = statuses.first().and_then(|it| it.state.as_ref()?.terminated.as_ref());
            if let Some(ended) = ended {
                ensure!(ended.exit_code == 0, "{name} ended with {}", ended.exit_code);
                return Ok(());
            }
        }
        bail!("the watch of {name} ended before it")
    }
}

/// Of a pod as the service makes it, what is not its protocol.
pub(crate) fn bare(rendered: &Value) -> anyhow::Result<Pod> {
    let mut pod = rendered.clone();
    pod["metadata"] = json!({"generateName": "bare-"});
    let env = pod.pointer_mut("/spec/containers/0/env").and_then(Value::as_array_mut);
    env.context("the pod has no variables")?.retain(|it| it.get("valueFrom").is_none());
    Ok(serde_json::from_value(pod)?)
}
