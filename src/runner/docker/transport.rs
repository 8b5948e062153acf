//! The way to an engine: made without any I/O, one connection for each request.
//!
//! bollard's own clients want the socket to exist already, and read every answer through a task of
//! their own: for a log that is a hand-over between threads for each line, and three times slower than
//! the engine. This one also tells when an answer begins ([`Opened`]), and can leave a connection to
//! whoever reads from it ([`Inline`]).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const DEFAULT_TCP_PORT: u16 = 2375;
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
    Client(#[from] Error),
}

/// No connection: nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("no connection to {to}: {cause}")]
pub(super) struct NotConnected {
    to: String,
    cause: io::Error,
}

/// Travels with a request and hears when the answer begins.
#[derive(Debug, Clone, Default)]
pub(super) struct Opened(Arc<Notify>);

impl Opened {
    pub(super) async fn wait(&self) {
        self.0.notified().await;
    }

    /// A client whose requests tell this.
    pub(super) fn on(&self, docker: &Docker) -> Docker {
        marked(docker, self.clone())
    }
}

/// What moves the bytes of one connection.
pub(super) type Driver = BoxFuture<'static, ()>;

/// Travels with a request and gets its connection once the answer has begun. Whoever reads the answer
/// has to drive it.
#[derive(Clone, Default)]
pub(super) struct Inline(Arc<Mutex<Option<Driver>>>);

impl Inline {
    pub(super) fn take(&self) -> Option<Driver> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, driver: Driver) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(driver);
    }

    /// A client whose connections come here.
    pub(super) fn on(&self, docker: &Docker) -> Docker {
        marked(docker, self.clone())
    }
}

fn marked<T: Clone + Send + Sync + 'static>(docker: &Docker, mark: T) -> Docker {
    docker.clone().with_request_modifier(move |mut request| {
        request.extensions_mut().insert(mark.clone());
        request
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Address {
    fn parse(host: Option<&str>) -> Result<Self, HostError> {
        let Some(host) = host.filter(|it| !it.is_empty()) else {
            return Ok(Self::Unix(DEFAULT_SOCKET.into()));
        };
        let invalid = || HostError::Invalid(host.to_owned());
        match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some((scheme @ ("tcp" | "http"), rest)) => {
                let authority = rest.trim_end_matches('/');
                if authority.is_empty() || authority.contains('/') {
                    return Err(invalid());
                }
                let port = if scheme == "tcp" { DEFAULT_TCP_PORT } else { 80 };
                Ok(Self::Tcp(match authority.rsplit_once(':') {
                    Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
                    _ => format!("{authority}:{port}"),
                }))
            }
            _ => Err(invalid()),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Io>, NotConnected> {
        let connect = async {
            Ok::<Box<dyn Io>, io::Error>(match self {
                Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Self::Tcp(authority) => {
                    let stream = TcpStream::connect(authority).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
            })
        };
        let result = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let result = result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        result.map_err(|cause| NotConnected { to: self.name(), cause })
    }

    fn name(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tcp(authority) => authority.clone(),
        }
    }

    fn host_header(&self) -> HeaderValue {
        match self {
            Self::Unix(_) => HeaderValue::from_static("docker"),
            Self::Tcp(authority) => {
                authority.parse().unwrap_or_else(|_| HeaderValue::from_static("docker"))
            }
        }
    }
}

/// A client for the engine at this address. Connections are driven by tasks of `tasks`.
pub(super) fn connect(host: Option<&str>, tasks: &TaskTracker) -> Result<Docker, HostError> {
    let address = Arc::new(Address::parse(host)?);
    let tasks = tasks.clone();
    let transport =
        move |request: BollardRequest| send(Arc::clone(&address), tasks.clone(), request);
    // The address is ours to know: bollard wants one to make its paths from.
    Ok(Docker::connect_with_custom_transport(
        transport,
        Some("http://docker"),
        NO_TIMEOUT_SECS,
        API_DEFAULT_VERSION,
    )?)
}

async fn send(
    address: Arc<Address>,
    tasks: TaskTracker,
    mut request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    let opened = request.extensions().get::<Opened>().cloned();
    let inline = request.extensions().get::<Inline>().cloned();
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    *request.uri_mut() = path.parse::<Uri>()?;
    request.headers_mut().insert(HOST, address.host_header());

    let io = address.connect().await.map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let mut driver: Driver = Box::pin(async move {
        if let Err(error) = connection.await {
            // Whoever waits for the answer hears of it, too.
            tracing::trace!(error = &error as &dyn std::error::Error, "connection broke");
        }
    });
    let mut answer = std::pin::pin!(sender.send_request(request));
    let (response, driver) = tokio::select! {
        biased;
        response = &mut answer => (response?, Some(driver)),
        () = &mut driver => (answer.await?, None),
    };
    if let Some(opened) = opened {
        opened.0.notify_one();
    }
    match (driver, inline) {
        (Some(driver), Some(inline)) => inline.put(driver),
        (Some(driver), None) => drop(tasks.spawn(driver)),
        (None, _) => {}
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_docker_host_takes() {
        let unix = |path: &str| Address::Unix(path.into());
        let tcp = |authority: &str| Address::Tcp(authority.to_owned());
        for (host, expected) in [
            (None, unix(DEFAULT_SOCKET)),
            (Some(""), unix(DEFAULT_SOCKET)),
            (Some("unix:///tmp/x.sock"), unix("/tmp/x.sock")),
            (Some("tcp://127.0.0.1:2376"), tcp("127.0.0.1:2376")),
            (Some("tcp://box"), tcp("box:2375")),
            (Some("http://box/"), tcp("box:80")),
        ] {
            assert_eq!(Address::parse(host).unwrap(), expected);
        }
        for bad in ["/var/run/docker.sock", "unix://relative", "ssh://box", "tcp://", "tcp://a/b"] {
            assert!(matches!(Address::parse(Some(bad)), Err(HostError::Invalid(_))), "{bad}");
        }
    }
}
