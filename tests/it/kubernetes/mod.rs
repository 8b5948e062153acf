//! What needs a cluster and no service: the one that `KUBECONFIG` names.

mod logs;
mod manifests;
