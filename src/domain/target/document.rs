//! From a target back to the document that says it.

use serde_json::{Map, Value, json};

use super::secret::{MASK, Secret, without_password};
use super::{
    Access, Backend, Collector, KubeconfigSource, KubernetesBackend, PodSecurity, Server, Target,
    TokenSource,
};
use crate::domain::quantity::{format_bytes, format_cpu_millis};

/// The document that reads as this target. `masked`: with [`MASK`] for what is secret.
pub fn to_document(target: &Target, masked: bool) -> Value {
    let mut it = Map::new();
    put(&mut it, "kind", target.backend.kind());
    match &target.backend {
        Backend::Docker(docker) => {
            if let Some(host) = &docker.host {
                put(&mut it, "host", without_password(host));
            }
        }
        Backend::Kubernetes(kubernetes) => put_kubernetes(&mut it, kubernetes, masked),
        Backend::Simulated => {}
    }
    put(&mut it, "enabled", target.enabled);
    if let Some(concurrency) = target.concurrency {
        put(&mut it, "concurrency", concurrency);
    }
    if !target.labels.is_empty() {
        put(&mut it, "labels", json!(target.labels));
    }
    Value::Object(it)
}

fn put(it: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    it.insert(key.to_owned(), value.into());
}

fn put_kubernetes(it: &mut Map<String, Value>, kubernetes: &KubernetesBackend, masked: bool) {
    let KubernetesBackend {
        access,
        namespace,
        namespaces,
        tls_skip_verify,
        proxy,
        impersonate,
        pod_security,
        pod_template,
        collector,
    } = kubernetes;
    let secret = |it: &Secret| if masked { MASK } else { it.expose() }.to_owned();
    match access {
        Access::InCluster => put(it, "in_cluster", true),
        Access::Kubeconfig { source, context } => {
            let mut config = Map::new();
            match source {
                KubeconfigSource::Default => {}
                KubeconfigSource::Path(path) => put(&mut config, "path", path.to_string_lossy()),
                KubeconfigSource::Content(content) => put(&mut config, "content", secret(content)),
            }
            if let Some(context) = context {
                put(&mut config, "context", context.as_str());
            }
            put(it, "kubeconfig", config);
        }
        Access::Token { server, token } => {
            put_server(it, server);
            match token {
                TokenSource::Content(token) => put(it, "token", secret(token)),
                TokenSource::Path(path) => put(it, "token_file", path.to_string_lossy()),
            }
        }
        Access::ClientCertificate { server, certificate, key } => {
            put_server(it, server);
            put(it, "client_certificate", certificate.as_str());
            put(it, "client_key", secret(key));
        }
    }
    if let Some(namespace) = namespace {
        put(it, "namespace", namespace.as_str());
    }
    if !namespaces.is_empty() {
        put(it, "namespaces", namespaces.clone());
    }
    if *tls_skip_verify {
        put(it, "tls_skip_verify", true);
    }
    if let Some(proxy) = proxy {
        put(it, "proxy", if masked { proxy.shown() } else { proxy.expose().to_owned() });
    }
    if let Some(impersonate) = impersonate {
        let mut whom = Map::new();
        put(&mut whom, "user", impersonate.user.as_str());
        if !impersonate.groups.is_empty() {
            put(&mut whom, "groups", impersonate.groups.clone());
        }
        put(it, "impersonate", whom);
    }
    put(
        it,
        "pod_security",
        match pod_security {
            PodSecurity::Baseline => "baseline",
            PodSecurity::Restricted => "restricted",
        },
    );
    if let Some(template) = pod_template {
        put(it, "pod_template", template.clone());
    }
    let Collector { image, cpu_millis, memory_bytes } = collector;
    let resources =
        json!({"cpu": format_cpu_millis(*cpu_millis), "memory": format_bytes(*memory_bytes)});
    put(it, "collector", json!({"image": image, "resources": resources}));
}

fn put_server(it: &mut Map<String, Value>, server: &Server) {
    put(it, "server", server.url.as_str());
    if let Some(ca) = &server.ca {
        put(it, "ca", ca.as_str());
    }
}
