//! Pods on a real cluster, the one that `KUBECONFIG` names: what is asked of its API server, what a node makes of
//! pods, and what becomes of tasks where something goes wrong.

mod access;
mod doctor;
mod gate;
#[cfg(feature = "failpoints")]
mod kills;
mod logs;
mod manifests;
mod node;
mod scene;
mod trouble;
