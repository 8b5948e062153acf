//! The documentation of what `domain::target::parse` reads.

#![expect(dead_code, reason = "documentation alone")]

use std::collections::HashMap;

use serde_json::Value;
use utoipa::ToSchema;

use crate::api::v1::tasks::document::{Cpu, Memory, TextValue};

/// What a target is. Fields of other kinds than its own are refused. What is secret is shown as `***`, and
/// `***` that is put back stands for what is stored.
#[derive(ToSchema)]
pub(in crate::api) struct TargetDocument {
    kind: TargetKind,
    /// Docker: `unix:///var/run/docker.sock`, `tcp://host:2375`. Default: the local socket.
    #[schema(required = false, examples("unix:///var/run/docker.sock"))]
    host: String,
    /// Kubernetes: by the service account of the pod that the service runs in.
    #[schema(required = false, examples(true))]
    in_cluster: bool,
    #[schema(required = false)]
    kubeconfig: Kubeconfig,
    /// Kubernetes: the address of the API server, beside a token, or a certificate with its key.
    #[schema(required = false, examples("https://10.0.0.1:6443"))]
    server: String,
    /// The certificate of the API server's authority, as PEM. Default: those that the machine trusts.
    #[schema(
        required = false,
        examples("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    )]
    ca: String,
    /// Secret.
    #[schema(required = false, examples("***"))]
    token: String,
    /// A file with the token, on the machines of the workers.
    #[schema(required = false, examples("/var/run/secrets/token"))]
    token_file: String,
    /// PEM.
    #[schema(
        required = false,
        examples("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    )]
    client_certificate: String,
    /// PEM. Secret.
    #[schema(required = false, examples("***"))]
    client_key: String,
    /// Kubernetes: where pods go. Default: as the credentials say, else `default`.
    #[schema(required = false, max_length = 63, examples("etl"))]
    namespace: String,
    /// The others that tasks may name.
    #[schema(required = false, examples(json!(["etl-heavy"])))]
    namespaces: Vec<String>,
    /// The certificate of the API server is not checked.
    #[schema(required = false, default = false)]
    tls_skip_verify: bool,
    /// `http://`, perhaps with a user and a password, which is secret, or `socks5://` without.
    #[schema(required = false, examples("http://10.0.0.1:3128"))]
    proxy: String,
    #[schema(required = false)]
    impersonate: Impersonate,
    #[schema(required = false)]
    pod_security: PodSecurity,
    /// A part of a pod that goes under every task's own. An explicit null takes something away.
    #[schema(required = false, value_type = HashMap<String, Value>, examples(json!({"spec": {"nodeSelector": {"pool": "etl"}}})))]
    pod_template: Value,
    #[schema(required = false)]
    collector: Collector,
    /// Nothing new is started on a target that is not: what runs there ends in peace.
    #[schema(required = false, default = true)]
    enabled: bool,
    /// The most tasks that each worker has there at a time. Default: `worker.concurrency`.
    #[schema(required = false, minimum = 1, maximum = 100_000, examples(50))]
    concurrency: u32,
    /// What tasks may ask for instead of a name.
    #[schema(required = false, examples(json!({"gpu": "yes"})))]
    labels: HashMap<String, TextValue>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum TargetKind {
    Docker,
    Kubernetes,
    Simulated,
}

/// Kubernetes: a kubeconfig by its path or its content. Empty: the default one of the workers.
#[derive(ToSchema)]
pub(in crate::api) struct Kubeconfig {
    /// On the machines of the workers.
    #[schema(required = false, examples("/etc/supercargo/kubeconfig"))]
    path: String,
    #[schema(required = false)]
    content: KubeconfigContent,
    /// Default: its current one.
    #[schema(required = false, examples("prod"))]
    context: String,
}

/// YAML as text, or an object. Secret.
#[derive(ToSchema)]
#[schema(examples("***"))]
#[serde(untagged)]
pub(in crate::api) enum KubeconfigContent {
    Text(String),
    Object(HashMap<String, Value>),
}

/// Whom the API server is to take the service for.
#[derive(ToSchema)]
pub(in crate::api) struct Impersonate {
    #[schema(examples("etl"))]
    user: String,
    #[schema(required = false, examples(json!(["pipelines"])))]
    groups: Vec<String>,
}

/// What every pod keeps to, by the Pod Security Standards. Default: `baseline`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case", default = "baseline")]
pub(in crate::api) enum PodSecurity {
    Baseline,
    Restricted,
}

/// The container that hands files out of a pod.
#[derive(ToSchema)]
pub(in crate::api) struct Collector {
    #[schema(required = false, default = "busybox:latest", examples("busybox:latest"))]
    image: String,
    #[schema(required = false)]
    resources: CollectorResources,
}

#[derive(ToSchema)]
pub(in crate::api) struct CollectorResources {
    #[schema(required = false)]
    cpu: Cpu,
    #[schema(required = false)]
    memory: Memory,
}
