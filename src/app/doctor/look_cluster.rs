//! Finds out how the cluster of a Kubernetes target is, and what it has of this installation.

use super::facts::{Asked, Cluster, ClusterFacts, LeaseFacts, Unknown};
use super::look_sandboxes::{given, look_at_sandboxes, within};
use crate::domain::target::KubernetesBackend;
use crate::runner::kubernetes::probe::Probe;
use crate::store::Store;

/// Pods that are looked at, of each namespace.
const MOST_PODS: u32 = 5_000;

pub(super) async fn look(
    target: &str,
    backend: KubernetesBackend,
    store: Asked<&Store>,
    leases: &Asked<LeaseFacts>,
) -> ClusterFacts {
    let given = leases.as_ref().map(|it| given(target, it)).map_err(Clone::clone);
    let probe = Probe::new(backend);
    let (engine, version) = match probe.describe().await {
        Ok(it) => it,
        Err(why) => {
            let pods = Err(Unknown::Skipped("the cluster can't be asked"));
            return ClusterFacts { target: target.to_owned(), cluster: Err(why), given, pods };
        }
    };
    let pods = async {
        let list = |it| probe.list(it, MOST_PODS);
        look_at_sandboxes(store?, target, &engine.0, list).await
    };
    let (rights, pods) = tokio::join!(within(async { Ok(probe.rights().await) }), pods);
    let place = probe.place().unwrap_or_default();
    let rights = rights.map_err(Unknown::Failed);
    let cluster = Ok(Cluster { place, version, id: engine.0, rights });
    ClusterFacts { target: target.to_owned(), cluster, given, pods }
}
