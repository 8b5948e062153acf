//! The way to an engine: one HTTP client, made without any I/O.
//!
//! bollard's own constructors want the socket to exist already. This one also tells when the answer to
//! a request begins ([`Opened`]), which bollard's streams keep to themselves until their first item.

use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::sync::Notify;

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
const DEFAULT_TCP_PORT: u16 = 2375;
/// Of a connection over TCP: half-open ones are noticed.
const KEEPALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// bollard's own limit, which would also cut a stream that has nothing to say for long: the engine
/// sends not even a head for the log of a quiet container. Calls are bounded by their callers instead.
const NO_TIMEOUT_SECS: u64 = 10 * 365 * 24 * 3600;

/// The address of an engine is not one that can be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(
        "{0:?} is not the address of an engine: use unix:///path, tcp://host:port or http://host:port"
    )]
    Invalid(String),
    #[error("the client can't be made")]
    Client(#[from] bollard::errors::Error),
}

/// Travels in the extensions of a request and hears when the answer begins.
#[derive(Debug, Clone, Default)]
pub(super) struct Opened(Arc<Notify>);

impl Opened {
    pub(super) async fn wait(&self) {
        self.0.notified().await;
    }

    /// A client whose requests tell this.
    pub(super) fn on(&self, docker: &Docker) -> Docker {
        let opened = self.clone();
        docker.clone().with_request_modifier(move |mut request| {
            request.extensions_mut().insert(opened.clone());
            request
        })
    }
}

pub(super) fn connect(host: Option<&str>) -> Result<Docker, HostError> {
    let host = host.filter(|it| !it.is_empty()).unwrap_or(DEFAULT_HOST);
    let invalid = || HostError::Invalid(host.to_owned());
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => {
            // The connector reads the path from the authority, in hex.
            let uri = hyper::Uri::from(hyperlocal::Uri::new(path, "/"));
            let hex = uri.host().ok_or_else(invalid)?;
            client(hyperlocal::UnixConnector, &format!("unix://{hex}"))
        }
        Some((scheme @ ("tcp" | "http"), rest)) => {
            let authority = rest.trim_end_matches('/');
            if authority.is_empty() || authority.contains('/') {
                return Err(invalid());
            }
            let address = match authority.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
                _ if scheme == "tcp" => format!("{authority}:{DEFAULT_TCP_PORT}"),
                _ => authority.to_owned(),
            };
            let mut connector = HttpConnector::new();
            connector.set_keepalive(Some(KEEPALIVE));
            connector.set_nodelay(true);
            connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
            client(connector, &format!("http://{address}"))
        }
        _ => Err(invalid()),
    }
}

fn client<C>(connector: C, address: &str) -> Result<Docker, HostError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let mut builder = Client::builder(TokioExecutor::new());
    // No connection is kept: one that died with its engine would make the next answer look lost.
    builder.pool_max_idle_per_host(0);
    let client = Arc::new(builder.build(connector));
    let send = move |request: BollardRequest| {
        let client = Arc::clone(&client);
        async move {
            let opened = request.extensions().get::<Opened>().cloned();
            let response = client.request(request).await?;
            if let Some(opened) = opened {
                opened.0.notify_one();
            }
            Ok::<_, bollard::errors::Error>(response)
        }
    };
    Ok(Docker::connect_with_custom_transport(
        send,
        Some(address),
        NO_TIMEOUT_SECS,
        API_DEFAULT_VERSION,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_docker_host_takes() {
        for good in [
            None,
            Some(""),
            Some("unix:///tmp/x.sock"),
            Some("tcp://127.0.0.1:2375"),
            Some("tcp://box"),
            Some("http://box:80/"),
        ] {
            assert!(connect(good).is_ok(), "{good:?}");
        }
        for bad in ["/var/run/docker.sock", "unix://relative", "ssh://box", "tcp://", "tcp://a/b"] {
            assert!(matches!(connect(Some(bad)), Err(HostError::Invalid(_))), "{bad}");
        }
    }
}
