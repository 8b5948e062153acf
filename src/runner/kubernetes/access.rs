//! From what an operator says of a cluster to a client of its API server.

use std::path::{Path, PathBuf};

use kube::config::{AuthInfo, ExecInteractiveMode, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use sha2::{Digest as _, Sha256};

use super::errors::chain;
use crate::domain::spec::hex;
use crate::domain::target::{Access, KubeconfigSource, KubernetesBackend, Server, TokenSource};

/// Where a pod finds its own credentials.
const OF_THE_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A way to a cluster.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// Where the credentials lead to by themselves.
    pub(super) namespace: String,
    /// Tells clusters apart where they may not be asked who they are.
    pub(super) fingerprint: String,
    /// For people: the address, and the proxy before it.
    pub(super) place: String,
    /// Nobody checks that it is the API server who answers.
    pub(super) unverified: bool,
    /// Of the files that were read.
    pub(super) stamp: Stamp,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Reads the credentials anew. Sends nothing to the cluster; an exec plugin of a kubeconfig is run.
pub(super) async fn connect(backend: &KubernetesBackend) -> Result<Connection, String> {
    // Before the files are read: what is written in between is seen at the next look.
    let stamp = stamp(backend).await;
    let config = config(backend).await?;
    let namespace = config.default_namespace.clone();
    let fingerprint = fingerprint(&config);
    let place = place(&config, backend);
    let unverified = config.accept_invalid_certs;
    // An exec plugin is waited for in there.
    let built = tokio::task::spawn_blocking(move || Client::try_from(config));
    match built.await {
        Ok(Ok(client)) => {
            Ok(Connection { client, namespace, fingerprint, place, unverified, stamp })
        }
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
                KubeconfigSource::Content(text) => Kubeconfig::from_yaml(text.expose()),
            }
            .map_err(|it| unreadable(&it))?;
            let options =
                KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            let known: Vec<_> = kubeconfig.contexts.iter().map(|it| it.name.clone()).collect();
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
                let known = match &error {
                    KubeconfigError::LoadContext(_) | KubeconfigError::CurrentContextNotSet => {
                        format!("; its contexts are: {}", known.join(", "))
                    }
                    _ => String::new(),
                };
                format!("the kubeconfig: {}{known}", unreadable(&error))
            })?
        }
        Access::Token { server, token } => {
            let auth = match token {
                TokenSource::Content(token) => AuthInfo {
                    token: Some(token.expose().trim().to_owned().into()),
                    ..AuthInfo::default()
                },
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
                client_key_data: Some(encode(key.expose()).into()),
                ..AuthInfo::default()
            };
            of_server(server, auth)?
        }
    };
    as_people_write_them(&mut config.auth_info).await?;
    if backend.tls_skip_verify {
        config.accept_invalid_certs = true;
    }
    if let Some(proxy) = &backend.proxy {
        let uri = proxy
            .expose()
            .parse()
            .map_err(|error| format!("the proxy {}: {error}", proxy.shown()))?;
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

/// What other clients of Kubernetes take, too.
async fn as_people_write_them(auth: &mut AuthInfo) -> Result<(), String> {
    if let Some(exec) = &mut auth.exec {
        // Nobody sits before a service: a plugin that would ask for a password says that it can't.
        exec.interactive_mode = Some(ExecInteractiveMode::Never);
    }
    let Some(file) = auth.token_file.as_ref().filter(|_| auth.token.is_none()) else {
        return Ok(());
    };
    let text = tokio::fs::read_to_string(file)
        .await
        .map_err(|error| format!("the file of the token, {file}, can't be read: {error}"))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(format!("the file of the token, {file}, is empty"));
    }
    if token != text {
        // A line end after it would not fit into a header. The file is looked after by its stamp.
        (auth.token, auth.token_file) = (Some(token.to_owned().into()), None);
    }
    Ok(())
}

/// Never quotes the document: there are credentials in it.
fn unreadable(error: &KubeconfigError) -> String {
    let KubeconfigError::Parse(error) = error else { return chain(error) };
    let place = error.location().map(|it| format!(", line {} column {}", it.line(), it.column()));
    format!("it does not read as a kubeconfig{}", place.unwrap_or_default())
}

/// Tells whether the files of a way to a cluster are still the same.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Stamp(Vec<u8>);

pub(super) async fn stamp(backend: &KubernetesBackend) -> Stamp {
    let mut digest = Sha256::new();
    for file in files(&backend.access) {
        let bytes = tokio::fs::read(&file).await.unwrap_or_default();
        digest.update(bytes.len().to_le_bytes());
        digest.update(bytes);
    }
    Stamp(digest.finalize().to_vec())
}

fn files(access: &Access) -> Vec<PathBuf> {
    match access {
        // Its token is read again by the client.
        Access::InCluster => vec![Path::new(OF_THE_POD).join("ca.crt")],
        Access::Kubeconfig { source: KubeconfigSource::Default, .. } => {
            match std::env::var_os("KUBECONFIG") {
                Some(list) => std::env::split_paths(&list).collect(),
                None => {
                    std::env::home_dir().map(|it| it.join(".kube/config")).into_iter().collect()
                }
            }
        }
        Access::Kubeconfig { source: KubeconfigSource::Path(path), .. }
        | Access::Token { token: TokenSource::Path(path), .. } => vec![path.clone()],
        Access::Kubeconfig { source: KubeconfigSource::Content(_), .. }
        | Access::Token { token: TokenSource::Content(_), .. }
        | Access::ClientCertificate { .. } => Vec::new(),
    }
}

fn place(config: &Config, backend: &KubernetesBackend) -> String {
    let server = config.cluster_url.to_string();
    let server = server.trim_end_matches('/');
    match (&backend.proxy, &config.proxy_url) {
        (Some(proxy), _) => format!("{server} by the proxy {}", proxy.shown()),
        (None, Some(proxy)) => {
            let host = proxy.host().unwrap_or_default();
            let port = proxy.port_u16().map(|it| format!(":{it}")).unwrap_or_default();
            format!("{server} by the proxy {host}{port}")
        }
        (None, None) => server.to_owned(),
    }
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
