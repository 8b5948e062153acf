//! Accepts connections and serves them until asked to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::api::Peer;
use crate::measures::{self, Held};

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    /// The API answers those that are larger; this is where it is told of them.
    pub(super) head_bytes: usize,
    pub(super) head_timeout: Duration,
}

/// Heads that are too large are read so far beyond their limit, so that they can be answered in words.
const HEAD_SLACK: usize = 400 << 10;

/// One line is enough for a while.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// As many files and sockets as the system lets this process have: the usual limit is for programs that wait
/// on few.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, ?current, "the limit of open files stays as it is");
    }
}

pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "listen on {address}: is another service there? Choose another address with --listen"
        )
    })
}

/// Accepts until `stop`; then each connection ends after the request that it is in.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut said: Option<Instant> = None;
    loop {
        if places.available_permits() == 0 {
            metrics::counter!(measures::CONNECTIONS_FULL).increment(1);
            if said.is_none_or(|it| it.elapsed() > SAY_AGAIN) {
                said = Some(Instant::now());
                tracing::warn!(
                    connections = limits.connections,
                    "every connection is in use (http.max_connections): new ones wait"
                );
            }
        }
        let freed = tokio::select! {
            () = stop.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        // It is never closed.
        let Ok(place) = freed else { return };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: closing connections will help.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        metrics::counter!(measures::CONNECTIONS_ALL).increment(1);
        let peer = Peer(peer.ip());
        let serving = connection(stream, peer, router.clone(), limits, stop.clone());
        connections.spawn(async move {
            let _place = place;
            let _open = Held::new(metrics::gauge!(measures::CONNECTIONS));
            serving.await;
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small answers may be late");
    }
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes + HEAD_SLACK)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}
