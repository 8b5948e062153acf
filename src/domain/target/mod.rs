//! A target: one configured backend, and what its operator wants of it.
//!
//! [`parse`] reads the document that an operator writes into a [`Target`], or into every fault in it;
//! [`to_document`] writes it again. The serialised form is what the store keeps: fields may be added with a
//! default, and none may change its meaning. It holds credentials: nobody is shown it as it is, and the debug forms
//! leave them out.

mod check;
mod document;
mod parse;
mod placement;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use check::{MissingPermission, TargetCheck};
pub use document::to_document;
pub(in crate::domain) use parse::read_labels;
pub use parse::{check_name, docker_host, parse};
pub use placement::Placement;
pub use secret::{MASK, Secret, SecretAddress};

/// The target without containers. It is always there, and is used only when it is named.
pub const SIMULATED: &str = "simulated";
/// The target that the settings of Docker make.
pub const LOCAL: &str = "local";

/// One backend under the name that tasks call it by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    #[serde(flatten)]
    pub backend: Backend,
    /// Nothing new is started on one that is not: it drains.
    pub enabled: bool,
    /// The most tasks that each worker holds on it. None: as the worker's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// What tasks may ask for instead of a name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Target {
    /// Enabled, without anything else.
    pub const fn plain(backend: Backend) -> Self {
        Self { backend, enabled: true, concurrency: None, labels: BTreeMap::new() }
    }
}

/// What is behind a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Backend {
    Docker(DockerBackend),
    Kubernetes(Box<KubernetesBackend>),
    Simulated,
}

impl Backend {
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Docker(_) => "docker",
            Self::Kubernetes(_) => "kubernetes",
            Self::Simulated => "simulated",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DockerBackend {
    /// As in `DOCKER_HOST`. None: the local socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KubernetesBackend {
    pub access: Access,
    /// Where pods go. None: as the credentials say, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The others that a task may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The certificate of the API server is not checked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls_skip_verify: bool,
    /// `http://` or `socks5://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SecretAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonate: Option<Impersonate>,
    #[serde(default)]
    pub pod_security: PodSecurity,
    /// Under every task's own `kubernetes.pod_template`, merged the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Value>,
    #[serde(default)]
    pub collector: Collector,
}

impl KubernetesBackend {
    /// A cluster as it is reached, with the defaults of everything else.
    pub fn over(access: Access) -> Self {
        Self {
            access,
            namespace: None,
            namespaces: Vec::new(),
            tls_skip_verify: false,
            proxy: None,
            impersonate: None,
            pod_security: PodSecurity::default(),
            pod_template: None,
            collector: Collector::default(),
        }
    }
}

/// Whom the API server takes us for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Access {
    /// The service account of the pod that this service runs in.
    InCluster,
    /// A kubeconfig, with everything that it may say: exec plugins, certificates, tokens.
    Kubeconfig {
        source: KubeconfigSource,
        /// None: its current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<String>,
    },
    Token {
        server: Server,
        token: TokenSource,
    },
    ClientCertificate {
        server: Server,
        /// PEM.
        certificate: String,
        /// PEM.
        key: Secret,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KubeconfigSource {
    /// `KUBECONFIG` of the service's environment, else `~/.kube/config`.
    Default,
    /// Read by the workers, again when it has changed.
    Path(PathBuf),
    /// The document itself: YAML or JSON.
    Content(Secret),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `https://…`
    pub url: String,
    /// PEM. None: the certificates that the machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    Content(Secret),
    /// Read by the workers, again when it has changed.
    Path(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impersonate {
    pub user: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// What every pod of a target has to keep to, by the names of the Pod Security Standards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodSecurity {
    /// No privilege escalation, the runtime's seccomp profile, no token.
    #[default]
    Baseline,
    /// All that `restricted` asks for, too: not root, no capabilities.
    Restricted,
}

/// The container that hands files out of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Collector {
    pub image: String,
    pub cpu_millis: i64,
    pub memory_bytes: i64,
}

impl Default for Collector {
    fn default() -> Self {
        Self { image: "busybox:latest".to_owned(), cpu_millis: 10, memory_bytes: 16 << 20 }
    }
}
