//! From what an operator says of a cluster to a client of its API server.

use std::path::Path;

use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use sha2::{Digest as _, Sha256};

use super::errors::chain;
use crate::domain::spec::hex;
use crate::domain::target::{Access, KubeconfigSource, KubernetesBackend, Server, TokenSource};

/// A way to a cluster.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// Where the credentials lead to by themselves.
    pub(super) namespace: String,
    /// Tells clusters apart where they may not be asked who they are.
    pub(super) fingerprint: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Reads the credentials anew. Sends nothing to the cluster; an exec plugin of a kubeconfig is run.
pub(super) async fn connect(backend: &KubernetesBackend) -> Result<Connection, String> {
    let config = config(backend).await?;
    let namespace = config.default_namespace.clone();
    let fingerprint = fingerprint(&config);
    // An exec plugin is waited for in there.
    let built = tokio::task::spawn_blocking(move || Client::try_from(config));
    match built.await {
        Ok(Ok(client)) => Ok(Connection { client, namespace, fingerprint }),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err("the credentials could not be read".to_owned()),
    }
}

async fn config(backend: &KubernetesBackend) -> Result<Config, String> {
    let mut config = match &backend.access {
        Access::InCluster => Config::incluster()
            .map_err(|error| format!("this process does not run in a pod: {}", chain(&error)))?,
        Access::Kubeconfig { source, context } => {
            let kubeconfig = match source {
                KubeconfigSource::Default => Kubeconfig::read(),
                KubeconfigSource::Path(path) => Kubeconfig::read_from(path),
                KubeconfigSource::Content(text) => Kubeconfig::from_yaml(text),
            }
            .map_err(|error| chain(&error))?;
            let options =
                KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| chain(&error))?
        }
        Access::Token { server, token } => {
            let auth = match token {
                TokenSource::Content(token) => {
                    AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() }
                }
                TokenSource::Path(path) => {
                    AuthInfo { token_file: Some(text_of(path)), ..AuthInfo::default() }
                }
            };
            of_server(server, auth)?
        }
        Access::ClientCertificate { server, certificate, key } => {
            let encode = |pem: &str| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pem);
            let auth = AuthInfo {
                client_certificate_data: Some(encode(certificate)),
                client_key_data: Some(encode(key).into()),
                ..AuthInfo::default()
            };
            of_server(server, auth)?
        }
    };
    if backend.tls_skip_verify {
        config.accept_invalid_certs = true;
    }
    if let Some(proxy) = &backend.proxy {
        let uri = proxy.parse().map_err(|error| format!("proxy {proxy:?}: {error}"))?;
        config.proxy_url = Some(uri);
    }
    if let Some(impersonate) = &backend.impersonate {
        config.auth_info.impersonate = Some(impersonate.user.clone());
        config.auth_info.impersonate_groups =
            Some(impersonate.groups.clone()).filter(|it| !it.is_empty());
    }
    if let Some(namespace) = &backend.namespace {
        config.default_namespace.clone_from(namespace);
    }
    // Kept as it is: what the API server is too busy for (429, 503) is sent again when it says.
    debug_assert!(config.default_retry);
    Ok(config)
}

fn of_server(server: &Server, auth: AuthInfo) -> Result<Config, String> {
    let url = server.url.parse().map_err(|error| format!("server {:?}: {error}", server.url))?;
    let mut config = Config::new(url);
    if let Some(pem) = &server.ca {
        config.root_cert = Some(certificates(pem)?);
    }
    config.auth_info = auth;
    Ok(config)
}

fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all.into_iter().map(|it| it.to_vec()).collect()),
        Ok(_) => Err("ca: there is no certificate in it".to_owned()),
        Err(error) => Err(format!("ca: {error}")),
    }
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn fingerprint(config: &Config) -> String {
    let mut digest = Sha256::new();
    digest.update(config.cluster_url.to_string());
    for certificate in config.root_cert.iter().flatten() {
        digest.update(certificate);
    }
    format!("api:{}", hex(digest.finalize().iter().take(16)))
}
